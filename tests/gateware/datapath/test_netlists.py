"""Netlists of neurons, attention, sampling and control: nothing that multiplies, divides or raises, and nothing that warns."""

import re
import warnings

import pytest
from amaranth.back import rtlil

from spikeloom.arch.presets import preset
from spikeloom_hw.control.command_check import CommandCheck
from spikeloom_hw.control.dumper import Dumper
from spikeloom_hw.datapath.attention_unit import AttentionUnit
from spikeloom_hw.datapath.neuron_unit import NeuronUnit
from spikeloom_hw.datapath.pick_unit import PickUnit
from spikeloom_hw.storage.membrane_memory import MembraneMemory
from spikeloom_hw.storage.residual_store import ResidualStore
from spikeloom_hw.storage.spike_buffers import SpikeBuffers


@pytest.mark.parametrize("unit", [AttentionUnit, PickUnit, NeuronUnit, CommandCheck, Dumper, MembraneMemory, ResidualStore, SpikeBuffers])
@pytest.mark.parametrize("name", ["tiny", "sim"])
def test_has_no_multiplier(unit, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = rtlil.convert(unit(cfg=preset(name)), emit_src=False)
    assert not re.findall(r"\$(?:mul|div|mod|divfloor|modfloor|pow|macc)\b", text)
    assert "width 0" not in text
