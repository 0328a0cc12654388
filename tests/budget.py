"""One budget of false alarms for the whole suite: at most 1e-6 in a run.

Every check that draws random numbers to judge a true contract is here: how many there are,
and with what probability each of them alarms falsely, as an absolute number. They are fixed,
so that they add up to what `spent` says however the tests are distributed.

Not in here are bounds of four standard errors, which are no e-values: examples and reference
draws, and filters of long series. Each states its own probability, and its keys are fixed.
"""

import math

import numpy as np

from semantics import Budget
from semantics.evidence.e_values import multinomial

TOTAL = 1e-6

CHECKS: dict[str, tuple[int, float]] = {
    # by name: each takes its level from here
    "every construct": (1, 1e-8),
    "draws under a while loop": (1, 1e-8),
    "draws in the test of a loop": (1, 1e-8),
    "a kernel of numpyro on our potential": (1, 1e-8),
    "the number of components of a mixture": (1, 1e-8),
    "splits, births and walks of numbers": (1, 1e-8),
    "choices of a tree": (1, 1e-8),
    # by `check_kernel_sampled` on right kernels, at its default level
    "kill matrix": (13, 1e-8),
    "sampled kernels": (7, 1e-8),  # tests/test_semantics_sampled.py, with examples.check_peers
    "default kernels": (5, 1e-8),  # of a continuous target: tests/test_semantics_laws.py
    "docstrings and README": (2, 1e-8),
    # tests/test_mcmc_continuous.py, each at its ALPHA
    "kernels on continuous latents": (20, 1e-9),
    # tests/test_missing.py
    "draws beside missing data": (2, 1e-9),
    # examples/steering.py, each at its ALPHA
    "evidence of steered texts": (7, 1e-9),
    # checks of the e-values themselves; their levels are computed where they are
    "ten thousand null checks": (1, 1e-7),
    "how many null e-values are large": (2, 1e-9),
    # one large number of draws beyond a bound, of the probability that is stated there
    "means at seven standard errors": (1631, 3e-12),
    # tests/test_sum_out_generated.py, by e-values
    "draws of what was summed out": (90, 1e-11),
    # tests/test_sum_out_gaussian_generated.py, by e-values
    "draws of Gaussian choices that were summed out": (90, 1e-11),
    # tests/test_gammas.py, by e-values
    "draws of gammas and of what is made of them": (18, 1e-11),
    "draws of the coldest chain": (1, 1e-8),
    "starts from the prior": (1, 1e-10),
}


def share(name):
    """The probability that any of the checks of this name alarms falsely."""
    number, level = CHECKS[name]
    return number * level


def spent():
    """The probability of any false alarm in a run."""
    return math.fsum(map(share, CHECKS))


BUDGET = Budget(TOTAL, {name: share(name) / TOTAL for name in CHECKS})


def level_of(name):
    """The level of the one check with this name, which can take it once in a run."""
    number, _ = CHECKS[name]
    assert number == 1, f'"{name}" is {number} checks'
    return BUDGET.register(name)


def assert_law(name, counts, probabilities):
    """The counts are of independent draws with these probabilities, at the level of `name`."""
    log_e = float(multinomial(np.asarray(counts), np.asarray(probabilities)))
    assert log_e < math.log(1 / level_of(name))
