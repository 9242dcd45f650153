"""What the network computes: the float model (torch), its integer twin and the emulated device (numpy alone)."""
