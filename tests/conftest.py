"""Tests run in 64 bits, and compile each program once per machine, not once per run."""

import gc
import itertools
import os
import time
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# JAX keeps what it has traced, and Python would look through all of it for garbage again and
# again: a fifth of the time of a file of tests, and more of the whole suite
gc.set_threshold(200_000, 20, 100)

MOST_MAPPINGS = 30_000
"""Of memory, by a process: each compiled program takes some, and Linux allows 65,530."""


UNTIL = float(os.environ.get("GIRY_UNTIL", "inf"))
"""A time in seconds (`date +%s`) after which no slow test begins: `.ci/run` has so long only."""


@pytest.fixture(autouse=True)
def in_time(request):
    """Slow tests that would begin too late are skipped, and counted as such."""
    if request.node.get_closest_marker("slow") and time.time() > UNTIL:
        pytest.skip("no time is left: bin/test -m slow runs it")


@pytest.fixture(autouse=True, scope="module")
def kept():
    """What a module leaves behind is not looked through again."""
    yield
    gc.collect()
    gc.freeze()


RUN = itertools.count()


@pytest.fixture(autouse=True)
def bounded():
    """Compiled programs are not kept without end."""
    yield
    if next(RUN) % 8 == 0 and mappings() > MOST_MAPPINGS:
        jax.clear_caches()
        gc.unfreeze()
        gc.collect()
        gc.freeze()


def mappings() -> int:
    """How many parts the memory of this process is in; none where the system does not tell."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0
