"""Boards that are not there: a folder that stands for a bitstream's, and a simulated board behind pynq."""

import pytest

from spikeloom.arch.manifest import write_manifest
from spikeloom.arch.presets import preset
from spikeloom.board.boards import board as board_of
from spikeloom.board.hwh import write_hwh


@pytest.fixture
def bitstream(tmp_path):
    """bitstream(machine, board, full=..., described=..., really=...) -> path of a .bit with all that belongs beside it.

    `described` is the config that the .hwh is made of, `really` the machine that the bitstream holds.
    """
    def make(machine="tiny", board="pynq_z2", *, full=False, described=None, really=None):
        path = tmp_path / "spikeloom.bit"
        path.write_text(f"simulated {really or machine}\n")
        write_hwh(path.with_suffix(".hwh"), board_of(board), described or preset(machine), full=full)
        write_manifest(preset(machine), tmp_path / "manifest.json")
        return path
    return make


@pytest.fixture
def simulated(monkeypatch):
    """The simulated board, as pynq's active device."""
    pytest.importorskip("pynq", reason="pynq: not installed here; make test-boards has environments with it")
    pytest.importorskip("amaranth")
    import pynq.overlay
    from pynq.pl_server.device import Device

    from spikeloom_sim import pynq_board

    monkeypatch.setattr(pynq.overlay, "Clocks", pynq.overlay.Clocks)
    monkeypatch.setattr(Device, "_active_device", None, raising=False)
    board = pynq_board.install()
    yield board
    if board.rtl is not None:
        board.rtl.close()
