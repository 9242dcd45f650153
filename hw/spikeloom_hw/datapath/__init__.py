"""What changes values: sums, neurons, attention."""
