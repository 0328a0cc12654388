"""Masks: one rule for their axes, for every distribution with events and every method."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import ppl.samplers
from inference import Draws
from inference.results.loo import loo
from inference.results.pointwise import Pointwise, log_likelihood
from ppl import At, Masked, Target, gen, sample, seed
from ppl.errors import InvalidArgument, ShapeError
from ppl.masks import leading, shapes
from ppl.walk import walk
from tests.every_distribution import EVERY, N, at, families, values

KEY = jax.random.key(0)
EVENTS = [name for name in EVERY if EVERY[name](()).event_shape and name != "Unit"]
QUICK = {
    "Delta, an event", "Dirichlet", "Independent", "Independent of an event", "LKJCholesky",
    "LowRankMultivariateNormal", "MixtureSameFamily of events", "MultinomialProbs",
    "MultivariateNormal",
}  # fmt: skip
ROWS = np.array([True, False, True])
TABLE = np.array([[True, True, False], [False, False, True], [False, True, True]])
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}  # sums of some thirty terms of size 10 at most


def test_every_distribution_is_in_the_registry():
    assert families() <= {name.split(",")[0].split(" of ")[0] for name in EVERY}


def test_leading_axes_are_those_of_the_mask():
    assert leading(np.zeros((2, 3)), 4).shape == (2, 3, 1, 1)
    assert leading(jnp.zeros(()), 2).shape == (1, 1)
    assert leading(True, 0) is True


def test_the_shapes_of_masks():
    """Loops alone, each event, each independent element; of normal vectors each part."""
    normal, vector = dist.Normal(0.0, 1.0), dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))
    assert shapes((4,), [normal.expand([2, 3]).to_event(1)]) == [(4,), (4, 2), (4, 2, 3)]
    assert shapes((), [vector.expand([3])]) == [(), (3,), (3, 3)]
    assert shapes((4,), [dist.Dirichlet(jnp.ones((2, 3)))]) == [(4,), (4, 2)]
    assert shapes((), [vector, normal.expand([3]).to_event(1)]) == [()]  # in other branches


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn in place of numpyro's slow samplers, by batch shape."""
    drawn = {}
    monkeypatch.setattr(
        ppl.samplers, "sample", lambda d, *_: jnp.asarray(drawn[tuple(d.batch_shape)])
    )
    return drawn


def densities(name, batch, value):
    """One for each event, by numpyro."""
    return np.asarray(at(name, batch).log_prob(value))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EVENTS]
)
def test_a_flag_a_row(name, drawn):
    """As many rows as an event has elements: weights and what is drawn, by numpyro's density.

    Sweep: all distributions with events x generate, update, assess, Target, pointwise.
    """
    d = at(name, (N,))
    old, new = values(d), values(d, 1)
    before, after = densities(name, (N,), old), densities(name, (N,), new)
    drawn[N,] = old
    model = gen(lambda: sample("y", d))
    seen = {"y": Masked(jnp.asarray(new), jnp.asarray(ROWS))}
    mixed = np.where(leading(ROWS, new.ndim), new, old)

    made, weight = seed(model.generate)(KEY, seen)
    np.testing.assert_allclose(weight, after[ROWS].sum(), **ROUNDING)
    if name != "Independent":  # drawn from normals
        np.testing.assert_array_equal(made["y"], mixed)
    np.testing.assert_array_equal(made["y"][ROWS], new[ROWS])
    np.testing.assert_allclose(model.assess(made.choices)[0], made.score, **ROUNDING)

    start, score = model.generate({"y": jnp.asarray(old)})
    np.testing.assert_allclose(score, before.sum(), **ROUNDING)
    changed, ratio, discarded = model.update(start, seen)
    np.testing.assert_allclose(ratio, (after - before)[ROWS].sum(), **ROUNDING)
    np.testing.assert_array_equal(changed["y"], mixed)
    np.testing.assert_array_equal(discarded["y"].mask, ROWS)
    np.testing.assert_allclose(model.update(changed, discarded)[1], -ratio, **ROUNDING)

    target = Target(model, (), seen)
    found = seed(target.log_density)(KEY, {})
    np.testing.assert_allclose(found, after[ROWS].sum(), **ROUNDING)
    program = model._prepare((), {}).staged.program
    masked = {("y",): (new, ROWS)}
    _, out, _ = walk(program, (), Pointwise(frozenset({("y",)})), masked)
    rows = np.asarray(out["log_likelihood"]["y",]).reshape(N, -1).sum(-1)
    np.testing.assert_allclose(rows, np.where(ROWS, after, np.nan), **ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Independent", "MultivariateNormal"])
def test_a_flag_a_row_in_loops(name, drawn):
    """The length of the loops is that of the batch and of the event, too.

    Sweep: a loop of batches with a flag for each row or each step, and copies of one event,
    x generate, update, assess, Target, log_likelihood.
    """

    @gen
    def model():
        sample("mu", dist.Normal(0.0, 1.0))
        step = lambda c, _: (c, (sample("a", at(name, (N,))), sample("b", at(name, (N,)))))  # noqa: E731
        jax.lax.scan(step, 0.0, None, length=N)
        jax.vmap(lambda _: sample("c", at(name, ())))(jnp.arange(N))

    batches = {"a": (N, N), "b": (N, N), "c": (N,)}
    masks = {"a": TABLE, "b": ROWS, "c": ~ROWS}
    old = {p: values(at(name, b), i) for i, (p, b) in enumerate(batches.items())}
    new = {p: values(at(name, b), i + 3) for i, (p, b) in enumerate(batches.items())}
    after = {p: densities(name, b, new[p]) for p, b in batches.items()}
    before = {p: densities(name, b, old[p]) for p, b in batches.items()}
    drawn.update({(N,): old["c"], (): old["c"][0]})
    prior = -0.5 * np.log(2 * np.pi)
    kept = sum(after[p][masks[p]].sum() for p in masks)
    seen = {p: Masked(jnp.asarray(new[p]), jnp.asarray(masks[p])) for p in masks}

    @jax.jit
    def run(key, seen, old):
        made, weight = seed(model.generate)(key, {"mu": 0.0, **seen})
        start, _ = model.generate({"mu": 0.0, **old})
        return made, weight, model.assess(made.choices)[0], model.update(start, seen)

    made, weight, whole, (changed, ratio, discarded) = run(KEY, seen, old)
    np.testing.assert_allclose(weight, prior + kept, **ROUNDING)
    np.testing.assert_allclose(whole, made.score, **ROUNDING)
    lost = sum(before[p][masks[p]].sum() for p in masks)
    np.testing.assert_allclose(ratio, kept - lost, **ROUNDING)
    for p, mask in masks.items():
        np.testing.assert_array_equal(made[p][mask], new[p][mask])
        flags = leading(mask, new[p].ndim)
        np.testing.assert_array_equal(changed[p], np.where(flags, new[p], old[p]))
        np.testing.assert_array_equal(discarded[p].mask, mask)
    target = Target(model, (), seen)
    found = seed(target.log_density)(KEY, {"mu": 0.0})
    np.testing.assert_allclose(found, prior + kept, **ROUNDING)
    pointwise = log_likelihood(Draws({"mu": np.zeros((1, 1))}, target=target))
    for p, mask in masks.items():
        found = np.asarray(pointwise[p][0, 0]).reshape(*after[p].shape, -1).sum(-1)
        np.testing.assert_allclose(
            found, np.where(leading(mask, found.ndim), after[p], np.nan), **ROUNDING
        )


@pytest.mark.parametrize("n", [2, 3])
def test_a_posterior_from_the_rows_that_are_seen(n):
    """The log density of mu, up to a constant: -(mu^2 + n (mu - 1)^2) / 2, with mode n/(n+1)."""

    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.MultivariateNormal(mu * jnp.ones((n, n)), jnp.eye(n)))

    y = jnp.outer(jnp.array([1.0, 50.0, -80.0])[:n], jnp.ones(n))
    target = Target(model, (), {"y": Masked(y, jnp.arange(n) == 0)})
    log_p = lambda mu: seed(target.log_density)(KEY, {"mu": mu})  # noqa: E731
    for mu in (0.0, 2.0, n / (n + 1)):
        expected = -(mu**2 + n * (mu - 1) ** 2) / 2 + n / 2
        np.testing.assert_allclose(log_p(mu) - log_p(0.0), expected, atol=1e-12)


def test_flags_in_branches():
    """Presence in a loop of 3 and a mask of the batch of 3: neither is turned over."""

    @gen
    def model(there):
        def one(flag):
            return jax.lax.cond(
                flag, lambda: sample("y", dist.Normal(0.0, 1.0).expand([N])), lambda: jnp.zeros(N)
            )

        return jax.vmap(one)(there)

    y = np.arange(9.0).reshape(N, N)
    kept = np.array([True, False, True])
    trace, _ = Target(model, (jnp.asarray(kept),)).at({"y": jnp.asarray(y * kept[:, None])})
    seen = Masked(jnp.asarray(y + 1), jnp.asarray(TABLE & kept[:, None]))
    changed, ratio, discarded = seed(model.update)(KEY, trace, {"y": seen})
    moved = TABLE & kept[:, None]
    np.testing.assert_array_equal(discarded["y"].mask, moved)
    np.testing.assert_array_equal(changed["y"], np.where(moved, y + 1, y * kept[:, None]))
    np.testing.assert_allclose(ratio, -0.5 * ((y + 1) ** 2 - y**2)[moved].sum(), rtol=1e-12)
    # a row that appears: what is given of it is weighed, the rest drawn
    more = Masked(jnp.asarray(y + 1), jnp.asarray(TABLE))
    grown, ratio, _ = seed(model.update)(KEY, trace, {"y": more}, jnp.ones(N, bool))
    was = -0.5 * (y**2)[kept].sum() - 3 * np.log(2 * np.pi)
    kept_now = TABLE | kept[:, None]
    now = np.where(TABLE, y + 1, y)
    log_p = -0.5 * now**2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(ratio, log_p[kept_now].sum() - was, rtol=1e-12)
    np.testing.assert_array_equal(grown["y"][kept_now], now[kept_now])


def test_a_part_of_an_element_is_refused():
    model = gen(lambda: jax.lax.map(lambda _: sample("y", dist.Normal(0.0, 1.0)), jnp.arange(3)))
    trace, _ = model.generate({"y": jnp.zeros(3)})
    with pytest.raises(InvalidArgument, match="a part of one element"):
        model.update(trace, {"y": At(0, Masked(1.0, jnp.asarray(True)))})


def test_leave_one_out_leaves_out_rows():
    """Of 3 rows of 3 elements, given y alone: the density of each row that is seen."""

    @gen
    def model():
        sample("z", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(0.0, 1.0).expand([N, N]).to_event(1))

    y = np.arange(9.0).reshape(N, N)
    target = Target(model, (), {"y": Masked(jnp.asarray(y), jnp.asarray(ROWS))})
    z = np.random.default_rng(0).normal(size=(2, 50))
    found = loo(Draws({"z": z}, target=target)).pointwise["y"]
    expected = np.where(ROWS[:, None], -0.5 * y**2 - 0.5 * np.log(2 * np.pi), np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "d, mask",
    [
        (dist.Dirichlet(jnp.ones((2, 3))), (2, 3)),  # in an event
        (dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)).expand([2]), (3,)),  # from the right
        (dist.Normal(0.0, 1.0).expand([2, 3]), (3,)),
        (dist.Normal(0.0, 1.0).expand([2, 3]), (2,)),
        (dist.Normal(0.0, 1.0).expand([2, 3]), (1, 3)),
    ],
)
def test_other_shapes_are_refused(d, mask):
    model = gen(lambda: sample("y", d))
    with pytest.raises(ShapeError, match=r'mask of "y" does not fit'):
        Target(model, (), {"y": Masked(jnp.zeros(d.shape()), jnp.ones(mask, bool))})
