"""Benches for `amaranth.sim`: run with a limit, feed and drain streams with seeded stalls."""

import random
from collections.abc import Awaitable, Callable, Iterable

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, connect, flipped
from amaranth.sim import Simulator

from spikeloom_hw.lib.stream import Checker

#: Period of the simulated clock, in seconds.
PERIOD = 1e-8


class Stalls:
    """How many cycles an end of a stream waits before each transfer, drawn from a seeded generator.

    Parameters
    ----------
    seed : object
        Anything `random.Random` accepts; benches print it.
    probability : float
        Chance of waiting one more cycle; 0 never waits.
    """

    def __init__(self, seed: object = 0, probability: float = 0.0):
        self._random = random.Random(seed)
        self.probability = probability

    def draw(self) -> int:
        """Cycles to wait before the next transfer."""
        cycles = 0
        while self._random.random() < self.probability:
            cycles += 1
        return cycles


def simulate(dut, *benches: Callable[..., Awaitable[None]], limit: int = 100_000, background: Iterable = (),
             vcd: str | None = None) -> None:
    """Run benches against a design in domain ``sync`` until all of them have returned.

    Parameters
    ----------
    dut : Elaboratable
        The design.
    benches : async functions of the simulation context
        The simulation ends when all have returned.
    limit : int
        Cycles after which the simulation fails, naming the benches that still run.
    background : iterable of async functions
        Benches whose end nobody waits for; in each cycle they act first.
    vcd : str, optional
        Write waves to this file.
    """
    running = dict(enumerate(benches))

    def tracked(index, bench):
        async def run(ctx):
            await bench(ctx)
            del running[index]
        return run

    async def watchdog(ctx):
        for _ in range(limit):
            await ctx.tick()
            if not running:
                return
        names = ", ".join(getattr(bench, "__qualname__", repr(bench)) for bench in running.values())
        raise TimeoutError(f"After {limit} cycles these benches are still waiting: {names}.")

    simulator = Simulator(dut)
    simulator.add_clock(PERIOD)
    for bench in background:
        simulator.add_testbench(bench, background=True)
    for index, bench in enumerate(benches):
        simulator.add_testbench(tracked(index, bench))
    simulator.add_testbench(watchdog)
    if vcd is None:
        simulator.run()
    else:
        with simulator.write_vcd(vcd):
            simulator.run()


class Checked(wiring.Component):
    """A component with a `Checker` on each of its streams; has the component's own members.

    Parameters
    ----------
    inner : wiring.Component
        What to check; single streams only, no arrays of them.
    """

    def __init__(self, inner: wiring.Component):
        self.inner = inner
        super().__init__(dict(inner.signature.members))

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = self.inner
        for name, member in self.inner.signature.members.items():
            outer, inner = getattr(self, name), getattr(self.inner, name)
            if member.is_signature:
                connect(m, flipped(outer), inner)
                if isinstance(member.signature, stream.Signature):
                    Checker.watch(m, inner, name=name)
            elif member.flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m


async def send(ctx, port, payloads: Iterable, stalls: Stalls | None = None) -> None:
    """Transfer payloads into a stream, waiting as drawn before each."""
    stalls = stalls or Stalls()
    for payload in payloads:
        idle = stalls.draw()
        if idle:
            await ctx.tick().repeat(idle)
        ctx.set(port.payload, payload)
        ctx.set(port.valid, 1)
        await ctx.tick().until(port.ready)
        ctx.set(port.valid, 0)


async def receive(ctx, port, count: int, stalls: Stalls | None = None) -> list:
    """Transfer ``count`` payloads out of a stream, waiting as drawn before each."""
    stalls = stalls or Stalls()
    received = []
    for _ in range(count):
        idle = stalls.draw()
        if idle:
            await ctx.tick().repeat(idle)
        ctx.set(port.ready, 1)
        payload, = await ctx.tick().sample(port.payload).until(port.valid)
        ctx.set(port.ready, 0)
        received.append(payload)
    return received


def stall_cases(seeds: Iterable[int] = (1, 2)) -> list[tuple[int, float, float]]:
    """(seed, source stall, sink stall) for parametrised tests: nobody, one side, the other, both."""
    return [(seed, source, sink) for seed in seeds for source in (0.0, 0.6) for sink in (0.0, 0.6)]
