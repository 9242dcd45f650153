"""Spike buffer, row scheduler, row source and spike engine joined: sums equal levels @ weights; no multiplier in the netlist."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.commands import Order
from spikeloom.arch.config import WEIGHT_BITS
from spikeloom.arch.layout import pack_rows, tiles_for, weight_code
from spikeloom.arch.presets import preset
from spikeloom_hw.bus.axi_reader import beat_layout, request_layout
from spikeloom_hw.control.row_scheduler import RowScheduler
from spikeloom_hw.datapath.pe import ProcessingElement
from spikeloom_hw.datapath.spike_engine import SpikeEngine
from spikeloom_hw.lib.stream import Checker
from spikeloom_hw.storage.row_source import RowSource
from spikeloom_hw.storage.spike_buffers import SpikeBuffers
from spikeloom_sim.pysim import simulate

TINY = preset("tiny")
FORBIDDEN = ("$mul", "$div", "$mod", "$pow", "$macc", "$divfloor", "$modfloor")


class EventPath(wiring.Component):
    """The four blocks, connected as the top connects them."""

    def __init__(self, *, cfg):
        self.cfg = cfg
        self.buffer, self.scheduler = SpikeBuffers(cfg=cfg), RowScheduler(cfg=cfg)
        self.source, self.engine = RowSource(cfg=cfg), SpikeEngine(cfg=cfg)
        super().__init__({
            "o_request": Out(stream.Signature(request_layout(cfg.address_width))),
            "i_beat": In(stream.Signature(beat_layout(cfg.bus_width))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer, m.submodules.scheduler = self.buffer, self.scheduler
        m.submodules.source, m.submodules.engine = self.source, self.engine
        wiring.connect(m, self.scheduler.o, self.source.i)
        wiring.connect(m, self.source.o, self.engine.i)
        wiring.connect(m, self.source.o_request, wiring.flipped(self.o_request))
        wiring.connect(m, wiring.flipped(self.i_beat), self.source.i_beat)
        Checker.watch(m, self.scheduler.o, name="events")
        Checker.watch(m, self.source.o, name="weights")
        m.d.comb += [
            self.buffer.r_word.eq(self.scheduler.r_word),
            self.scheduler.r_levels.eq(self.buffer.r_levels),
            self.source.tiles.eq(self.scheduler.tiles),
        ]
        return m


def bus(dut, cfg, image, seed, stall):
    """Answers every request after a latency, with stalls."""
    async def run(ctx):
        rng, queue, offered = random.Random(seed), [], False
        ctx.set(dut.o_request.ready, 1)
        async for _, _, valid, ready, request, taken in ctx.tick().sample(
                dut.o_request.valid, dut.o_request.ready, dut.o_request.payload, dut.i_beat.ready):
            if valid and ready:
                size = cfg.bus_bytes
                queue.extend(int.from_bytes(image[at:at + size], "little")
                             for at in range(request.address, request.address + request.beats * size, size))
            if offered and taken:
                queue.pop(0)
                offered = False
            offered = offered or (bool(queue) and rng.random() >= stall)
            ctx.set(dut.i_beat.valid, offered)
            if offered:
                ctx.set(dut.i_beat.payload.data, queue[0])
            ctx.set(dut.o_request.ready, rng.random() >= stall)
    return run


async def write_spikes(ctx, buffer, cfg, levels):
    ctx.set(buffer.w_en, 1)
    for group in range(cfg.max_neurons // cfg.lanes):
        part = levels[group * cfg.lanes:(group + 1) * cfg.lanes]
        ctx.set(buffer.w_group, group)
        ctx.set(buffer.w_levels, sum((int(level) & (1 << cfg.level_bits) - 1) << (i * cfg.level_bits) for i, level in enumerate(part)))
        await ctx.tick()
    ctx.set(buffer.w_en, 0)


async def load_rows(ctx, source, cfg, packed):
    ctx.set(source.l_en, 1)
    for word in range(0, len(packed), cfg.cols):
        ctx.set(source.l_address, word // cfg.cols)
        ctx.set(source.l_data, int.from_bytes(packed[word:word + cfg.cols], "little"))
        await ctx.tick()
    ctx.set(source.l_en, 0)


def sums_of(ctx, engine, cfg, bank, tile):
    """Sums of grid row 0."""
    out = []
    ctx.set(engine.r_bank, bank)
    ctx.set(engine.r_tile, tile)
    for group in range(cfg.groups_per_tile):
        ctx.set(engine.r_group, group)
        word = ctx.get(engine.r_sums)
        for lane in range(cfg.lanes):
            value = word >> (lane * cfg.acc_width) & ((1 << cfg.acc_width) - 1)
            out.append(value - (value >> (cfg.acc_width - 1) << cfg.acc_width))
    return out


async def run_command(ctx, dut, cfg, bank, **job):
    """Start a command, collect and release its tiles; returns (sums, cycles until its last drain request)."""
    scheduler, source, engine = dut.scheduler, dut.source, dut.engine
    for name in ("n_in", "tiles", "order", "dense"):
        ctx.set(getattr(scheduler, name), int(job[name]))
    ctx.set(scheduler.resident, not job["streamed"])
    for name in ("address", "streamed", "weight_code", "image_bytes"):
        ctx.set(getattr(source, name), int(job[name]))
    ctx.set(source.bank, bank)
    ctx.set(scheduler.start, 1)
    sums, cycles, last = [], 0, False
    ctx.set(engine.o_drain.ready, 1)
    while not last:
        await ctx.tick()
        ctx.set(scheduler.start, 0)
        cycles += 1
        ctx.set(engine.release.en, 0)
        if ctx.get(engine.o_drain.valid):
            got = ctx.get(engine.o_drain.payload)
            assert (got.bank, got.tile) == (bank, len(sums))
            sums.append(sums_of(ctx, engine, cfg, bank, got.tile))
            ctx.set(engine.release, {"en": 1, "bank": bank, "tile": got.tile})
            last = got.last
    await ctx.tick()
    ctx.set(engine.release.en, 0)
    ctx.set(engine.o_drain.ready, 0)
    assert not ctx.get(scheduler.busy) and not ctx.get(source.busy) and not ctx.get(engine.busy)
    return np.array(sums).reshape(-1), cycles


def spike_cases(rng, cfg, n_in):
    """Named levels; neurons beyond n_in hold stale spikes."""
    stale = rng.integers(1, cfg.level_max + 1, cfg.max_neurons)
    cases = {"silent": np.zeros(n_in, np.int64), "full": np.full(n_in, cfg.level_max),
             "sparse": rng.integers(1 - cfg.level_max, cfg.level_max + 1, n_in) * (rng.random(n_in) < 0.3)}
    return {name: np.concatenate([levels, stale[n_in:]]) for name, levels in cases.items()}


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("events", [1, 2])
@pytest.mark.parametrize("streamed, rows, stall", [(0, 1, 0), (0, 2, 0), (1, 1, 0.0), (1, 2, 0.4)])
def test_sums_equal_levels_times_weights(bits, streamed, rows, stall, events):
    cfg, rng = replace(TINY, rows=rows, events=events), np.random.default_rng(bits)
    n_in, n_out = 29, 3 * cfg.cols - 3
    tiles, most = tiles_for(n_out, bits, cfg), 1 if bits == 2 else (1 << (bits - 1)) - 1
    weights = rng.integers(-most, most + 1, (n_in, n_out))
    packed = pack_rows(weights, bits, tiles, cfg)
    dut, offset = EventPath(cfg=cfg), 128
    engine = dut.engine
    job = {"n_in": n_in, "tiles": tiles, "streamed": streamed, "address": offset if streamed else 0,
           "weight_code": weight_code(bits), "image_bytes": offset + len(packed)}
    orders = [Order.ROWS] if streamed else list(Order)

    async def bench(ctx):
        bank = 0
        await load_rows(ctx, dut.source, cfg, packed + bytes(-len(packed) % cfg.cols))
        for name, levels in spike_cases(rng, cfg, n_in).items():
            await write_spikes(ctx, dut.buffer, cfg, levels)
            expected = np.zeros(tiles * cfg.cols, np.int64)
            expected[:n_out] = levels[:n_in] @ weights
            spoke = np.count_nonzero(levels[:n_in])
            for order in orders:
                for dense in (0, 1):
                    sums, cycles = await run_command(ctx, dut, cfg, bank, **job, order=order, dense=dense)
                    assert np.array_equal(sums, expected), (name, order, dense)
                    if not streamed and (dense or name == "full"):
                        by_tile = order == Order.TILES
                        rows_wanted = n_in if dense else spoke
                        wanted = [min(cfg.cols, rows_wanted - first) for first in range(0, rows_wanted, cfg.cols)]
                        count = tiles * (sum(-(-word // events) for word in wanted) if by_tile else sum(wanted) + 1)
                        assert cycles == count - 1 + RowScheduler.latency + RowSource.latency + engine.latency
                    bank ^= 1

    simulate(dut, bench, background=[bus(dut, cfg, bytes(offset) + packed, bits, stall)])


@pytest.mark.parametrize("component", [SpikeBuffers, RowScheduler, RowSource, ProcessingElement, SpikeEngine, EventPath])
@pytest.mark.parametrize("rows, events", [(1, 1), (2, 1), (1, 2)])
def test_netlist_holds_no_multiplier(component, rows, events):
    text = rtlil.convert(component(cfg=replace(TINY, rows=rows, events=events)), name="dut", emit_src=False)
    assert "cell $add" in text or component is SpikeBuffers
    assert not [cell for cell in FORBIDDEN if f"cell {cell} " in text]
