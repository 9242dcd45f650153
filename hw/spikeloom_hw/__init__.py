"""Gateware of Spikeloom, in Amaranth."""
