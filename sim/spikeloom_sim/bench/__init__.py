"""Every figure of speed, bytes, clock and area, made by `spikeloom bench` and kept in `results/bench.json`."""
