"""One device without knowledge of what it runs: identity, image, runs, records, waiting. `device.Device` is what programs use."""

import time
from pathlib import Path

import numpy as np

from ..arch.commands import TRACED, Opcode
from ..arch.config import AcceleratorConfig, ModelConfig
from ..arch.layout import RING_DTYPE, STRIPE_BYTES, TRACE_DTYPE, Image, program_words, stripe
from ..arch.registers import MAGIC, VERSION, Mode, Reason
from ..arch.sweeps import Prefill
from .access import Registers
from .errors import DeadlineExpired, ForeignBitstream, PromptError, SpikeloomError, WrongKind
from .faults import fault, report
from .images import check_machine, open_image
from .results import Token
from .transport import Transport

#: How long one wait for the interrupt lasts before new tokens are looked for: seconds, or cycles of a simulation.
_POLL_S, _POLL_CYCLES = 0.005, 2_000


class Core:
    """A Spikeloom core behind a transport.

    Parameters
    ----------
    transport : Transport
        Owned by the device: `close` closes it.
    cfg : AcceleratorConfig
        What the device was built from.
    deadline_s : float
        Longest time between two signs of life.

    Raises
    ------
    ForeignBitstream
        When the device is not what `cfg` says.
    """

    def __init__(self, transport: Transport, cfg: AcceleratorConfig, *, deadline_s: float = 60.0):
        self.transport, self.cfg, self.deadline_s = transport, cfg, deadline_s
        self.registers = Registers(transport, cfg)
        self.image: Image | None = None
        self.model: ModelConfig | None = None
        #: Why the last run ended.
        self.reason = Reason.NONE
        self._card: dict = {}
        self._buffers: dict[str, object] = {}
        #: What the device's register of that name holds; unknown so far.
        self._prefill: Prefill | None | tuple = ()
        self._ended = True
        #: A power of two that no run can exceed, so that no record is overwritten before it is read.
        self._ring_records = 1 << cfg.max_context.bit_length()
        self._seen = 0
        self._forget()
        self._check_identity()

    def __enter__(self) -> "Core":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Release the transport."""
        self.transport.close()

    def _forget(self):
        """The device holds nothing any more; for what a subclass knows of it."""

    # -- identity and image -----------------------------------------------------------------------------------

    def _check_identity(self):
        magic, version = self.registers.read("magic"), self.registers.read("version")
        if magic != MAGIC:
            raise ForeignBitstream("There is no Spikeloom core at this address: the magic register reads "
                                   f"{magic:#010x}, not {MAGIC:#010x}.")
        if version != VERSION:
            raise ForeignBitstream(f"The device has register map version {version}, this driver speaks version {VERSION}.")
        found = self.registers.read("fingerprint")
        if found != self.cfg.fingerprint:
            shape = self.registers.fields("shape")
            raise ForeignBitstream(
                f"The device was built from another configuration than {self.cfg.name!r}: its fingerprint is {found:#010x}, "
                f"expected {self.cfg.fingerprint:#010x}. It has {shape['cols']} columns, {shape['lanes']} lanes, "
                f"{shape['rows']} grid rows; {self.cfg.name!r} has {self.cfg.cols}, {self.cfg.lanes}, {self.cfg.rows}.")

    def load(self, image: Image | bytes | str | Path) -> None:
        """Check an image, copy it to the device's memory, and boot it. A conversation is forgotten.

        Raises
        ------
        BadImage, ForeignImage
            Before anything is sent.
        BadProgram, BusError, DeadlineExpired
            From booting.
        """
        data, image = open_image(image)
        check_machine(image, self.cfg)
        self.reset()
        self.image = self.model = None
        self._free_buffers()
        model = self._send(data, image)
        self._run(Mode.BOOT)
        self._await_end()
        if self.reason != Reason.BOOTED:
            raise SpikeloomError(f"Booting ended with {self.reason.name}.", state=report(self.registers))
        self.image, self.model = image, model
        self.clear()
        self.clear_counters()

    def _send(self, data, image):
        r = self.registers
        self._card = card = image.card
        model = ModelConfig.from_dict(card["model"])
        base = self._place(stripe(data, self.cfg))
        self._allocate("ring", self._ring_records * RING_DTYPE.itemsize)
        r.write_wide("image_base", base)
        r.write("image_bytes", len(data))
        r.write_wide("ring_base", self._buffers["ring"].address)
        r.write("ring_records", self._ring_records)
        r.write("entries", boot=card["entries"]["boot"], token=card["entries"]["token"])
        self._prefill = ()
        self._set_prefill(True)
        r.write("limits", vocabulary=model.vocabulary, context=model.context)
        r.write("end_token", id=model.end_token)
        r.write_window("program", program_words(image.sections["program"]))
        return model

    def _set_prefill(self, wanted):
        """Prompts are read in blocks, if the image has sweeps for them, or token by token."""
        prefill = Prefill.of(self._card) if wanted else None
        if prefill != self._prefill:
            entry, block = prefill or (0, 0)
            self.registers.write("prefill", entry=entry, block=block)
            self._prefill = prefill

    def _place(self, data):
        """Copy an image into memory; returns where it begins: a block of every port lies there."""
        alignment = self.cfg.ports * STRIPE_BYTES
        buffer = self._allocate("image", len(data) + alignment - STRIPE_BYTES)
        start = -buffer.address % alignment
        buffer.array[start:start + len(data)] = data
        buffer.flush()
        return buffer.address + start

    def _allocate(self, name, nbytes):
        """A buffer of at least that size under a name; an old one that is large enough is kept."""
        old = self._buffers.get(name)
        if old is not None and len(old.array) >= nbytes:
            return old
        if old is not None:
            # Forgotten first: where there is no memory for the new one, nobody finds the old one.
            del self._buffers[name]
            old.free()
        self._buffers[name] = self.transport.allocate(nbytes)
        return self._buffers[name]

    def _free_buffers(self):
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()

    @property
    def position(self) -> int:
        """Positions of the context that are filled."""
        return self.registers.fields("progress")["position"]

    def clear(self) -> None:
        """Forget the context."""
        self.registers.write("control", clear_context=1)

    def stop(self) -> None:
        """Ask the running generation to end after its current token; it then ends with Reason.STOPPED."""
        self.registers.write("control", stop=1)

    def reset(self) -> None:
        """Soft reset: clears errors and the conversation, keeps the loaded image.

        Where the bus is dead the fabric is reset instead, and the image must be loaded again.
        """
        self.registers.write("control", reset=1)
        end = time.monotonic() + self.deadline_s
        while (status := self.registers.fields("status"))["busy"] and not status["bus_dead"]:
            if time.monotonic() > end:
                raise DeadlineExpired("The device did not finish its reset.", state=report(self.registers))
            self.transport.wait_interrupt(_POLL_S, _POLL_CYCLES)
        if status["bus_dead"]:
            self.transport.reset()
            self.image = self.model = None
        self._forget()

    def counters(self) -> dict[str, int]:
        """All counters of the device since `clear_counters`."""
        return self.registers.counters()

    def clear_counters(self) -> None:
        """Zero all counters."""
        self.registers.write("control", clear_counters=1)

    # -- runs -------------------------------------------------------------------------------------------------

    def _check_ready(self, *, encoder):
        """An image of the right kind is loaded, and the device neither busy nor in error."""
        if self.model is None:
            raise SpikeloomError("No image is loaded.", remedy="Call load() first.")
        if self.model.bidirectional != encoder:
            raise WrongKind(f"{self.model.name} is an encoder: it reads a text as a whole and writes none."
                            if self.model.bidirectional else f"{self.model.name} is a decoder: it reads from left to right.")
        status = self.registers.fields("status")
        if status["busy"]:
            raise SpikeloomError("The device is still busy with an earlier run.", remedy="Exhaust or close its iterator, or reset().")
        if self.registers.fields("error")["code"] or status["bus_dead"]:
            self._forget()
            raise fault(self.registers, self._card["labels"])

    def _check_tokens(self, ids):
        """Token ids as a list of int. Raises PromptError."""
        ids = [int(i) for i in ids]
        outside = sorted({i for i in ids if not 0 <= i < self.model.vocabulary})
        if outside:
            raise PromptError(f"Tokens {outside[:5]} lie outside the vocabulary of {self.model.vocabulary}.")
        return ids

    def _run(self, mode, prompt=(), n_new=0, *, sample=False, top_k=0, seed=0, **flags):
        r = self.registers
        if prompt:
            r.write_window("prompt", prompt)
        if not flags.get("trace"):
            # Records and dumps of a run that nobody asked to trace have no memory: the device drops them.
            r.write("trace_bytes", 0)
            r.write("dump_bytes", 0)
        r.write("run", n_prompt=len(prompt), n_new=n_new)
        r.write("seed", seed & 0xFFFF_FFFF)
        r.write("mode", run=mode, sample=bool(sample), top_k=top_k, interrupt_enable=1, **{k: bool(v) for k, v in flags.items()})
        r.write("control", start=1)
        self._seen, self._ended = 0, False

    # -- waiting ----------------------------------------------------------------------------------------------

    def _follow(self):
        """Token records in order, as they appear; ends with the run.

        Raises
        ------
        SpikeloomError
            One of its types.
        """
        last, end = None, time.monotonic() + self.deadline_s
        while True:
            status, progress = self.registers.fields("status"), self.registers.fields("progress")
            new = (progress["records"] - self._seen) & 0xFFFF
            if new:
                for record in self._records(self._seen, new):
                    self._seen += 1
                    yield record
            if status["done"]:
                return self._end(status)
            if progress != last:
                last, end = progress, time.monotonic() + self.deadline_s
            elif time.monotonic() > end:
                raise DeadlineExpired(f"The device made no progress for {self.deadline_s:g} seconds.", state=report(self.registers))
            self.transport.wait_interrupt(_POLL_S, _POLL_CYCLES)

    def _await_end(self):
        for _ in self._follow():
            pass

    def _end(self, status):
        self.registers.write("control", acknowledge=1)
        self._ended = True
        self.reason = Reason(status["reason"])
        if self.reason == Reason.FAILED:
            raise fault(self.registers, self._card["labels"])

    @staticmethod
    def _token(record):
        return Token(int(record["token"]), int(record["position"]), int(record["logit"]), int(record["best"]))

    def _records(self, first, count):
        """Token records first, first + 1, ... of the run."""
        buffer = self._buffers["ring"]
        buffer.invalidate()
        ring = buffer.array[:self._ring_records * RING_DTYPE.itemsize].view(RING_DTYPE)
        return [ring[i % self._ring_records].copy() for i in range(first, first + count)]

    # -- traces -----------------------------------------------------------------------------------------------

    def _prepare_trace(self, tokens):
        """Memory for the checksums and dumps of that many tokens."""
        program, r = self.image.program, self.registers
        commands = sum(c.opcode in TRACED for c in program)
        dumped = sum(c["groups"] for c in program if c.opcode == Opcode.DUMP) * self.cfg.lanes * 4
        for name, size in (("trace", commands * TRACE_DTYPE.itemsize * tokens), ("dump", dumped * tokens)):
            buffer = self._allocate(name, max(size, 16))
            r.write_wide(f"{name}_base", buffer.address)
            r.write(f"{name}_bytes", size)

    def trace_records(self) -> np.ndarray:
        """Checksums of the last run with trace=True: array of TRACE_DTYPE, in order of execution."""
        buffer = self._buffers["trace"]
        buffer.invalidate()
        count = self.registers.read("trace_count")
        return buffer.array[:count * TRACE_DTYPE.itemsize].view(TRACE_DTYPE).copy()

    def dump_words(self) -> np.ndarray:
        """What the DUMP commands of the last run with trace=True wrote: int32, in order of execution."""
        buffer = self._buffers["dump"]
        buffer.invalidate()
        return buffer.array[:self.registers.read("dump_count")].view("<i4").copy()
