"""What Gaussian series cost: `python -m benchmarks.statespace`."""
