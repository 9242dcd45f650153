"""The overlay and its driver on a simulated board: pynq's own code between our driver and the gates."""

import asyncio
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pynq", reason="pynq: not installed here; make test-boards has environments with it")

import pynq

from spikeloom.arch.layout import write_image
from spikeloom.arch.manifest import ManifestError
from spikeloom.arch.presets import preset
from spikeloom.arch.registers import MAGIC
from spikeloom.board import golden
from spikeloom.board.__main__ import main
from spikeloom.board.clock import ClockTooFast, ClockWarning
from spikeloom.board.overlay import BitstreamMissing, SpikeloomCore, SpikeloomOverlay
from spikeloom.compiler import compile_model
from spikeloom.driver import pynq_backend
from spikeloom.driver.device import Device
from spikeloom.driver.errors import DeviceGone, ForeignBitstream, SpikeloomError
from spikeloom.driver.recording import Replay
from spikeloom.driver.verify import verify
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

pytestmark = pytest.mark.rtl

TINY = preset("tiny")
#: pynq 4.0 finds no clock in what Vivado writes for a Zynq-7000, and has no images for their boards.
OLD = int(pynq.__version__.split(".")[0]) < 4
FORMS = [("pynq_z2", False), ("kv260", False), ("kv260", True)] + [("pynq_z2", True)] * OLD


@pytest.fixture
def opened(simulated, bitstream):
    """opened(board, full=...) -> (overlay, simulated board), without a model."""
    overlays = []

    def make(board="pynq_z2", *, full=False, **options):
        overlays.append(SpikeloomOverlay(bitstream("tiny", board, full=full), **{"model": None, "check_clock": False} | options))
        return overlays[-1], simulated
    yield make
    for overlay in overlays:
        overlay.close()


def compare(device, seed=1, **options):
    """A random model, compared with the integer model to the last bit."""
    config, tensors = random_model(seed)
    device.load(compile_model(config, tensors, TINY, logit_scale=64.0, **options))
    return verify(device, IntegerModel(config, tensors), [1, 2], 5)


@pytest.mark.parametrize("board, full", FORMS, ids=lambda value: str(value))
def test_gates_behind_pynq_agree_with_the_model(opened, board, full):
    overlay, simulated = opened(board, full=full)
    assert isinstance(overlay.spikeloom_0, SpikeloomCore)
    assert int(overlay.spikeloom_0.register_map.magic) == MAGIC
    for streamed in ("none", "all"):
        report = compare(overlay.spikeloom, streamed=streamed)
        assert report.mismatches == 0 and report.compared > 100, report.first
    assert (simulated.uio.waits > 0) == full, "interrupts are used where there are some"
    assert simulated.flushes and simulated.invalidates


@pytest.mark.parametrize("call", ["flush", "invalidate"])
def test_a_forgotten_call_is_seen(opened, monkeypatch, call):
    overlay, _ = opened()
    monkeypatch.setattr(pynq_backend.PynqBuffer, call, lambda self: None)
    try:
        report = compare(overlay.spikeloom)
    except (SpikeloomError, IndexError, ValueError, OverflowError):
        return
    assert report.mismatches > 0


def test_the_selftest_passes_and_brings_the_model_back(opened, tmp_path):
    overlay, _ = opened()
    golden.write(tmp_path / "selftest.npz", list(golden.cases(TINY))[:2])
    config, tensors = random_model(1)
    (tmp_path / "mine.loom").write_bytes(write_image(compile_model(config, tensors, TINY, logit_scale=64.0)))
    overlay.load(tmp_path / "mine.loom")
    outcome = overlay.selftest()
    assert outcome.passed and len(outcome.operators) >= 8, outcome
    made = [token.id for token in overlay.spikeloom.generate([3], 4, ignore_end=True)]
    assert made == IntegerModel(config, tensors).generate([3], 4)
    with pytest.raises(SpikeloomError, match="No model with a tokenizer"):
        overlay.generate("text")


def test_inside_a_running_loop_as_in_a_notebook(opened):
    overlay, simulated = opened(full=OLD, board="pynq_z2" if OLD else "kv260")

    async def cell():
        return compare(overlay.spikeloom)

    assert asyncio.run(cell()).mismatches == 0
    assert simulated.uio.waits == 0


def test_a_loop_is_made_where_there_is_none_yet(opened):
    overlay, _ = opened(full=True, board="pynq_z2" if OLD else "kv260")
    asyncio.set_event_loop_policy(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop = overlay.spikeloom.transport._loop()
        assert loop is not None and loop is overlay.spikeloom.transport._loop()
    assert compare(overlay.spikeloom).mismatches == 0


# -- what belongs together --------------------------------------------------------------------------------------

def test_another_machine_is_refused(simulated, bitstream):
    path = bitstream("tiny")
    manifest = path.with_name("manifest.json")
    text = manifest.read_text()
    cfg = replace(TINY, resident_words=2048)
    manifest.write_text(text.replace(f"{TINY.fingerprint:#010x}", f"{cfg.fingerprint:#010x}").replace(
        '"resident_words": 1024', '"resident_words": 2048'))
    with pytest.raises(ForeignBitstream, match="another configuration"):
        SpikeloomOverlay(path, model=None, check_clock=False)


@pytest.mark.parametrize("name", ["spikeloom.bit", "spikeloom.hwh", "manifest.json"])
def test_missing_files_are_named(simulated, bitstream, name):
    path = bitstream("tiny")
    path.with_name(name).unlink()
    with pytest.raises(BitstreamMissing, match=f"{name} does not exist"):
        SpikeloomOverlay(path, model=None)


def test_a_description_without_the_core_is_refused(simulated, bitstream):
    path = bitstream("tiny")
    hwh = path.with_suffix(".hwh")
    hwh.write_text(hwh.read_text().replace("spikeloom:user:spikeloom:1.0", "somebody:user:else:1.0"))
    with pytest.raises(BitstreamMissing, match="has 0 cores"):
        SpikeloomOverlay(path, model=None)
    path.with_name("manifest.json").write_text("{}")
    with pytest.raises(ManifestError):
        SpikeloomOverlay(path, model=None)


def test_the_bitstream_of_this_board_is_found(simulated, bitstream, monkeypatch, tmp_path):
    path = bitstream("tiny")
    (tmp_path / "all" / "pynq_z2").mkdir(parents=True)
    for name in (path.name, "spikeloom.hwh", "manifest.json"):
        path.with_name(name).rename(tmp_path / "all" / "pynq_z2" / name)
    monkeypatch.delenv("BOARD", raising=False)
    with pytest.raises(BitstreamMissing, match="BOARD is not set"):
        SpikeloomOverlay(model=None)
    monkeypatch.setenv("BOARD", "Pynq-Z2")
    monkeypatch.setenv("SPIKELOOM_BITSTREAMS", str(tmp_path / "none"))
    with pytest.raises(BitstreamMissing, match="no bitstream of pynq_z2"):
        SpikeloomOverlay(model=None)
    monkeypatch.setenv("SPIKELOOM_BITSTREAMS", str(tmp_path / "all"))
    SpikeloomOverlay(model=None, check_clock=False).close()


# -- clock ------------------------------------------------------------------------------------------------------

def test_the_clock_that_pynq_sets_is_the_clock_that_is_measured(opened):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClockWarning)
        overlay, simulated = opened(check_clock=True)
    assert simulated.mhz == 100.0 and overlay.clock.mhz == pytest.approx(100.0, rel=2e-3)


def test_a_wrong_clock_in_the_description_is_seen(simulated, bitstream):
    with pytest.raises(ClockTooFast, match=r"runs at 12[45]\.\d\d MHz; the bitstream was built for 100 MHz"):
        SpikeloomOverlay(bitstream("tiny", described=replace(TINY, clock_mhz=125.0)), model=None)
    with pytest.warns(ClockWarning, match=r"runs at (50\.0|49\.9)\d MHz"):
        SpikeloomOverlay(bitstream("tiny", described=replace(TINY, clock_mhz=50.0)), model=None).close()


# -- memory and reset -------------------------------------------------------------------------------------------

def test_buffers_out_of_reach_are_refused(opened):
    overlay, _ = opened()
    transport = pynq_backend.PynqTransport(overlay.spikeloom_0.mmio, device=overlay.device, address_width=28)
    with pytest.raises(pynq_backend.OutOfReach, match="0x10000000, the end of what the device can address. Allocate it in the low 2 GB"):
        transport.allocate(4096)
    with pytest.raises(MemoryError, match=r"no .* bytes of contiguous memory left .*cma="):
        overlay.spikeloom.transport.allocate(1 << 32)
    with pytest.raises(ValueError, match="at least one byte"):
        transport.allocate(0)


def test_memory_above_two_gigabytes(monkeypatch, bitstream, simulated):
    from spikeloom_sim.transport import Memory

    simulated._options["memory"] = Memory(base=0x8_0000_0000)
    overlay = SpikeloomOverlay(bitstream("tiny", "kv260"), model=None, check_clock=False)
    assert compare(overlay.spikeloom, streamed="all").mismatches == 0
    assert overlay.spikeloom._buffers["image"].address > 1 << 32
    overlay.close()


def test_buffers_given_back_are_gone_and_their_memory_is_free(opened):
    overlay, simulated = opened()
    transport = overlay.spikeloom.transport
    first = transport.allocate(4096)
    address = first.address
    first.array[:] = 7
    first.free()
    first.free()
    with pytest.raises(DeviceGone, match="given back"):
        first.flush()
    assert transport.allocate(4096).address == address
    transport.write32(0x28, np.uint32(3))
    overlay.close()
    with pytest.raises(DeviceGone, match="closed"):
        transport.read32(0)


def test_a_dead_bus_is_cured_by_loading_the_bitstream_again(opened):
    overlay, simulated = opened()
    device = overlay.spikeloom
    config, tensors = random_model(1)
    image = compile_model(config, tensors, TINY, logit_scale=64.0, streamed="all")
    device.load(image)
    device.registers.write("bus_timeout", 500)
    simulated.rtl.fault("r", 3)
    with pytest.raises(SpikeloomError):
        list(device.generate([1, 2], 3, ignore_end=True))
    simulated.rtl.heal()
    assert simulated.downloads == 1
    device.reset()
    assert simulated.downloads == 2
    device.load(image)
    assert [t.id for t in device.generate([3], 4, ignore_end=True)] == IntegerModel(config, tensors).generate([3], 4)
    bare = pynq_backend.PynqTransport(overlay.spikeloom_0.mmio, device=overlay.device)
    with pytest.raises(DeviceGone, match="cannot reset"):
        bare.reset()


# -- recordings and the command line ----------------------------------------------------------------------------

def test_a_session_on_the_board_is_replayed_without_it(opened, tmp_path):
    path = tmp_path / "session.jsonl"
    overlay, simulated = opened(record=path, check_clock=True)
    result = compare(overlay.spikeloom)
    clock = overlay.clock
    overlay.close()
    simulated.rtl.close()
    from spikeloom.board.clock import measure_clock

    with Device(Replay(path), TINY) as device:
        assert measure_clock(device) == clock
        again = compare(device)
    assert (again.compared, again.mismatches, again.tokens) == (result.compared, 0, result.tokens)


def test_the_command_line(simulated, bitstream, capsys, tmp_path):
    path = bitstream("tiny")
    assert main(["files", "pynq_z2", "--preset", "tiny", "--output", str(tmp_path)]) == 0
    record = str(tmp_path / "session.jsonl")
    assert main(["selftest", "--bitstream", str(path), "--record", record]) == 0
    said = capsys.readouterr().out
    downloads = simulated.downloads
    assert main(["selftest", "--replay", record, "--manifest", str(tmp_path / "manifest.json")]) == 0
    assert capsys.readouterr().out == said.partition("\n")[2] and simulated.downloads == downloads
    assert main(["selftest", "--replay", record, "--manifest", str(tmp_path / "manifest.json"), "--any-clock"]) == 3
    assert "ReplayDiverged" in capsys.readouterr().err
    assert re.search(r"100\.\d\d MHz measured, 100 MHz built for", said) or re.search(r"99\.9\d MHz measured", said)
    assert "ATTEND WTA" in said and "No difference." in said
    assert main(["generate", "--bitstream", str(tmp_path / "none.bit")]) == 3
    assert "BitstreamMissing" in capsys.readouterr().err
    assert main(["bench", "--uio", "spikeloom"]) == 3
    assert "--manifest" in capsys.readouterr().err
