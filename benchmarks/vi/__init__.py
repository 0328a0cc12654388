"""What variational inference costs against hand-written JAX and peers: `python -m benchmarks.vi`."""
