"""What is listed as long exists, so that a test that is renamed is not forgotten on the list."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LISTED = (TESTS / "long_cases.txt").read_text().splitlines()


def functions(file):
    tree = ast.parse((TESTS.parent / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("file", sorted({line.split("::")[0] for line in LISTED}))
def test_each_is_a_test_of_its_file(file):
    names = {line.split("::")[1].split("[")[0] for line in LISTED if line.startswith(file)}
    assert names <= functions(file)


def test_the_list_is_sorted_and_has_nothing_twice():
    assert sorted(set(LISTED)) == LISTED
