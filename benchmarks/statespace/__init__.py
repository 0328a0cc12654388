"""What exact inference costs: `python -m benchmarks.statespace`."""
