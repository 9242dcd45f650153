"""`spikeloom_hw.export`: text as Amaranth writes it, less the zeros of memories; netlists without multipliers."""

import os
import re
import subprocess

import pytest
from amaranth.back import rtlil, verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.presets import preset
from spikeloom_hw.control.checksum import Checksum
from spikeloom_hw.export import _flat, to_verilog, verilog_file, without_blank_memories
from spikeloom_hw.shell import Shell
from spikeloom_hw.storage.window_memory import WindowMemory
from spikeloom_hw.top import Top
from spikeloom_sim import verilator

FORBIDDEN = re.compile(r"^  cell \$(mul|div|mod|divfloor|modfloor|pow|macc\w*|alu_mul) ", re.MULTILINE)


def netlist(component) -> str:
    """RTLIL before technology mapping."""
    return rtlil.convert(component, name="top", ports={name: (value, None) for name, _, value in _flat(component)}, emit_src=False)


class Multiplies(wiring.Component):
    """A seeded fault: the product of two signals."""

    a: In(8)
    b: In(8)
    o: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self.a * self.b)
        return m


@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_the_whole_core_holds_no_multiplier(name):
    text = netlist(Shell(Top(preset(name))))
    assert text.count("  cell ") > 1000
    assert not FORBIDDEN.findall(text)


def test_a_seeded_multiplier_is_found():
    assert FORBIDDEN.findall(netlist(Multiplies())) == ["mul"]


def test_a_variable_word_select_is_found():
    """Amaranth multiplies the index of a `word_select`: the check must see that too."""
    class Selects(wiring.Component):
        a: In(24)
        i: In(2)
        o: Out(6)

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.o.eq(self.a.word_select(self.i, 6))
            return m
    assert FORBIDDEN.findall(netlist(Selects())) == ["mul"]


def test_same_text_as_amaranth_where_no_memory_is_blank():
    def ports(component):
        return {name: (value, None) for name, _, value in _flat(component)}
    ours = to_verilog(Shell(Checksum(cfg=preset("tiny"))), "it")
    theirs = Shell(Checksum(cfg=preset("tiny")))
    assert ours == verilog.convert(theirs, name="it", ports=ports(theirs), emit_src=False, strip_internal_attrs=True)


def test_blank_memories_lose_their_zeros_only():
    text = netlist(Shell(WindowMemory(depth=16, part_width=8)))
    assert "$meminit_v2" in text and "$meminit_v2" not in without_blank_memories(text)
    marked = text.replace("connect \\DATA 128'" + "0" * 128, "connect \\DATA 128'" + "0" * 127 + "1")
    assert marked != text and without_blank_memories(marked) == marked


@pytest.mark.rtl
def test_users_verilog_lints_clean(tmp_path):
    """Verilator's default lint, warnings as errors, on what `spikeloom verilog` writes."""
    text = verilog_file(Shell(Top(preset("tiny"))), "spikeloom_tiny", about="Machine tiny")
    path = tmp_path / "spikeloom_tiny.v"
    path.write_text(text)
    tools = verilator.find()
    lint = [str(tools.executable), "--lint-only", "--top-module", "spikeloom_tiny", str(path)]
    done = subprocess.run(lint, env={**os.environ, **tools.environment()}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "%Warning" not in done.stderr, done.stderr[-3000:]
    path.write_text(text.replace("endmodule", "  reg kept, some; always @* if (some) kept = 1'b1;\nendmodule", 1))
    done = subprocess.run(lint, env={**os.environ, **tools.environment()}, capture_output=True, text=True, timeout=300)
    assert "%Warning-LATCH" in done.stderr and done.returncode
