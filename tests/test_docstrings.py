"""Every public name has an example, and every example prints what it says."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import inference
import ppl
import semantics

PACKAGES = (ppl, inference, semantics)
MODULES = [
    name
    for package in PACKAGES
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
PUBLIC = [
    (package, name) for package in PACKAGES for name in sorted(getattr(package, "__all__", ()))
]
METHODS = ("simulate", "assess", "generate", "update", "regenerate", "project")


def examples(documented):
    """The examples in a docstring; a value has that of its class."""
    return doctest.DocTestParser().get_examples(inspect.getdoc(documented) or "")


def in_its_stage(name):
    """Examples that compile algorithms take minutes together, and run in the second stage."""
    quick = name.startswith("ppl")
    return pytest.param(name, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", map(in_its_stage, MODULES))
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize(
    "package, name", PUBLIC, ids=[f"{package.__name__}.{name}" for package, name in PUBLIC]
)
def test_every_public_name_is_shown(package, name):
    word = re.compile(rf"\b{name}\b")
    found = examples(getattr(package, name))
    shown = [each for each in found if word.search(each.source + each.want)]
    # imports alone show nothing
    assert any(not each.source.startswith(("import ", "from ")) for each in shown)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_shown(method):
    shown = examples(getattr(ppl.GenerativeFunction, method))
    assert any(f".{method}(" in each.source for each in shown)
