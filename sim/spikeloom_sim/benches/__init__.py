"""Designs made for verification, and the cocotb benches that run on them."""
