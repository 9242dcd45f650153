"""`SpikeloomOverlay("spikeloom.bit").generate("Once upon a time")`: the core as users of pynq expect it.

Importing this module registers the driver with pynq, so that any `pynq.Overlay` with the core in it finds `SpikeloomCore`.
"""

import os
from pathlib import Path

import pynq

from ..arch.config import AcceleratorConfig
from ..arch.manifest import read_manifest
from ..driver.device import Device
from ..driver.errors import SpikeloomError
from ..driver.pynq_backend import PynqTransport
from ..driver.recording import Recorder
from .boards import INTERRUPT, VLNV, board
from .session import DEFAULT_MODEL, Session

MANIFEST = "manifest.json"
#: Folder of bitstreams, one folder per board; else `bitstreams` in the current folder or one above it.
BITSTREAMS_VARIABLE = "SPIKELOOM_BITSTREAMS"


class BitstreamMissing(SpikeloomError, FileNotFoundError):
    """There is no bitstream, or it lacks a file that belongs beside it."""

    remedy = "Build it with `make bitstream BOARD=...`, or give the path of a .bit file that has its .hwh and manifest.json beside it."


class SpikeloomCore(pynq.DefaultIP):
    """The core, wherever pynq finds it in an overlay; `open` gives the device."""

    bindto = [VLNV]

    def open(self, cfg: AcceleratorConfig, *, download=None, record: Path | None = None, deadline_s: float = 60.0) -> Device:
        """The device of this core.

        Parameters
        ----------
        cfg : AcceleratorConfig
            What the bitstream was built from.
        download : callable, optional
            Loads the bitstream again.
        record : Path, optional
            Write every call of the driver to this file.

        Raises
        ------
        ForeignBitstream
            When the core is not what `cfg` says.
        """
        transport = PynqTransport(self.mmio, device=self.device, interrupt=getattr(self, INTERRUPT, None), download=download,
                                  address_width=cfg.address_width)
        if record is not None:
            transport = Recorder(transport, record, {"machine": cfg.name, "pynq": pynq.__version__})
        try:
            return Device(transport, cfg, deadline_s=deadline_s)
        except BaseException:
            transport.close()
            raise


def find_bitstream(board_name: str | None = None) -> Path:
    """The bitstream of a board: by default the one that pynq says this is (variable BOARD).

    Raises
    ------
    BitstreamMissing
    """
    name = board_name or os.environ.get("BOARD", "")
    if not name:
        raise BitstreamMissing("Which board this is, is not known: the variable BOARD is not set.")
    folder = board(name).name
    roots = [Path(os.environ[BITSTREAMS_VARIABLE])] if BITSTREAMS_VARIABLE in os.environ else [Path("bitstreams"), Path("../bitstreams")]
    for root in roots:
        if found := sorted((root / folder).glob("*.bit")):
            return found[0]
    raise BitstreamMissing(f"There is no bitstream of {folder} in {' or '.join(map(str, roots))}.")


class SpikeloomOverlay(Session, pynq.Overlay):
    """A loaded bitstream with a model on it: what `Session` does, on a board.

    Parameters
    ----------
    bitfile : path, optional
        A `.bit` with its `.hwh` and `manifest.json` beside it; by default that of this board (`find_bitstream`).
    model : str, path or None
        A model of the package, or a `.loom` file; None: load one later.
    check_clock : bool
        Measure the clock of the fabric first: warn when it is slower than built for, refuse when it is faster.
    record : path, optional
        Write every call of the driver to this file (`driver.recording`).
    deadline_s : float
        Longest time between two signs of life.
    options
        For `pynq.Overlay`.

    Raises
    ------
    BitstreamMissing, ManifestError, ForeignBitstream, ClockTooFast
        Before anything runs.
    """

    def __init__(self, bitfile: str | Path | None = None, *, model: str | Path | None = DEFAULT_MODEL, check_clock: bool = True,
                 record: Path | None = None, deadline_s: float = 60.0, **options):
        path = Path(bitfile) if bitfile is not None else find_bitstream()
        for needed in (path, path.with_suffix(".hwh"), path.with_name(MANIFEST)):
            if not needed.is_file():
                raise BitstreamMissing(f"{needed} does not exist.")
        cfg = read_manifest(path.with_name(MANIFEST))
        pynq.Overlay.__init__(self, str(path.resolve()), **options)
        device = self._core().open(cfg, download=self.download, record=record, deadline_s=deadline_s)
        Session.__init__(self, device, path.parent, model=model, check_clock=check_clock)

    def _core(self):
        names = [name for name, entry in self.ip_dict.items() if entry["type"] == VLNV]
        if len(names) != 1:
            raise BitstreamMissing(f"The description beside the bitstream has {len(names)} cores of type {VLNV}, not one.",
                                   remedy="Use the .hwh that was made with this bitstream.")
        core = self
        for part in names[0].split("/"):
            core = getattr(core, part)
        return core
