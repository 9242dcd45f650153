"""`board.hwh`: pynq's own parsers read both forms, and what they read is what the contract says."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from spikeloom.arch.presets import PRESETS, preset
from spikeloom.arch.registers import register_map
from spikeloom.board.boards import BOARDS, CELL, VLNV, board
from spikeloom.board.hwh import NoDivisors, describe, divisors, write_hwh

FORMS = [pytest.param(name, full, id=f"{name}-{'full' if full else 'plain'}") for name in BOARDS for full in (False, True)]


@pytest.fixture
def parse(tmp_path):
    """parse(board, full) -> what pynq knows of an overlay."""
    pytest.importorskip("pynq", reason="pynq: not installed here; make test-boards has environments with it")
    from spikeloom_sim.pynq_board import Metadata, RuntimeMetadataParser

    def run(name, full):
        path = tmp_path / "design.hwh"
        write_hwh(path, board(name), preset(BOARDS[name].preset), full=full)
        return RuntimeMetadataParser(Metadata(input=path)), path
    return run


@pytest.mark.parametrize("name, full", FORMS)
def test_pynq_finds_the_core(parse, name, full):
    parser, _ = parse(name, full)
    core = parser.ip_dict[CELL]
    assert (core["type"], core["phys_addr"], core["addr_range"]) == (VLNV, board(name).base_address, 0x10000)
    registers = register_map(None)
    assert set(core["registers"]) == set(registers)
    for register in registers.values():
        found = core["registers"][register.name]
        assert found["address_offset"] == registers.address(register.name)
        for field in register.fields:
            bits = found["fields"][field.name]
            assert (bits["bit_offset"], bits["bit_width"]) == register.position_of(field.name)


@pytest.mark.parametrize("name, full", FORMS)
def test_pynq_finds_the_interrupt_where_there_is_a_controller(parse, name, full):
    parser, _ = parse(name, full)
    raw = 61 if board(name).zynq7 else 121
    if full:
        assert parser.ip_dict[CELL]["interrupts"]["irq"] == {"controller": "axi_intc_0", "index": 0, "fullpath": f"{CELL}/irq"}
        assert parser.interrupt_controllers["axi_intc_0"]["raw_irq"] == raw
    else:
        assert parser.ip_dict[CELL]["interrupts"] == {} == parser.interrupt_controllers


@pytest.mark.parametrize("name, full", FORMS)
def test_pynq_sets_the_clock_of_the_manifest(parse, name, full):
    parser, _ = parse(name, full)
    first, *others = (parser.clock_dict[number] for number in range(4))
    goal = PRESETS[BOARDS[name].preset].clock_mhz
    assert first["enable"] == 1 and not any(clock["enable"] for clock in others)
    assert board(name).pll_mhz / first["divisor0"] / first["divisor1"] == pytest.approx(goal, rel=1e-3)
    if first.get("frequency") is not None:
        assert first["frequency"] == pytest.approx(goal, rel=1e-3)
    else:
        assert "frequency" not in first or board(name).zynq7 and full  # pynq 4.0 does not serve Zynq-7000 boards


@pytest.mark.parametrize("name, full", FORMS)
def test_the_older_parser_agrees(parse, name, full):
    parser, path = parse(name, full)
    from pynq.pl_server import hwh_parser

    old = (hwh_parser._HWHZynq if board(name).zynq7 else hwh_parser._HWHUltrascale)(str(path))
    for key in ("type", "phys_addr", "addr_range"):
        assert old.ip_dict[CELL][key] == parser.ip_dict[CELL][key]
    assert old.ip_dict[CELL]["interrupts"] == parser.ip_dict[CELL]["interrupts"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_net_has_one_driver_and_every_pin_of_the_core_is_on_one(name):
    root = describe(board(name), preset(BOARDS[name].preset), full=True)
    nets, loose = {}, []
    for module in root.iter("MODULE"):
        for port in module.iter("PORT"):
            if port.get("SIGNAME") is None:
                loose.append((module.get("INSTANCE"), port.get("NAME")))
            else:
                nets.setdefault(port.get("SIGNAME"), []).append(port.get("DIR"))
    assert loose == []
    assert all(sorted(pins)[-1] == "O" and pins.count("O") == 1 and len(pins) > 1 for pins in nets.values()), nets


def test_the_full_form_begins_with_a_byte_order_mark(tmp_path):
    for full, head in ((True, b"\xef\xbb\xbf<?xml"), (False, b"<?xml")):
        write_hwh(tmp_path / "a.hwh", board("pynq_z2"), preset("pynq_z2"), full=full)
        assert (tmp_path / "a.hwh").read_bytes().startswith(head)
        ElementTree.parse(tmp_path / "a.hwh")


@pytest.mark.parametrize("pll, mhz, product", [(1000, 125, 8), (1000, 100, 10), (1499.985, 250, 6), (1499.985, 100, 15), (1000, 1, 1000)])
def test_divisors(pll, mhz, product):
    first, second = divisors(pll, mhz)
    assert first * second == product and max(first, second) <= 63


def test_a_clock_that_cannot_be_made_is_refused():
    with pytest.raises(NoDivisors, match="nearest is 166.67 MHz"):
        divisors(1000, 160)
    with pytest.raises(NoDivisors):
        describe(board("pynq_z2"), replace(preset("pynq_z2"), clock_mhz=160.0))


def test_boards_by_name():
    assert board("Pynq-Z2") is board("pynq_z2") is board("PYNQ-Z2")
    with pytest.raises(ValueError, match="no board 'zedboard'; there are: pynq_z1, pynq_z2, kv260"):
        board("zedboard")
