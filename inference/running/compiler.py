"""What the compiler is asked of programs that the library itself compiles, and runs on the host.

XLA of jax 0.10 emits fused loops on a CPU in a way that takes twice as long to compile as its older
one, for code that is no faster: a sweep of a Tucker model 33 CPU seconds against 14. Newer releases
have no such choice, and an option that they do not know is an error, so it is made for this one.
Programs that a user compiles have the user's options: an inner program may have none.
"""

from __future__ import annotations

import jax

OPTIONS: dict[str, bool | str] | None = (
    {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__[:2] == (0, 10) else None
)
"""For `jax.jit(..., compiler_options=OPTIONS)`, of what is never called inside another program."""
