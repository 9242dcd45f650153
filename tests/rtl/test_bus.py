"""The bus room in Verilog under cocotb, with bus models by other authors."""

import pytest

pytest.importorskip("cocotb")
pytest.importorskip("cocotbext.axi")

from spikeloom_sim.benches.bus_design import BusDesign
from spikeloom_sim.cocotb_run import run_bench

pytestmark = [pytest.mark.rtl, pytest.mark.slow]


@pytest.mark.parametrize("data_width, axi3", [(64, False), pytest.param(128, True, marks=pytest.mark.builds)])
def test_bus(data_width, axi3, seed, tmp_path):
    assert run_bench(BusDesign(data_width=data_width, axi3=axi3), "bus_design", "spikeloom_sim.benches.bus_bench",
                     work=tmp_path, seed=seed) == 17
