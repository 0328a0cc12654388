"""One budget of false alarms for the whole suite: at most 1e-6 in a run.

Every test that draws random numbers to judge a true contract takes its level here, by
name; the shares are fixed, so that they add up however the tests are distributed.
"""

import math

import numpy as np

from semantics import Budget
from semantics.evidence import multinomial

SHARES = {
    "every construct": 1e-8,
    "draws under a while loop": 1e-8,
    "a kernel of numpyro on our potential": 1e-8,
    # checks of right kernels by `check_kernel_sampled`, 1e-8 each (its default)
    "sampled checks": 40e-8,
    # A/A tests of the e-values themselves, whose own level is computed there
    "null checks": 1e-8,
}
BUDGET = Budget(1e-6, SHARES)


def assert_law(name, counts, probabilities):
    """The counts are of independent draws with these probabilities, at the level of `name`."""
    level = BUDGET.register(name)
    assert float(multinomial(np.asarray(counts), np.asarray(probabilities))) < math.log(1 / level)
