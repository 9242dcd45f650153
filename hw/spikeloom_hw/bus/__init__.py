"""AXI and the register file: everything that touches a bus."""
