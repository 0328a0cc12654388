"""`sum_out` on random programs: density, gradient, beliefs, mode and joint draws by enumeration.

Densities are sums of at most 600 products of at most some 30 factors in float64, whose logs are of
size 1e2 at most: 1e-10 leaves room, and 1e-9 for derivatives, whose terms are of size 1e2. Laws
are normalised: 1e-12 times the number of operations, 1e-10.

Joint draws are 500 for each program, against the exact law, by an e-value: each alarms falsely
with probability at most 1e-11, so 90 of them with at most 9e-10.
"""

import math

import finite_programs as programs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import beliefs, most_likely, restore, sum_out
from ppl import Masked, seed, select
from ppl.addresses import flatten, nest
from ppl.quadrature import outcomes
from semantics.compiling import QUICK
from semantics.evidence.e_values import multinomial

DENSITY, GRADIENT, LAW = 1e-10, 1e-9, 1e-10
DRAWS, TABLES = 500, 10
VALUES = (0, 1, 2)
ALARM = 1e-11


def everything(case, joint, key, theta, numbers):
    """All that is compared, in one program, so that it is compiled once."""
    quiet = sum_out(case.model, select(*case.paths))
    real, rest, present = programs.drawn(case, key, theta, numbers)
    combos, logs, slopes = programs.by_enumeration(case, (theta, numbers), real, rest, present)

    def score(theta, real):
        return quiet.assess(nest({**real, **rest}), theta, numbers)[0]

    value, slope = jax.value_and_grad(score, (0, 1))(theta, real)
    seen = {p: Masked(v, present[p]) if p in present else v for p, v in {**real, **rest}.items()}
    given, log_weight = seed(quiet.generate)(key, nest(seen), theta, numbers)
    best = most_likely(quiet, given)
    laws = flatten(beliefs(quiet, given))
    sites = case.model.sites(theta, numbers)
    probs = {}
    for path in case.paths:
        values = jnp.asarray(outcomes(sites[path].distribution))
        probs[path] = jax.vmap(laws[path].log_prob, out_axes=-1)(values)
    found = {
        "enumerated": (combos, logs, slopes),
        "density": (value, log_weight, given.score, slope),
        "mode": (best.score, {p: flatten(best.choices)[p] for p in case.paths}),
        "beliefs": jax.tree.map(jnp.exp, probs),
        "present": {p: v for p, v in present.items() if p in case.paths},
    }
    if joint:
        keys = jax.random.split(key, DRAWS)
        draws = jax.vmap(lambda key: seed(restore)(key, quiet, given))(keys)
        drawn = flatten(draws.choices)
        same = [jnp.all(drawn[p] == v) for p, v in {**real, **rest}.items()]
        mine = {path: drawn[path] for path in case.paths}
        found["drawn"] = mine, draws.score, jnp.all(jnp.stack([jnp.bool_(True), *same]))
    return found


def check(number, joint=True, parts=()):
    """All laws on the programs of a structure; how many there are."""
    case = programs.case(number, parts)
    if case is None:
        return 0
    rows = [programs.tables(case, number + i) for i in range(TABLES)]
    stacked = {name: np.stack([row[name] for row in rows]) for name in case.shapes}
    thetas = np.where(np.arange(TABLES) % 2, 0.7, 1.3)
    keys = jax.random.split(jax.random.key(number), TABLES)
    each = lambda row: everything(case, joint, *row)  # noqa: E731
    run = jax.jit(lambda *rows: jax.lax.map(each, rows), compiler_options=QUICK)
    found = jax.tree.map(np.asarray, run(keys, thetas, stacked))
    for i in range(TABLES):
        told = f"structure {number}, tables {i}: {case.parts}"
        check_one(case, jax.tree.map(lambda leaf: leaf[i], found), told)  # noqa: B023
    return TABLES


def check_one(case, found, told):
    combos, logs, slopes = found["enumerated"]
    assert np.isfinite(logs).any(), told
    weights = np.exp(logs - logs.max())
    total = math.log(weights.sum()) + logs.max()
    weights /= weights.sum()
    value, log_weight, score, slope = found["density"]
    np.testing.assert_allclose(
        [value, log_weight, score], total, rtol=0, atol=DENSITY, err_msg=told
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=GRADIENT, err_msg=told),
        slope, jax.tree.map(lambda s: mean(weights, s), slopes),
    )  # fmt: skip
    check_beliefs(found, combos, weights, told)
    check_mode(found, combos, logs, told)
    if "drawn" in found:
        check_draws(case, found, combos, weights, total, told)


def mean(weights, values):
    """Of the outcomes that are possible."""
    w = weights.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(w > 0, w * np.where(w > 0, values, 0.0), 0.0).sum(0)


def check_beliefs(found, combos, weights, told):
    for path, law in found["beliefs"].items():
        exact = np.stack([mean(weights, 1.0 * (combos[path] == v)) for v in VALUES], -1)
        there = np.broadcast_to(found["present"].get(path, True), law.shape[:-1])
        few = law.shape[-1]
        np.testing.assert_allclose(
            law[there], exact[there][..., :few], rtol=0, atol=LAW, err_msg=told
        )


def check_mode(found, combos, logs, told):
    """The largest density, at values that have it."""
    score, values = found["mode"]
    here = logs[rows_equal(combos, values)]
    assert here.size, told
    alike = math.log(here.size)  # outcomes that are not made share their probability
    np.testing.assert_allclose([score, here[0] + alike], logs.max() + alike, rtol=0, atol=DENSITY,
                               err_msg=told)  # fmt: skip


def rows_equal(combos, values):
    return np.all(
        [(combos[p] == v).reshape(len(combos[p]), -1).all(1) for p, v in values.items()], 0
    )


def check_draws(case, found, combos, weights, total, told):
    drawn, scores, kept = found["drawn"]
    assert kept, told
    as_rows = lambda values: np.concatenate(  # noqa: E731
        [np.reshape(values[p], (len(values[p]), -1)) for p in case.paths], 1
    )
    table, at = np.unique(as_rows(combos), axis=0, return_inverse=True)
    masses = np.bincount(at.reshape(-1), weights)
    numbers = {tuple(row): i for i, row in enumerate(table.tolist())}
    which = np.array([numbers[tuple(row)] for row in as_rows(drawn).tolist()])
    log_e = multinomial(np.bincount(which, minlength=len(table)), masses)
    assert log_e < -math.log(ALARM), f"{told}: {log_e}"
    np.testing.assert_allclose(
        scores, np.log(masses[which]) + total, rtol=0, atol=DENSITY, err_msg=told
    )


def test_a_random_structure():
    assert check(170) == TABLES


STRUCTURES = (2, 19, 22, 24, 37, 38, 47, 48, 56, 78, 85, 123, 126, 148, 150, 152, 155, 177, 197)
"""Of the first 200, few that have all kinds of parts in almost every place where they occur."""


@pytest.mark.slow
@pytest.mark.parametrize("number", STRUCTURES)
def test_two_hundred_programs(number):
    """Ten tables for each structure, with that above; every other one with joint draws."""
    assert check(number, joint=number % 2 == 1) == TABLES
