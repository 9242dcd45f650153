"""`driver.recording`: a recorded session runs again without its device, and nothing else does."""

import json
import warnings

import pytest

from spikeloom.arch.manifest import write_manifest
from spikeloom.arch.presets import preset
from spikeloom.board.__main__ import main
from spikeloom.compiler import compile_model
from spikeloom.driver.device import Device
from spikeloom.driver.errors import BadProgram, DeviceGone
from spikeloom.driver.recording import BadRecording, Recorder, Replay, ReplayDiverged
from spikeloom.driver.verify import verify
from spikeloom.model.emulator import Emulator
from spikeloom.model.integer_model import IntegerModel
from spikeloom.model.random_model import random_model

TINY = preset("tiny")
CONFIG, TENSORS = random_model(1)
IMAGE = compile_model(CONFIG, TENSORS, TINY, logit_scale=64.0)


def session(transport, prompt=(1, 2)):
    """Load, verify with a trace, sample, and read the counters."""
    with Device(transport, TINY) as device:
        device.load(IMAGE)
        report = verify(device, IntegerModel(CONFIG, TENSORS), list(prompt), 6)
        sampled = [token.id for token in device.generate([3], 4, temperature=0.9, seed=5, ignore_end=True)]
        return report.compared, report.mismatches, sampled, device.counters()


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "session.jsonl"
    return path, session(Recorder(Emulator(TINY), path, {"board": "none"}))


def test_a_session_runs_again(recorded):
    path, result = recorded
    replay = Replay(path)
    assert replay.about == {"board": "none"}
    assert session(replay) == result and result[1] == 0
    with pytest.raises(DeviceGone):
        replay.read32(0)


def test_another_session_diverges(recorded):
    path, _ = recorded
    with pytest.raises(ReplayDiverged, match=r"Call \d+ of session.jsonl: write\(.*\) was recorded, but now write"):
        session(Replay(path), prompt=(1, 3))


def test_a_longer_session_diverges(recorded):
    path, _ = recorded
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:len(lines) // 2]) + "\n")
    with pytest.raises(ReplayDiverged, match="the recording ends"):
        session(Replay(path))


@pytest.mark.parametrize("cut", [1, 3, None])
def test_a_line_that_a_crash_cut_is_left_out(recorded, cut):
    """The calls before it run as they did; said once. A line that lacks its end alone is whole."""
    path, _ = recorded
    lines = path.read_text().splitlines()[:20]
    whole = lines[:-1] if cut else lines
    path.write_text("\n".join([*lines[:-1], lines[-1][:cut]]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        replay = Replay(path)
    for line in whole[1:]:
        name, arguments, answer = json.loads(line)
        assert replay.call(name, arguments) == answer
    assert [str(warning.message) for warning in said] == ([
        f"The last line of {path} was cut, as when a computer crashes while it records; 18 calls are kept."] if cut else [])
    with pytest.raises(ReplayDiverged, match="the recording ends"):
        replay.now()


def test_other_lines_that_were_cut_are_refused(recorded):
    path, _ = recorded
    head, *lines = path.read_text().splitlines(keepends=True)
    for text in (head[:9], head + lines[0][:5] + "\n", head + lines[0][:5] + "\n" + lines[1]):
        path.write_text(text)
        with pytest.raises(BadRecording, match="not a recording"):
            Replay(path)


def test_a_shorter_session_diverges(recorded):
    path, _ = recorded
    with pytest.raises(ReplayDiverged, match=r"was recorded, but now close\(\)"):
        with Device(Replay(path), TINY):
            pass


def test_another_image_diverges(recorded):
    path, _ = recorded
    device = Device(Replay(path), TINY)
    with pytest.raises(ReplayDiverged):
        device.load(compile_model(*random_model(2), TINY, logit_scale=64.0))


def test_a_different_answer_of_the_device_is_seen(recorded):
    """The replayed session compares with the integer model: a token that is altered in the file is a mismatch, or diverges."""
    path, _ = recorded
    head, *calls = (json.loads(line) for line in path.read_text().splitlines())
    written = [call for call in calls if call[0] == "invalidate" and call[2]]
    written[0][2] = written[-1][2]
    path.write_text("".join(json.dumps(line) + "\n" for line in (head, *calls)))
    try:
        assert session(Replay(path))[1] > 0
    except (ReplayDiverged, BadRecording):
        pass


def test_errors_are_replayed_as_they_were(tmp_path):
    class Broken(Emulator):
        def wait_interrupt(self, deadline_s, cycles=None):
            raise BadProgram("It broke.", state={"command": 7})

    path = tmp_path / "broken.jsonl"
    for transport in (lambda: Recorder(Broken(TINY), path), lambda: Replay(path)):
        with pytest.raises(BadProgram, match="It broke") as caught, transport() as opened:
            opened.wait_interrupt(1.0)
        assert caught.value.state == {"command": 7}


def test_time_is_recorded(tmp_path):
    path = tmp_path / "time.jsonl"
    with Recorder(Emulator(TINY), path) as recorder:
        recorder.sleep(0.0)
        times = [recorder.now(), recorder.now()]
    with Replay(path) as replay:
        replay.sleep(0.0)
        assert [replay.now(), replay.now()] == times and times[1] >= times[0]


@pytest.mark.parametrize("text, message", [("", "not a recording"), ("{}\n", "not a recording"), ("hello\n", "not a recording"),
                                           ('{"recording": 9}\n', "recording version 9"), ('{"recording": 1}\n5\n', "line 2 is no call"),
                                           ('{"recording": 1}\n["read", [0]]\n', "line 2 is no call"),
                                           ('{"recording": 1}\n["now", [], 1]\n["read", [0], null, 5]\n', "line 3 is no call")])
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / "x").write_text(text)
    with pytest.raises(BadRecording, match=message):
        Replay(tmp_path / "x")
    with pytest.raises(BadRecording):
        Replay(tmp_path / "missing")


def test_damaged_contents_are_refused(tmp_path):
    path = tmp_path / "damaged.jsonl"
    path.write_text('{"recording": 1}\n["allocate", [16], 4096]\n["invalidate", [0], "AAAA"]\n')
    buffer = Replay(path).allocate(16)
    with pytest.raises(BadRecording, match="damaged in the contents of buffer 0"):
        buffer.invalidate()


def test_files_that_cannot_be_written_are_said_in_words(recorded, tmp_path, capsys):
    write_manifest(TINY, manifest := tmp_path / "manifest.json")
    assert main(["selftest", "--replay", str(recorded[0]), "--manifest", str(manifest), "--record", str(tmp_path / "none" / "x")]) == 3
    assert "FileNotFoundError" in capsys.readouterr().err
    assert main(["files", "pynq_z2", "--preset", "tiny", "--output", "/dev/null"]) == 3
    assert "FileExistsError" in capsys.readouterr().err
