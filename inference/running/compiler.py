"""What the compiler is asked of programs that the library itself compiles, and runs on the host.

XLA of jax 0.10 has a second way to emit fused loops on a CPU, the default, which takes up to twice
as long to compile: a sweep of a Tucker model 33 CPU seconds against 14. The code is faster or
slower by a tenth, from program to program. Newer releases have no such choice, and an option that
they do not know is an error, so it is made for this one. Programs that a user compiles have the
user's options: one inside of another may have none.
"""

from __future__ import annotations

import jax

OPTIONS: dict[str, bool | str] = (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__[:2] == (0, 10) else {}
)
"""For `jax.jit(..., compiler_options=OPTIONS)`, of what is never called inside another program."""

QUICK: dict[str, bool | str | int] = {**OPTIONS, "xla_backend_optimization_level": 0}
"""The same with few optimisations, of programs that run for less time than they compile."""
