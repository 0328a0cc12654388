"""A guard against a compiler that gives wrong numbers.

On CPUs, jaxlib 0.12.0 compiles some fused float32 programs wrongly: the log weights of a
particle filter on 10 000 particles came out as -3073 instead of -7.8, without a word. The
numbers are right when this kind of fusion is off.
"""

import os
from importlib.metadata import version

_WRONG = ("0.12.0",)  # releases, with their post releases
_OPTION = "--xla_cpu_experimental_ynn_fusion_type"


def guard() -> None:
    """Turn the fusion off, unless `XLA_FLAGS` says something about it already.

    It works until the first computation of the process, which reads the flags.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    found = version("jaxlib")
    wrong = any(found == v or found.startswith(v + ".") for v in _WRONG)
    if wrong and _OPTION not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_OPTION}=".strip()
