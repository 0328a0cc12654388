"""Imports go one way, down the floors and through the rooms; two files know JAX's internals."""

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
ROOMS = {
    # who may import whom in `inference`, beside the algebra at its root and `validation`, which
    # all may: docs/architecture.md
    "validation": set(),
    "targets": set(),
    "mcmc": {"targets"},
    "smc": {"targets", "mcmc"},
    "gaussian": set(),
    "sites": {"gaussian"},
    "exact": {"targets", "mcmc", "smc", "gaussian"},
    "estimated": {"targets", "mcmc", "smc", "exact"},
    "guides": {"targets", "mcmc", "smc", "exact", "estimated"},
    "vi": {"targets", "mcmc", "smc", "exact", "estimated"},
    "results": {"targets", "smc", "vi"},
    "running": {"targets", "mcmc", "smc", "exact", "estimated", "guides", "vi", "results"},
    "tensors": {"targets", "gaussian", "results", "running"},
}
SEMANTIC_ROOMS = {
    # the same of `semantics`, beside `report`, `compiling` and the command line
    "measures": set(),
    "evidence": set(),
    "generated": {"measures"},
    "laws": set(),
    "contracts": {"measures", "evidence"},
}
HOUSES = {"inference": ROOMS, "semantics": SEMANTIC_ROOMS}
ALGEBRA = {"weighted", "move", "round_trip", "kernel", "kernels", "recipe", "choose"}
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


def neighbours(package, path):
    """The rooms of a package that a file imports from; "" is the package's root."""
    here = path.relative_to(ROOT / package).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or within(node.module, package)):
            module = (node.module or "").split(".")
            above = here[: len(here) + 1 - node.level] if node.level else ()
            first = (*above, *(module if node.level else module[1:]))[0]
            yield first if first in HOUSES[package] else ""


def test_every_file_is_in_a_room_or_at_the_root_by_name():
    roots = {"inference": ALGEBRA, "semantics": {"report", "compiling", "check"}}
    for package, rooms in HOUSES.items():
        home = ROOT / package
        assert {path.stem for path in home.glob("*.py")} == roots[package] | {"__init__"}
        assert {path.parent.name for path in home.glob("*/*.py")} == set(rooms)
        assert not list(home.glob("*/*/*.py"))


EVERY_ROOM = [(package, room) for package, rooms in HOUSES.items() for room in rooms]


@pytest.mark.parametrize(("package", "room"), [("inference", ""), *EVERY_ROOM])
def test_rooms_import_one_way(package, room):
    """What a room may use is above it in its table, so that no circle can arise."""
    rooms = HOUSES[package]
    order = list(rooms)
    assert all(order.index(other) < order.index(room) for other in rooms.get(room, ()))
    for path in (ROOT / package / room).glob("*.py"):
        if path.name != "__init__.py":
            may = {"", room, "validation"} | rooms.get(room, set())
            if room == "validation":
                may = {room}
            assert set(neighbours(package, path)) <= may, path


@pytest.mark.parametrize(("package", "room"), EVERY_ROOM)
def test_a_room_says_what_lives_there(package, room):
    text = (ROOT / package / room / "__init__.py").read_text()
    told = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    assert "may use" in told and told.count(".") >= 3
    assert not list(imports(ast.parse(text)))  # names are public in the package alone


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
