"""Spikeloom: spiking transformer language models that write text on an FPGA."""

__version__ = "0.1.0"
