"""The whole core in Verilog under cocotb, with the shipped driver and bus models by other authors."""

import pytest

pytest.importorskip("cocotb")
pytest.importorskip("cocotbext.axi")

from spikeloom.arch.presets import preset
from spikeloom_hw.top import Top
from spikeloom_sim.cocotb_run import run_bench

pytestmark = [pytest.mark.rtl, pytest.mark.slow]


@pytest.mark.parametrize("machine", ["tiny", pytest.param("twin", marks=pytest.mark.builds)])
def test_top(machine, seed, tmp_path):
    assert run_bench(Top(preset(machine)), f"spikeloom_{machine}", "spikeloom_sim.benches.top_bench", work=tmp_path, seed=seed,
                     variables={"SPIKELOOM_MACHINE": machine}) == 14
