"""Named machines: `tiny` and `twin` (unit tests; one and two ports), `sim` (Verilator on a laptop), `d288` and `d768` (streamed rows),
`pynq_z2`, `kv260`, `ulx3s`; and shapes of networks that figures are given for."""

from collections.abc import Iterable

from .config import AcceleratorConfig, FitError, ModelConfig, check_fit, require

PRESETS = {preset.name: preset for preset in (
    AcceleratorConfig(name="tiny", rows=1, cols=8, lanes=4, segment=4, max_width=16, max_neurons=64, max_vocabulary=64,
                      kv_positions=128, max_context=32, k_max=4, resident_words=1024, parameter_words=256,
                      program_words=256, membrane_words=256, residual_slots=64,
                      score_banks=2, board="unit tests"),
    AcceleratorConfig(name="sim", rows=1, events=2, segment=16, board="Verilator"),
    AcceleratorConfig(name="twin", rows=1, cols=16, lanes=4, segment=4, max_width=16, max_neurons=64, max_vocabulary=64,
                      kv_positions=128, max_context=32, k_max=4, resident_words=1024, parameter_words=256,
                      program_words=256, membrane_words=256, residual_slots=64,
                      score_banks=2, ports=2, board="unit tests"),
    # Streamed rows, over two AXI3 ports as a PYNQ-Z2 has them; words on chip for a layer, which blocks of a prompt share half by half.
    AcceleratorConfig(name="d288", events=2, segment=32, max_width=320, max_neurons=1152, max_vocabulary=4096, kv_positions=1536,
                      resident_words=8320, parameter_words=1664, membrane_words=16, residual_slots=64, program_words=256, ports=2,
                      axi3=True, address_width=32, clock_mhz=125.0, board="Verilator"),
    # Half the chip: `sim` with one event per cycle, a quarter of the lanes and the winners of the released models. Rows on chip are those
    # of stories-260k but its embedding, of which a token reads one: a power of two of words needs no choice between block RAMs.
    AcceleratorConfig(name="pynq_z2", rows=1, lanes=4, segment=16, k_max=4, score_banks=2, kv_positions=1280, resident_words=4096,
                      parameter_words=2048, ports=2, axi3=True, address_width=32, membrane_words=1024, residual_slots=128,
                      clock_mhz=125.0, board="PYNQ-Z1, PYNQ-Z2 (XC7Z020)"),
    # What 125 M parameters take at 256 columns with every table on chip, over four ports as a KV260 has them; its chip does not hold it.
    AcceleratorConfig(name="d768", rows=1, cols=256, lanes=32, segment=32, max_width=768, max_neurons=3072,
                      max_vocabulary=50304, kv_positions=6144, max_context=512, resident_words=2048,
                      parameter_words=5044, program_words=512, membrane_words=1024, residual_slots=64, ports=4, data_width=128,
                      clock_mhz=250.0, board="Verilator"),
    # `sim` with twice the columns and lanes, one event per cycle and the winners of the released models; rows on chip, a megabyte, lie in
    # half of the UltraRAM.
    AcceleratorConfig(name="kv260", rows=1, cols=128, lanes=32, segment=16, max_width=128, max_neurons=1024, max_vocabulary=4096,
                      kv_positions=1280, k_max=4, resident_words=8192, parameter_words=512, membrane_words=256,
                      data_width=128, clock_mhz=250.0, board="KV260 (XCK26)"),
    # All rows of stories-260k but its embedding, of which a token reads one. Narrow, so that open tools map, place and route it in
    # minutes; its rows fill the chip's block RAM all the same.
    AcceleratorConfig(name="ulx3s", rows=1, cols=16, lanes=8, segment=16, max_vocabulary=512, kv_positions=1280, k_max=4, score_banks=2,
                      resident_words=16384, parameter_words=512, membrane_words=16, residual_slots=1, program_words=128,
                      address_width=32, clock_mhz=20.0, board="ULX3S 85F (ECP5-85F)"),
)}


#: Presets that are tried for a model where none is named, in order.
TRIED = ("sim", "kv260")

_LEVELS = {f"level_{kind}": 4 for kind in ("in", "v", "attn", "mid", "hidden", "final")}
SHAPES = {shape.name: shape for shape in (
    ModelConfig(name="d288", vocabulary=4096, context=256, width=288, layers=6, heads=9, hidden=1152, weight_bits=4, **_LEVELS),
    ModelConfig(name="d768", vocabulary=50000, context=512, width=768, layers=12, heads=24, hidden=3072, weight_bits=4, **_LEVELS),
)}


def preset(name: str) -> AcceleratorConfig:
    """The machine of that name.

    Raises
    ------
    ValueError
        Names the presets that exist.
    """
    require(name in PRESETS, f"There is no preset {name!r}; there are: {', '.join(PRESETS)}.", ValueError)
    return PRESETS[name]


def first_that_holds(model: ModelConfig, machines: Iterable[AcceleratorConfig]) -> AcceleratorConfig | None:
    """The first of these machines that the model fits; None where it fits none."""
    for machine in machines:
        try:
            check_fit(model, machine)
        except FitError:
            continue
        return machine
    return None
