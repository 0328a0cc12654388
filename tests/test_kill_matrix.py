"""Every deliberate bug is found by a public check, and every correct version passes it."""

import pytest
from budget import CHECKS

from tests.mutants.matrix import ENTRIES
from tests.mutants.table import PAGE, columns, known, line, row

pytestmark = pytest.mark.slow

MUTANTS = [entry for entry in ENTRIES if entry.kind == "mutant"]
OTHERS = [entry for entry in ENTRIES if entry.kind != "mutant"]
SHOWN = columns(PAGE.read_text())


@pytest.mark.parametrize("entry", MUTANTS, ids=str)
def test_mutants_are_killed(entry):
    verdict = entry.verdict
    assert not verdict.passed, f"{entry} survives: {entry.says}\n{verdict}"
    assert columns(row(entry))[0] in SHOWN


@pytest.mark.parametrize("entry", OTHERS, ids=str)
def test_correct_versions_pass(entry):
    entry.verdict.require()
    assert columns(row(entry))[0] in SHOWN


@pytest.mark.parametrize("entry", [e for e in MUTANTS if e.family == "trace MH"], ids=str)
def test_trace_mh_witnesses_have_at_most_three_sites(entry):
    """The failure is shrunk to a minimal program, which the witness shows as code."""
    assert 1 <= entry.verdict.witness.count("sample(") <= 3


def test_the_matrix_is_large_and_its_names_are_unique():
    assert len(MUTANTS) >= 30
    assert len({str(entry) for entry in ENTRIES}) == len(ENTRIES)
    assert {entry.family for entry in MUTANTS} <= {entry.family for entry in OTHERS}


def test_the_sampled_checks_that_must_pass_are_in_the_budget():
    number, level = CHECKS["kill matrix"]
    sampled = [entry for entry in OTHERS if entry.checked_by == "check_kernel_sampled"]
    assert len(sampled) == number
    assert {entry.check.keywords.get("alpha", 1e-8) for entry in sampled} == {level}


def test_the_docs_show_the_matrix():
    """Its rows are those of the entries, in their order; each verdict looks for its own above."""
    rows = [cells[:-1] for cells in SHOWN if cells[0] not in ("family", "---")]
    lines = "".join(line([*known(entry), "", "", ""]) for entry in [*MUTANTS, *OTHERS])
    assert rows == [cells[:-1] for cells in columns(lines)]
