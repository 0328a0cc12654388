"""How checks compile: with few optimisations, since most are compiled for one run."""

QUICK = {"xla_backend_optimization_level": 0}
"""`compiler_options` of `jax.jit`. The programs of checks run for less time than they compile."""
