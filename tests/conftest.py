"""Tests run in 64 bits, and compile each program once per machine, not once per run."""

import gc
import itertools
import os
import random
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


LONG_CASES = frozenset((Path(__file__).parent / "long_cases.txt").read_text().splitlines())
"""Tests, and single cases of tests, that took more than 7.5 s when `--durations=0` was read."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long cases are slow; where time is short, slow tests come in an order of its own each time.

    The same in all processes, which must agree on it; one order would leave out the same tests
    each time.
    """
    for item in items:
        if item.nodeid in LONG_CASES:
            item.add_marker(pytest.mark.slow)
    if float("inf") > UNTIL:
        files = sorted({str(item.path) for item in items})
        random.Random(int(UNTIL)).shuffle(files)
        turn = {path: i for i, path in enumerate(files)}
        items.sort(key=lambda item: turn[str(item.path)])


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
