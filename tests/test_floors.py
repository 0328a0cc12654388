"""Imports only go down the floors, and JAX's internals stay in two files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {
    "ppl": {"inference", "semantics", "examples"},
    "inference": {"semantics", "examples"},
    "semantics": {"examples"},
}
FILES = sorted(path for package in ABOVE for path in (ROOT / package).rglob("*.py"))
INTERNALS = {"jax.extend", "jax.interpreters"}
MAY_USE_INTERNALS = {"ppl/effects.py", "ppl/staging.py"}
HEAVY = {"matplotlib", "xarray", "arviz", "arviz_base", "arviz_stats"}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())


def imports(tree):
    """Dotted names of all absolute imports; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def uses(tree):
    """Imported names, and attribute chains such as `jax.interpreters.ad`."""
    yield from imports(tree)
    yield from (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def within(name, module):
    return name == module or name.startswith(module + ".")


def test_benchmarks_and_examples_know_no_internals():
    for folder in ("benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            names = set(uses(ast.parse(path.read_text())))
            banned = INTERNALS | {"jax._src"}
            assert not [n for n in names if any(within(n, module) for module in banned)], path


def test_every_package_is_seen():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ABOVE)


@every_file
def test_imports_only_go_down(path):
    above = ABOVE[path.relative_to(ROOT).parts[0]]
    wrong = [name for name in imports(ast.parse(path.read_text())) if name.split(".")[0] in above]
    assert not wrong


@every_file
def test_internals_of_jax_stay_in_two_files(path):
    banned = {"jax._src"}
    if path.relative_to(ROOT).as_posix() not in MAY_USE_INTERNALS:
        banned |= INTERNALS
    names = set(uses(ast.parse(path.read_text())))
    assert not [name for name in names if any(within(name, module) for module in banned)]


@every_file
def test_long_file_says_why(path):
    text = path.read_text()
    if len(text.splitlines()) > 400:
        assert "lines" in (ast.get_docstring(ast.parse(text)) or "")


def test_import_is_light():
    code = "import sys, ppl; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not HEAVY & set(loaded.split())
