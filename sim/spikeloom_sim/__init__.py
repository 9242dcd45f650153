"""Simulation of the gateware: helpers for `amaranth.sim`, and the Verilated device behind the driver's transport."""
