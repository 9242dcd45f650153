"""Writes docs/commands.md from `spikeloom.arch`: opcodes, fields, code lists, image and record formats.

    python tools/contract_pages.py [--check]
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "sw"))

from spikeloom.arch import commands, config, layout, registers  # noqa: E402

PAGE = ROOT / "docs" / "commands.md"
_MEMBER = re.compile(r"^    (\w+) = (\d+)(?:\s+#: (.*))?$", re.MULTILINE)


def members(enum) -> list[tuple[str, int, str]]:
    """(name, code, comment) of an enumeration, comments from its source."""
    found = {name: note or "" for name, _, note in _MEMBER.findall(inspect.getsource(enum))}
    return [(member.name, int(member), found.get(member.name, "")) for member in enum]


def table(head: tuple[str, ...], rows) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def code_list(title: str, enum) -> str:
    """One enumeration under a heading, with the first sentence of its docstring."""
    about = inspect.getdoc(enum).splitlines()[0]
    return f"### {title}\n\n{about}\n\n" + table(("code", "name", "meaning"), [(c, n, t) for n, c, t in members(enum)])


def field_rows(fields) -> list[tuple]:
    """Bits, name and meaning of command fields."""
    return [(f"{f.lsb + f.width - 1}:{f.lsb}" if f.width > 1 else f.lsb, f"`{f.name}`", f.doc) for f in fields]


def page() -> str:
    """The whole document."""
    bodies = {"LINEAR, EMBED and FIRE": commands.LINEAR, "ATTEND": commands.ATTEND, "LOAD": commands.LOAD, "DUMP": commands.DUMP}
    sinks = "; ".join(f"{opcode.name}: {', '.join(sink.name for sink in allowed)}" for opcode, allowed in commands.SINKS.items())
    parts = [
        "# Commands and formats\n\nMade by `tools/contract_pages.py` from `spikeloom.arch`; a test keeps it up to date.\n",
        f"A program is a list of {commands.COMMAND_BITS}-bit commands ({commands.COMMAND_WORDS} words of 32 bits, least significant "
        "first). `entries.boot` names the first command of the boot section, `entries.token` that of the token section (or of an "
        "encoder's sweeps), `prefill.entry` that of the sweeps over blocks of a prompt; HALT ends a section.\n",
        "## Opcodes\n\n" + table(("code", "name", "meaning"), [(c, n, t) for n, c, t in members(commands.Opcode)]),
        "## Fields of every command\n\n" + table(("bits", "field", "meaning"), field_rows(commands.COMMON)),
        *(f"## Further fields of {title}\n\n" + table(("bits", "field", "meaning"), field_rows(fields))
          for title, fields in bodies.items()),
        "## Codes\n\n" + f"Sinks allowed: {sinks}.\n",
        *(code_list(title, enum) for title, enum in (
            ("Sink", commands.Sink), ("Neuron", commands.Neuron), ("Attention", commands.Attention), ("Order", commands.Order),
            ("Memory", commands.Memory), ("Buffer", commands.Buffer), ("Mode", registers.Mode), ("State", registers.State),
            ("Reason", registers.Reason), ("ErrorCode", registers.ErrorCode))),
        "## Numbers\n\n" + table(("quantity", "value"), [
            ("fraction bits of a threshold, and of a membrane", config.THRESHOLD_FRACTION),
            ("bits of a membrane, signed", config.MEMBRANE_WIDTH),
            ("bits of the residual stream, signed, saturating", config.RESIDUAL_WIDTH),
            ("most column tiles of a block", config.MAX_TILES), ("recency shift that means none", config.RECENCY_OFF),
            ("leak shift that means none", config.LEAK_OFF), ("entries of the noise table", config.NOISE_ENTRIES),
            ("bits of a noise entry, signed", config.NOISE_WIDTH),
            ("weight bits by code", ", ".join(f"{i}: {bits}" for i, bits in enumerate(config.WEIGHT_BITS)))]),
        "## Image (`.loom`)\n\n" + (
            f"Header: magic `{layout.IMAGE_MAGIC.decode()}`, version {layout.IMAGE_VERSION}, fingerprint of the machine, number of "
            "sections, bytes of header and table, CRC32 of the table; then one entry per section: name (16 bytes), offset, bytes, "
            f"CRC32. Sections begin at multiples of {layout.SECTION_ALIGN} bytes; offsets in commands count from the first byte of the "
            "file, which is placed in memory as it is.\n\n")
        + inspect.getdoc(layout.Image) + "\n\n"
        + f"Weight rows: {inspect.getdoc(layout.pack_rows).splitlines()[0]}\n\n"
        + f"Parameters: {inspect.getdoc(layout.pack_parameters).splitlines()[0]}\n",
        "## Records\n\n" + table(("record", "fields"), [
            ("token ring", ", ".join(f"{name} {kind}" for name, kind in layout.RING_DTYPE.descr)),
            ("trace", ", ".join(f"{name} {kind}" for name, kind in layout.TRACE_DTYPE.descr))]),
    ]
    return "\n".join(parts)


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
