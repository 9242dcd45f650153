"""The register map: places, widths, documents."""

from spikeloom.arch.presets import PRESETS
from spikeloom.arch.registers import COUNTERS, WINDOW_BYTES, Access, register_map

MAP = register_map(PRESETS["sim"])


def test_registers_lie_one_after_another_within_the_window():
    assert [MAP.address(name) for name in MAP] == [4 * i for i in range(len(MAP))]
    assert 4 * len(MAP) <= WINDOW_BYTES
    assert list(MAP)[:3] == ["magic", "version", "fingerprint"]


def test_fields_fit_and_have_unique_names():
    for register in MAP.values():
        assert sum(f.width for f in register.fields) <= 32
        assert len({f.name for f in register.fields}) == len(register.fields)
        for f in register.fields:
            lsb, width = register.position_of(f.name)
            assert width == f.width and lsb + width <= 32 and f.reset < 1 << f.width


def test_the_map_is_the_same_for_all_machines():
    assert all(register_map(cfg) == MAP for cfg in PRESETS.values())


def test_counters_have_two_read_only_words_each():
    for name in COUNTERS:
        for half in ("lo", "hi"):
            assert MAP[f"{name}_{half}"].fields[0].access is Access.RO


def test_the_document_has_a_line_per_field():
    assert MAP.markdown().count("\n") == 2 + sum(len(r.fields) for r in MAP.values())
