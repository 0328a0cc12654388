"""How checks compile: with few optimisations, since most are compiled for one run."""

QUICK = {"xla_backend_optimization_level": 0}
"""`compiler_options` of `jax.jit`. The programs of checks run for less time than they compile."""

UNFUSED = {**QUICK, "xla_disable_hlo_passes": "fusion"}
"""The same of programs that differentiate, which run slower so.

At this level XLA of jax 0.10 makes a number anew in each fused loop that reads it, to other last
digits, and derivatives ask by an equality which of two was the larger one (`jnp.hypot`).
"""
