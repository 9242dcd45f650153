"""Delays of paths over a netlist that was written by hand."""

import json

import pytest

from spikeloom_hw.boards import long_paths
from spikeloom_hw.boards.long_paths import WIRE, read, report


def cell(kind, outputs=(), **connections):
    connections = {port: bits if isinstance(bits, list) else [bits] for port, bits in connections.items()}
    ways = {port: "output" if port in outputs else "input" for port in connections}
    return {"type": kind, "connections": connections, "port_directions": ways}


def netlist(cells, **names):
    modules = {"small": {"cells": {}, "netnames": {}},
               "top": {"cells": cells, "netnames": {name: {"bits": [bit]} for name, bit in names.items()}}}
    return read(json.dumps({"modules": modules}))


def register(d, q):
    return cell("TRELLIS_FF", ("Q",), CLK=1, DI=d, CE="1", Q=q)


def test_a_path_is_clock_cells_and_wires():
    it = netlist({"a": register(9, 2), "lut": cell("LUT4", ("Z",), A=2, B="0", C="0", D="0", Z=3), "b": register(3, 9)})
    end = it.ends()[0]
    assert (end.cell, end.port) == ("b", "DI")
    assert end.delay_ns == pytest.approx(0.52 + WIRE + 0.24 + WIRE)
    assert it.path(end.net) == [2, 3]


def test_fan_out_makes_a_wire_slower():
    many = {f"r{n}": register(2, 10 + n) for n in range(64)}
    few, much = netlist({"a": register(9, 2), "r": register(2, 10)}), netlist({"a": register(9, 2), **many})
    assert few.wire(2) == pytest.approx(WIRE)
    assert much.wire(2) > few.wire(2) + 1


def test_a_carry_chain_has_no_wires_inside():
    chain = {"a": register(99, 2)}
    for n in range(500):  # far beyond what recursion would bear
        carry = 100 + n - 1 if n else "0"
        chain[f"c{n}"] = cell("CCU2C", ("S0", "S1", "COUT"), A0="0" if n else 2, CIN=carry, S0=1000 + n, S1=2000 + n, COUT=100 + n)
    chain["b"] = register(1499, 99)
    it = netlist(chain)
    assert it.ends()[0].delay_ns == pytest.approx(0.52 + it.wire(2) + 0.45 + 498 * 0.07 + 0.44 + it.wire(1499))


def test_block_ram_is_slow_and_ends_a_path():
    it = netlist({"m": cell("DP16KD", ("DOA0",), CLKA=1, ADA0=4, DOA0=2), "lut": cell("LUT4", ("Z",), A=2, Z=4)})
    ends = it.ends()
    assert [(end.port, end.delay_ns) for end in ends] == [("ADA0", pytest.approx(5.6 + WIRE + 0.24 + WIRE))]


def test_a_loop_is_refused_by_name():
    cells = {"x": cell("LUT4", ("Z",), A=3, Z=2), "y": cell("LUT4", ("Z",), A=2, Z=3), "b": register(3, 9)}
    with pytest.raises(ValueError, match="'round.*' depends on itself"):
        netlist(cells, round=3, trip=2).ends()


def test_the_report_groups_ends_by_registers():
    cells = {"a": register(9, 2), **{f"r{n}": register(2, 10 + n) for n in range(3)}}
    lines = report(netlist(cells, **{"core.core.start": 2}, **{f"core.core.unit.held{n}": 10 + n for n in range(3)}), lines=5)
    assert lines[0].startswith("3 ends; by whole ns: 1: 3")
    assert lines[1].endswith("3 ends: start[#] -> unit.held#[#].DI")


def test_the_command_says_what_to_run_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        long_paths.main([str(tmp_path / "none.json")])
    assert "make route" in capsys.readouterr().err
