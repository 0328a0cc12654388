"""`sum_out` on random linear-Gaussian programs: density, gradient, laws, mode and joint draws.

What is compared with is a formula of dense matrices, in at most 48 standard normals. Precisions
have condition numbers below 1e4, so that both sides are right to 1e-11 of the size of their terms,
and derivatives, which have squares of these numbers in them, to 1e-10; bounds are ten times that.
A gradient is compared along a random direction of all that a program has, numbers and data: what
is wrong with one of them shows there as much, times a standard normal.

Joint draws are 10,000 for each program, by an e-value: each alarms falsely with probability at most
1e-11, so 90 of them with at most 9e-10.
"""

import itertools
import math

import gaussian_algebra as algebra
import gaussian_programs as programs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

from inference import beliefs, most_likely, restore, sum_out
from ppl import Masked, seed, select
from ppl.addresses import flatten, nest
from semantics.compiling import QUICK
from semantics.evidence.e_values import combine

EXACT, GRADIENT = 1e-10, 1e-9
DRAWS, PROGRAMS = 10_000, 15
ALARM = 1e-11
WAYS = (None, "blocks", "tree", "roots")


def quiet_of(case, masks, along):
    missing = nest({p: jnp.asarray(m) for p, m in masks.items()})
    return sum_out(case.model, select(*case.summed), missing=missing, along=along)


def everything(case, along, laws, joint, key, theta, numbers, data, made):
    """All that is compared, in one program, so that it is compiled once."""
    real, rest, masks = data
    quiet = quiet_of(case, masks, along)

    def density(theta, numbers, real):
        return quiet.assess(nest({**real, **rest}), theta, numbers)[0]

    value, slopes = jax.value_and_grad(density, (0, 1, 2))(theta, numbers, real)
    found = {"density": value, "slopes": slopes}
    if not laws and not joint:
        return found
    seen = {p: Masked(v, made[p]) if p in made else v for p, v in {**real, **rest}.items()}
    trace, log_weight = seed(quiet.generate)(key, nest(seen), theta, numbers)
    found["density"] = jnp.stack([value, log_weight, trace.score])
    if laws:
        each = flatten(beliefs(quiet, trace))
        found["laws"] = [{p: of(law) for p, law in each.items()}
                         for of in (lambda law: law.mean, lambda law: law.variance)]  # fmt: skip
    if joint:
        best = most_likely(quiet, trace)
        found["mode"] = best.score, flatten(best.choices)
        keys = jax.random.split(key, DRAWS)
        drawn = jax.vmap(lambda key: seed(restore)(key, quiet, trace).choices)(keys)
        found["drawn"] = flatten(drawn)
    return found


def as_given(quiet, theta, numbers, data, made):
    """The data with zeros for choices that are not made; and for choices in branches, which are.

    In branches, a series is one choice, made as a whole.
    """
    *values, masks = data
    blank = [{p: np.where(flags(made, p, v.shape), v, 0) for p, v in kept.items()}
             for kept in values]  # fmt: skip
    found = {}
    for path, site in quiet.sites(theta, numbers).items():
        if site.conditional:
            sizes = tuple(n for _, n in site.axes)
            found[path] = flags({(p, at[: len(sizes)]) for p, at in made}, path, sizes)
    return (*blank, masks), found


def flags(made, path, sizes):
    """By place, whether a choice is made."""
    depth = max((len(at) for p, at in made if p == path), default=0)
    there = [(path, at[:depth]) in made for at in np.ndindex(*sizes)]
    return np.reshape(there, sizes)


def check(number, parts=(), laws=False, joint=False):
    """Of all programs of a structure."""
    case = programs.case(number, parts)
    assert case is not None
    along, rows, exact = WAYS[number % len(WAYS)], [], []
    for i in range(PROGRAMS):
        theta = 0.7 if i % 4 < 2 else 1.3
        numbers, data = programs.numbers(case, number + i), programs.data(case, number + i)
        real, rest, masks = data
        exact.append(algebra.dense(case, theta, numbers, {**real, **rest}, masks))
        quiet = quiet_of(case, masks, along)
        data, made = as_given(quiet, theta, numbers, data, exact[-1].made)
        rows.append((jax.random.key(number + i), theta, numbers, data, made))
    one = lambda row: everything(case, along, laws, joint, *row)  # noqa: E731
    run = jax.jit(lambda rows: jax.lax.map(one, rows), compiler_options=QUICK)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    found = jax.tree.map(np.asarray, run(stacked))
    for i, (row, right) in enumerate(zip(rows, exact, strict=True)):
        told = f"program {i} of structure {number}, along {along}"
        here = jax.tree.map(lambda leaf: leaf[i], found)  # noqa: B023
        check_one(case, here, right, row, told)


def check_one(case, found, exact, row, told):
    _, theta, numbers, (real, rest, masks), _ = row
    close(found["density"], exact.density, EXACT, f"density, {told}")
    rng = np.random.default_rng(0)
    point = theta, numbers, real
    along = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), point)
    terms = [np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (along, found["slopes"])),
                                           strict=True)]  # fmt: skip
    right = algebra.slope(case, along, *point, rest, masks)
    size = max(1.0, *np.abs(terms))
    close(sum(terms) / size, right / size, GRADIENT, f"gradient, {told}")

    flat = lambda values: np.concatenate([np.ravel(values[p][at]) for p, at in exact.summed])  # noqa: E731
    if "laws" in found:
        means, variances = map(flat, found["laws"])
        close(means, exact.mean, EXACT, f"means, {told}")
        close(variances, np.diag(exact.covariance), EXACT, f"variances, {told}")
    if "drawn" in found:
        score, mode = found["mode"]
        close(flat(mode), exact.mean, EXACT, f"mode, {told}")
        # not where a variance is zero, or values that are missing count in the model's density
        if np.isfinite(exact.score) and not masks:
            close(score, exact.score, EXACT, f"score of the mode, {told}")
        drawn, kept = found["drawn"], {**real, **rest}
        assert all(np.all(drawn[p][:, *at] == kept[p][at]) for p, at in exact.made), told
        parts = [drawn[p][:, *at].reshape(DRAWS, -1) for p, at in exact.summed]
        check_draws(np.concatenate(parts, 1) - exact.mean, exact.covariance, told)


def close(found, right, bound, told):
    """To the bound, relative to the largest of these numbers."""
    size = max(1.0, float(np.max(np.abs(right), initial=0.0)))
    np.testing.assert_allclose(found, np.broadcast_to(right, np.shape(found)), rtol=0,
                               atol=bound * size, err_msg=told)  # fmt: skip


def check_draws(errors, covariance, told):
    """By the axes of the covariance, along some of which nothing varies."""
    variances, axes = np.linalg.eigh(covariance)
    parts = errors @ axes
    some = variances > 1e-9 * variances.max()
    # roots of variances that are zero but for rounding, 1e-15, times standard normals
    assert np.all(np.abs(parts[:, ~some]) < 1e-6), f"draws, {told}"
    if np.any(some):
        log_e = normal(parts[:, some] / np.sqrt(variances[some]))
        assert log_e < -math.log(ALARM), f"draws, {told}: {log_e}"


def normal(x):
    """Log e-value: rows (n, d) against independent standard normals.

    The mean, over all pairs of columns, of the marginal likelihood of the pair under a normal law
    of unknown mean and covariance (of a normal-inverse-Wishart prior of one observation, centred at
    the standard one), divided by the likelihood under the null.
    """
    if x.shape[1] == 1:
        x = x.reshape(-1, 2)
    n, d = x.shape
    i, j = np.triu_indices(d, 1)
    mean, second = x.mean(0), x.T @ x
    after = np.eye(d) + second - n**2 / (n + 1.0) * np.outer(mean, mean)
    volume = np.log(after[i, i] * after[j, j] - after[i, j] ** 2)
    first = 4.0  # degrees of freedom of the prior
    many = lambda f: gammaln(f / 2) + gammaln((f - 1) / 2)  # noqa: E731
    likelihood = many(n + first) - many(first) - 0.5 * (n + first) * volume - np.log(n + 1.0)
    # both divided by pi^-n
    null = -0.5 * (second[i, i] + second[j, j]) - n * np.log(2.0)
    return float(combine(likelihood - null))


def test_an_e_value_of_draws():
    """One on average under the null, given the draws before; and large for dependent ones.

    Of a third draw, by the tangents of Gauss and Legendre's nodes: what is integrated is a density
    of Student's t in two dimensions, with 40 nodes in each to 1e-8.
    """
    before = np.array([[0.3, -1.2], [0.8, 0.1]])
    nodes, weights = np.polynomial.legendre.leggauss(40)
    angles = nodes * np.pi / 2
    at, w = np.tan(angles), weights * np.pi / 2 / np.cos(angles) ** 2
    total = 0.0
    for (x, u), (y, v) in itertools.product(zip(at, w, strict=True), repeat=2):
        gain = normal(np.vstack([before, [x, y]])) - normal(before)
        total += u * v * np.exp(gain - 0.5 * (x**2 + y**2)) / (2 * np.pi)
    assert abs(total - 1) < 1e-6
    x = np.random.default_rng(0).normal(size=(DRAWS, 3))
    assert normal(x) < 0 < 100 < normal(x @ [[1, 0.6, 0], [0, 0.8, 0], [0, 0, 1]])


def test_a_random_structure():
    check(209, laws=True, joint=True)


STRUCTURES = (71, 9, 315, 382, 30, 303, 187)
"""Of the first 400, small ones with many kinds of parts."""

BY_HAND = dict(zip(programs.BY_HAND, (0, 3, 1, 4, 6, 2, 8, 10, 5), strict=True))
"""Numbers for the others, by which loops are gone through in one way or another."""


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(STRUCTURES)))
def test_random_structures(i):
    """Fifteen programs for each, 105 together: of some the laws, of some the joint draws."""
    check(STRUCTURES[i], laws=i % 3 == 0, joint=i % 3 == 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", programs.BY_HAND)
def test_structures_by_hand(name):
    """Fifteen programs for each, 135 together."""
    i = list(BY_HAND).index(name)
    parts = programs.BY_HAND[name]
    check(BY_HAND[name], parts, laws=i % 3 == 0, joint=i % 3 == 1)
