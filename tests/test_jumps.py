"""Jumps between dimensions: exact on finite models, at points of continuous ones, in law.

Every term of their ratios has a mutant in the kill matrix.
"""

import functools
import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from budget import assert_law, level_of
from hypothesis import strategies as st

from benchmarks import galaxies as reference
from examples import galaxies
from inference import Move, cycle, iterate, metropolize, mixture
from inference.mcmc.jumps import birth_death, one_row, split_merge
from inference.move import mhg
from ppl import Target, errors, gen, sample, seed
from semantics import Measure, check_kernel, check_kernel_sampled, check_move, target_measure
from semantics.compiling import QUICK
from tests.mutants.jumps import MOST, NUMBERS, SPLIT, Bits

# -- finite rows: the kernel's own law, integrated ---------------------------------------------


@gen
def flip(row):
    sample("to", dist.Bernoulli(jnp.where(row["x"] == 1, 0.2, 0.7)))


swap = Move(flip, lambda row, u: ({"x": u["to"]}, {"to": row["x"]}))


def test_outcomes_of_absent_rows_count_once():
    """The model draws bits for absent rows too; the measure is that by hand, without them."""
    found, expected = target_measure(Bits.target), Bits().posterior()
    assert set(found.support) == set(expected.support)
    for outcome in expected.support:
        assert float(found[outcome]) == pytest.approx(float(expected[outcome]), abs=1e-12)


def test_compositions_of_jumps_and_moves_of_a_row_are_exact():
    fair = gen(lambda latents: sample("x", dist.Bernoulli(0.6)))

    def kernel(target):
        birth = metropolize(birth_death("k", "x", fair, least=0), target, check=True)
        row = metropolize(one_row("k", "x", swap), target)
        return mixture([cycle(birth, row), birth], [0.3, 0.7])

    check_kernel(kernel, st.builds(Bits)).require()


PRIOR = [0.5, 0.2, 0.3]


@gen
def thirds():
    k = sample("k", dist.DiscreteUniform(1, MOST))
    row = lambda j: jax.lax.cond(  # noqa: E731
        j < k, lambda: sample("x", dist.Categorical(jnp.array(PRIOR))), lambda: 0
    )
    sample("y", dist.Poisson(1.0 + (jax.vmap(row)(jnp.arange(MOST)) ** 2).sum()))


class Thirds:
    target = Target(thirds, (), {"y": 3})

    def posterior(self):
        masses = {}
        for k in range(1, MOST + 1):
            for x in itertools.product(range(3), repeat=k):
                rate = 1.0 + sum(v**2 for v in x)
                mass = math.exp(-rate) * rate**3 / 6 / MOST * math.prod(PRIOR[v] for v in x)
                masses[((("k",), k), (("x",), x + (0,) * (MOST - k)))] = mass
        return Measure(masses)


def test_splits_of_integers_are_exact():
    """Any split of a value modulo three; there is no Jacobian."""
    part = gen(lambda row: sample("part", dist.Categorical(jnp.array([0.2, 0.5, 0.3]))))
    split = lambda row, u: ({"x": (row["x"] - u["part"]) % 3}, {"x": u["part"]})  # noqa: E731
    merge = lambda a, b: ({"x": (a["x"] + b["x"]) % 3}, {"part": b["x"]})  # noqa: E731
    move = split_merge("k", "x", part, split, merge)
    check_kernel(lambda target: metropolize(move, target), st.builds(Thirds)).require()


# -- continuous rows ------------------------------------------------------------------------------


def test_the_small_jacobian_is_that_of_the_whole_padded_space():
    """JAX over all that moves, 3 + 1 coordinates and the filler with them."""
    x = {"k": jnp.array(2), "x": jnp.array([0.7, -1.2, 0.0])}
    u = {"grows": jnp.array(1), "of": jnp.array(1), "at": jnp.array(0)}
    u["new"] = {"gap": jnp.array(0.4)}

    def whole(z):
        there = SPLIT.involution({**x, "x": z[:3]}, {**u, "new": {"gap": z[3]}})
        leaves = [leaf for leaf in jax.tree.leaves(there) if leaf.dtype == z.dtype]
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

    @jax.jit
    def found():
        jacobian = jax.jacfwd(whole)(jnp.append(x["x"], u["new"]["gap"]))
        return jacobian, SPLIT.log_det(x, u), SPLIT.log_det(*SPLIT.involution(x, u))

    jacobian, there, back = found()
    expected = np.linalg.slogdet(np.asarray(jacobian))[1]
    assert expected == pytest.approx(math.log(math.cosh(0.4)), abs=1e-12)
    assert float(there) == pytest.approx(expected, abs=1e-12)
    assert float(back) == pytest.approx(-expected, abs=1e-12)


def test_a_log_det_of_the_users_is_in_the_ratio():
    """A wrong one is not only no Jacobian: the ratio that the kernel accepts by has it too."""
    line = Target(gen(lambda: sample("x", dist.Gamma(3.0, 2.0))))
    steps = gen(lambda latents: sample("log", dist.Normal(0.0, 0.5)))

    def scaled(log_det):
        def there(x, u):
            return {"x": x["x"] * jnp.exp(u["log"])}, {"log": -u["log"]}

        return lambda _: Move(steps, there, log_det)

    assert all(check_move(scaled(lambda x, u: u["log"]), line))
    verdicts = check_move(scaled(lambda x, u: 0.0), line)
    wrong = {verdict.check for verdict in verdicts if not verdict}
    assert wrong == {"Jacobian", "Radon-Nikodym identity"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value encountered in slogdet")  # steps past an end
def test_the_moves_of_the_galaxies():
    """The split keeps weight, mean and variance, at every point that the model draws."""
    target = Target(galaxies.model, (jnp.zeros(3),), {"velocity": jnp.array([9.0, 20.0, 21.0])})
    verdicts = check_move(lambda t: galaxies.splitting, target)
    assert all(verdicts), verdicts


FIVE = reference.MEAN + np.array([-10.0, -1.0, 0.0, 1.5, 13.0])
GRID = np.linspace(-4.0, 11.0, 4001)


def cluster(y):
    """For one component: log densities of the data and log variance on the grid."""
    v, n = np.exp(GRID), len(y)
    log_p = reference.SHAPE * np.log(reference.RATE) - math.lgamma(reference.SHAPE)
    log_p = log_p - reference.SHAPE * GRID - reference.RATE / v
    if n:
        between = reference.SD**2 + v / n
        log_p += -0.5 * n * np.log(2 * np.pi * v) - 0.5 * ((y - y.mean()) ** 2).sum() / v
        log_p += 0.5 * np.log(v / n / between)
        log_p += -0.5 * (y.mean() - reference.MEAN) ** 2 / between
    return log_p + np.log(GRID[1] - GRID[0])


def normalized(log_p):
    return log_p - np.logaddexp.reduce(log_p)


def partitions(n):
    if not n:
        yield []
        return
    for smaller in partitions(n - 1):
        for i in range(len(smaller)):
            yield [*smaller[:i], [*smaller[i], n - 1], *smaller[i + 1 :]]
        yield [*smaller, [n - 1]]


def exact(y, most):
    """p(k, partition | y), of shape (most, partitions), by enumeration."""
    all_ = list(partitions(len(y)))
    logs = np.full((most, len(all_)), -np.inf)
    for c, blocks in enumerate(all_):
        log_m = sum(np.logaddexp.reduce(cluster(y[b])) + math.lgamma(1 + len(b)) for b in blocks)
        for k in range(len(blocks), most + 1):
            labels = math.lgamma(k + 1) - math.lgamma(k - len(blocks) + 1)
            logs[k - 1, c] = labels + math.lgamma(k) - math.lgamma(len(y) + k) + log_m
    p = np.exp(logs - logs.max())
    return all_, p / p.sum()


def exact_starts(rng, y, most, n):
    """k and the unnormalised components from their exact posterior (to 1e-3 in log variance)."""
    all_, p = exact(y, most)
    picks = rng.choice(p.size, size=n, p=p.ravel())
    below = functools.cache(lambda block: np.cumsum(np.exp(normalized(cluster(y[list(block)])))))
    k, found = 1 + picks // p.shape[1], np.zeros((n, 3, most))
    for i in range(n):
        blocks = [*all_[picks[i] % p.shape[1]]]
        blocks = [blocks[j] if j < len(blocks) else [] for j in rng.permutation(k[i])]
        share = rng.dirichlet([1 + len(b) for b in blocks])
        for j, block in enumerate(blocks):
            cell = min(np.searchsorted(below(tuple(block)), rng.random()), len(GRID) - 1)
            v = math.exp(GRID[cell] + (GRID[1] - GRID[0]) * (rng.random() - 0.5))
            precision = 1 / reference.SD**2 + len(block) / v
            centre = reference.MEAN / reference.SD**2 + y[block].sum() / v
            found[i, :, j] = share[j], rng.normal(centre / precision, precision**-0.5), v
        found[i, 0] *= rng.gamma(k[i])
    return k, found


@pytest.mark.slow
def test_the_number_of_components_keeps_its_exact_posterior():
    """From exact starts the whole kernel keeps p(k | y) (false alarm 1e-8)."""
    n, rng = 4000, np.random.default_rng(3)
    target = Target(galaxies.model, (jnp.asarray(FIVE),), {"velocity": jnp.asarray(FIVE)})
    k, rows = exact_starts(rng, FIVE, galaxies.MOST, n)
    kernel = galaxies.kernel_of(target)

    def run(k, weight, mean, variance):
        trace = target.at({"k": k, "weight": weight, "mean": mean, "variance": variance})[0]
        return iterate(kernel, 3)(trace)["k"]

    keys = jax.random.split(jax.random.key(0), n)
    moved = jax.jit(jax.vmap(seed(run)), compiler_options=QUICK)
    after = np.asarray(moved(keys, k, *np.swapaxes(rows, 0, 1)))
    assert (after != k).mean() > 0.2  # it jumps
    probabilities = exact(FIVE, galaxies.MOST)[1].sum(1)
    counts = np.bincount(after, minlength=galaxies.MOST + 1)[1:]
    assert_law("the number of components of a mixture", counts, probabilities)


@pytest.mark.slow
def test_from_joint_draws_of_numbers_and_data():
    """All moves in a cycle, by an e-value (false alarm 1e-8)."""
    steps = gen(lambda row: sample("by", dist.Normal(0.0, 1.0)))
    walk = Move(steps, lambda row, u: ({"x": row["x"] + u["by"]}, {"by": -u["by"]}))
    newborn = gen(lambda latents: sample("x", dist.Normal(0.0, 2.0)))

    def kernel(target):
        moves = (SPLIT, birth_death("k", "x", newborn), one_row("k", "x", walk))
        return cycle(*(metropolize(move, target) for move in moves))

    alpha = level_of("splits, births and walks of numbers")
    how = {"alpha": alpha, "sizes": (1000,)}
    check_kernel_sampled(kernel, NUMBERS, jax.random.key(0), **how).require()


# -- the reference of the galaxies ---------------------------------------------------------------

PAGE = json.loads((Path(reference.PAGE)).read_text())


def test_the_data_are_the_82_velocities():
    velocity = PAGE["data"]["velocity"]
    assert len(velocity) == 82 and sum(velocity) == 1_708_180
    assert velocity[77] == 26960  # the misprint that the literature keeps


def test_the_two_references_agree():
    """Posterior odds against ratios of evidences; both are numbers in a file, so no alarms."""
    p, p_error = (np.array(PAGE["reference"][name]) for name in ("probability", "mcse"))
    z, z_error = (np.array(PAGE["evidence"][name]) for name in ("log_evidence", "se"))
    log_odds = np.log(p[2:5] / p[3])  # of 3, 4 and 5 against 4
    errors_ = np.hypot(np.hypot(p_error[2:5] / p[2:5], p_error[3] / p[3]), z_error[2:])
    assert (
        np.abs(log_odds - (z[2:] - z[3]))[[0, 2]] < 4 * np.hypot(errors_, z_error[3])[[0, 2]]
    ).all()
    y = np.asarray(PAGE["data"]["velocity"]) / 1000
    assert abs(z[0] - reference.one_component(y)) < 4 * z_error[0]
    assert abs(z[2] - -226.80) < 4 * z_error[2]  # Neal (1999)


def test_the_closed_forms_of_the_reference():
    y = FIVE[:1]
    assert reference.one_component(y) == pytest.approx(np.logaddexp.reduce(cluster(y)), abs=1e-9)


# -- mistakes ------------------------------------------------------------------------------------


def start():
    return NUMBERS.at({"k": 2, "x": jnp.array([1.0, 2.0, 0.0])})[0]


two = gen(lambda row: (sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0)))[0])
other = gen(lambda row: sample("z", dist.Normal(0.0, 1.0)))


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (lambda: birth_death("k", "x", two), "other numbers than a row has"),
        (lambda: birth_death("k", "x", other), "other rows or auxiliary choices"),
        (lambda: birth_death("k", "k", other), "not arrays with one row for each component"),
        (lambda: birth_death("x", "x", other), "not arrays with one row for each component"),
        (lambda: birth_death("k", "z", other), 'names "z", which is no choice'),
        (lambda: split_merge("k", "x", other, None, None, least=0), "least is not a number"),
        (
            lambda: split_merge(
                "k", "x", other, lambda row, u: ({"x": u["z"][None]}, row), lambda a, b: (a, b)
            ),
            "other rows or auxiliary choices",
        ),
    ],
)
def test_mistakes_are_named(move, words):
    with pytest.raises(errors.PPLError, match=words) as caught:
        seed(metropolize(move(), NUMBERS))(jax.random.key(0), start())
    assert "test_jumps.py" in str(caught.value)


@pytest.mark.parametrize("batched", [False, True])
def test_a_failed_round_trip_is_an_error_at_run_time(batched):
    line = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0))))
    steps = gen(lambda latents: sample("by", dist.Normal(0.0, 1.0)))
    onwards = lambda x, u: ({"x": x["x"] + u["by"]}, u)  # noqa: E731
    kernel = seed(mhg(line, steps, onwards, check=True))
    keys, trace = jax.random.key(0), line.at({"x": 0.5})[0]
    if batched:
        keys = jax.random.split(keys, 3)
        kernel = jax.vmap(kernel, in_axes=(0, None))
    with pytest.raises(jax.errors.JaxRuntimeError, match="is not its own inverse") as caught:
        jax.block_until_ready(jax.jit(kernel)(keys, trace)["x"])
    assert "test_jumps.py" in str(caught.value) and "latents['x']" in str(caught.value)
