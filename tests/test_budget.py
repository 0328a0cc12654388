"""The false alarms of the suite add up to at most 1e-6 a run."""

import pytest
from budget import BUDGET, CHECKS, TOTAL, level_of, share, spent


def test_the_levels_add_up_to_the_total_or_less():
    assert TOTAL == 1e-6
    assert spent() <= TOTAL
    for name, (number, level) in CHECKS.items():
        assert number >= 1 and 0 < level < 1
        assert BUDGET.shares[name] * TOTAL == pytest.approx(share(name), rel=1e-12)


def test_levels_are_absolute_and_a_check_takes_its_own_only():
    with pytest.raises(AssertionError, match="checks"):
        level_of("kill matrix")
    with pytest.raises(KeyError):
        level_of("a check that is not in the budget")
