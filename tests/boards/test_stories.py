"""The released model on a simulated board: text as it comes, speed, spikes, and the notebooks that show them."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("pynq", reason="pynq: not installed here; make test-boards has environments with it")

import pynq

from spikeloom.arch.presets import preset
from spikeloom.board import models, notebooks
from spikeloom.board.__main__ import main
from spikeloom.board.overlay import SpikeloomOverlay
from spikeloom.board.session import Session
from spikeloom.driver.device import Device
from spikeloom.driver.errors import PromptError
from spikeloom.model.emulator import Emulator

pytestmark = [pytest.mark.rtl, pytest.mark.slow]

MACHINE, MODEL, PROMPT = "sim", "stories-260k", "Once upon a time"
#: Interrupts, on the board that this version of pynq is for.
BOARD = "pynq_z2" if int(pynq.__version__.split(".")[0]) < 4 else "kv260"
NOTEBOOKS = sorted(Path(notebooks.__file__).parent.glob("*.ipynb"))


@pytest.fixture
def overlay(simulated, bitstream):
    opened = SpikeloomOverlay(bitstream(MACHINE, BOARD, full=True))
    yield opened
    opened.close()


def emulated(prompt, tokens, **options):
    """The same text by the emulator."""
    machine = preset(MACHINE)
    session = Session(Device(Emulator(machine), machine), model=MODEL, check_clock=False)
    return "".join(session.generate(prompt, tokens, **options))


def test_text_comes_piece_by_piece_and_is_that_of_the_emulator(overlay):
    pieces = list(overlay.generate(PROMPT, 16, ignore_end=True))
    assert "".join(pieces) == emulated(PROMPT, 16, ignore_end=True) and len(pieces) > 8
    sampled = "".join(overlay.generate(PROMPT, 8, temperature=0.8, top_k=5, seed=3, ignore_end=True))
    assert sampled == emulated(PROMPT, 8, temperature=0.8, top_k=5, seed=3, ignore_end=True)
    first = "".join(overlay.generate(PROMPT, 6, ignore_end=True))
    assert first + "".join(overlay.generate(clear=False, tokens=10, ignore_end=True)) == "".join(pieces)
    with pytest.raises(PromptError, match="日"):
        overlay.generate("日本")


def test_leaving_early_stops_the_device(overlay):
    stream = overlay.generate(PROMPT, 200, ignore_end=True)
    next(stream)
    stream.close()
    assert not overlay.spikeloom.registers.fields("status")["busy"]
    assert "".join(overlay.generate(PROMPT, 4, ignore_end=True)) == emulated(PROMPT, 4, ignore_end=True)


def test_speed_and_spikes(overlay):
    speed = overlay.throughput_test(8, PROMPT)
    assert speed["made"] == 8 and speed["processed"] > 8 and 0 < speed["rows_skipped"] < 1
    assert speed["device_tokens_per_s"] == pytest.approx(overlay.clock.mhz * 1e6 / speed["cycles_per_token"])
    firing = overlay.watch(PROMPT, 4)
    layers = models.load(MODEL).config.layers
    assert len(firing.levels) == 4 * layers + 1 and all(0 < rate < 1 for rate in firing.rates().values())
    assert overlay.decode(firing.tokens).startswith(PROMPT)
    assert "".join(overlay.generate(PROMPT, 4, ignore_end=True)) == emulated(PROMPT, 4, ignore_end=True)


def test_the_command_line_writes(simulated, bitstream, capsys):
    path = bitstream(MACHINE, BOARD)
    assert main(["generate", PROMPT, "--tokens", "8", "--bitstream", str(path)]) == 0
    assert capsys.readouterr().out == f"{PROMPT}{emulated(PROMPT, 8)}\n"
    assert main(["bench", "--tokens", "4", "--bitstream", str(path)]) == 0
    assert "device_tokens_per_s" in capsys.readouterr().out


# -- notebooks --------------------------------------------------------------------------------------------------

def test_notebooks_are_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == [] and cell.execution_count is None, path.name


#: Runs before a notebook: the simulated board, in the notebook's own process.
SIMULATE = """
import warnings
warnings.filterwarnings("ignore", message=".*pkg_resources.*")
from spikeloom_sim import pynq_board
pynq_board.install()
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, bitstream, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("amaranth")
    from spikeloom.board.boards import BOARDS

    bit = bitstream(MACHINE, BOARD, full=True)
    folder = tmp_path / "all" / BOARD
    folder.mkdir(parents=True)
    for name in (bit.name, "spikeloom.hwh", "manifest.json"):
        bit.with_name(name).rename(folder / name)
    monkeypatch.setenv("BOARD", BOARDS[BOARD].pynq_name)
    monkeypatch.setenv("SPIKELOOM_BITSTREAMS", str(tmp_path / "all"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SIMULATE))
    for cell in notebook.cells:
        cell.source = cell.source.replace(", 60)", ", 12)").replace(", 40", ", 6").replace("test(60)", "test(8)")
    nbclient.NotebookClient(notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = "".join(output.get("text", "") for output in shown)
    assert "MHz measured" in texts
    if path.stem == "1-generate":
        assert emulated(PROMPT, 12) in texts and "positions of" in texts
    elif path.stem == "2-spikes":
        assert any("image/svg+xml" in output.get("data", {}) for output in shown) and "neurons" in texts
    else:
        assert "device_tokens_per_s" in texts and "No difference." in texts


def test_pynq_delivers_the_notebooks(tmp_path):
    setup_utils = pytest.importorskip("pynqutils.setup_utils")
    found = [entry for entry in setup_utils.ExtensionsManager("pynq.notebooks").list if entry.name == "spikeloom"]
    if not found:
        pytest.skip("the package is not installed here; make test-boards installs it")
    source = setup_utils.ExtensionsManager.extension_path(found[0].module_name)
    setup_utils.deliver_notebooks("any", source, str(tmp_path), "spikeloom", folder=True)
    assert sorted(path.name for path in (tmp_path / "spikeloom").glob("*.ipynb")) == [path.name for path in NOTEBOOKS]
