"""What variational inference costs: `python -m benchmarks.vi`."""
