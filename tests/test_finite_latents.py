"""Finite choices summed out of steps: against sums over all paths, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from scipy import stats

from inference import Enumerated, multinomial, particle_filter, rao_blackwell
from ppl import Masked, draw, factor, gen, integrate, law, repeat, sample, select
from ppl import seed as seeded
from ppl.errors import CannotEnumerate, InvalidArgument, ShapeError
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64
REGIMES = np.array([[0.7, 0.3], [0.4, 0.6]])
MOVES = np.array([[[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6]], [[0.1, 0.6, 0.3]] * 3])
MEANS = np.array([-1.0, 0.5, 2.0])
HEADS = np.array([0.9, 0.4, 0.2])
YS, COINS = np.array([0.3, 1.8, -0.4]), np.array([1, 0, 1])
INPUT = np.array([0.2, -0.1, 0.4])


@gen
def step(state, x):
    """Regimes, a state of three values, two bits beside it that are forgotten, a factor."""
    k, r = state
    r = sample("r", dist.Categorical(jnp.asarray(REGIMES)[r]))
    k = sample("k", dist.Categorical(jnp.asarray(MOVES)[r, k]))
    bits = sample("bits", dist.Bernoulli(jnp.array([0.3, 0.6])))
    factor(x * k * bits[0])
    sample("y", dist.Normal(jnp.asarray(MEANS)[k] + jnp.array([0.0, 1.0]) * bits, 0.8).to_event(1))
    sample("coin", dist.Bernoulli(jnp.asarray(HEADS)[k]))
    return (k, r), None


SUMMED = select("k", "bits")


def paths_of(steps, coins=True):
    """The mass of each path of regimes and states: the sum over all else, written out."""
    found = {}
    one = list(itertools.product(range(2), range(3)))
    for path in itertools.product(one, repeat=steps):
        mass, k, r = 1.0, 1, 0
        for t, (new_r, new_k) in enumerate(path):
            mass *= REGIMES[r, new_r] * MOVES[new_r, k, new_k]
            r, k = new_r, new_k
            total = 0.0
            for bits in itertools.product((0, 1), repeat=2):
                p = np.prod([q if b else 1 - q for b, q in zip(bits, (0.3, 0.6), strict=True)])
                mean = MEANS[k] + np.array([0.0, 1.0]) * bits
                density = stats.norm.pdf([YS[t], YS[t] + 1], mean, 0.8).prod()
                total += p * np.exp(INPUT[t] * k * bits[0]) * density
            mass *= total
            if coins:
                mass *= HEADS[k] if COINS[t] else 1 - HEADS[k]
        found[path] = mass
    return found


def data(steps):
    return {"y": jnp.stack([YS, YS + 1], 1)[:steps], "coin": jnp.asarray(COINS[:steps])}


@gen
def guess(state, x, observed):
    sample("r", dist.Bernoulli(jnp.where(observed["coin"] == 1, 0.4, 0.7)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"proposal": guess}], ids=["bootstrap", "guided"])
@pytest.mark.parametrize("n, steps", [(2, 3), (3, 2)])
def test_the_measure_of_regimes_and_probabilities_is_exact(n, steps, options):
    marginal, start = rao_blackwell(step, SUMMED, (1, 0), 0.1)
    assert list(marginal.sites(start, 0.1)) == [("r",), ("y",), ("coin",)]

    def measure():
        s = particle_filter(
            marginal, start, data(steps), n, xs=jnp.asarray(INPUT[:steps]), scheme=multinomial,
            threshold=0.9, **options,
        ).particles  # fmt: skip
        k, r = s.value.state
        here = (r[:, None, None] == jnp.arange(2)[:, None]) * jnp.exp(s.value.log_probs)[:, None]
        values = (k == jnp.arange(3)).all() / 1.0
        return values, (jnp.exp(s.log_weight)[:, None, None] * here).mean(0)

    expected = np.zeros((2, 3))
    for path, mass in paths_of(steps).items():
        expected[path[-1]] += mass
    values, found = jax.jit(integrate(measure), compiler_options=QUICK)()
    assert abs(values - 1) < EXACT
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


@pytest.mark.slow
def test_with_nothing_sampled_it_is_the_forward_algorithm():
    """A hidden Markov model of length 50: one number, whatever the key; and its gradient."""
    ys = np.random.default_rng(0).integers(0, 2, 50)

    def evidence(theta):
        @gen
        def hidden(k, _):
            k = sample("k", dist.Categorical(logits=theta + jnp.log(jnp.asarray(MOVES[0])[k])))
            sample("coin", dist.Bernoulli(jnp.asarray(HEADS)[k]))
            return k, None

        marginal, start = rao_blackwell(hidden, "k", 2)
        run = seeded(lambda: particle_filter(marginal, start, {"coin": jnp.asarray(ys)}, 1))
        return run(jax.random.key(0)).particles.log_weight[0]

    def forward(theta):
        moves = jax.nn.softmax(theta + jnp.log(MOVES[0]), -1)
        alpha, total = jnp.eye(3)[2], 0.0
        for y in ys:
            alpha = alpha @ moves * (HEADS if y else 1 - HEADS)
            total, alpha = total + jnp.log(alpha.sum()), alpha / alpha.sum()
        return total

    theta = jnp.array([0.3, -0.2, 0.1])
    ours, by_hand = (jax.value_and_grad(f) for f in (evidence, forward))
    for found, expected in zip(jax.jit(ours)(theta), by_hand(theta), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=50 * EXACT)


@gen
def switched(state, x):
    """A summed choice in one of two branches, which a sampled one takes; data in a third."""
    k, r = state
    r = sample("r", dist.Bernoulli(0.4))
    k = lax.cond(
        r == 1,
        lambda k: sample("k", dist.Categorical(jnp.asarray(MOVES)[0, k])),
        lambda k: 2 * sample("flip", dist.Bernoulli(0.3)),
        k,
    )
    lax.cond(x, lambda: sample("coin", dist.Bernoulli(jnp.asarray(HEADS)[k])), lambda: 0)
    return (k, r), None


@pytest.mark.slow
def test_branches_are_gone_through_and_missing_data_left_out():
    seen = jnp.array([True, False, True])
    marginal, start = rao_blackwell(switched, select("k", "flip"), (1, 0), True)

    def measure():
        ys = {"coin": Masked(jnp.asarray(COINS), seen)}
        s = particle_filter(marginal, start, ys, 2, xs=seen, scheme=multinomial).particles
        k, _ = s.value.state
        here = jnp.exp(s.value.log_probs)[..., None] * (k[..., None] == jnp.arange(3))
        return (jnp.exp(s.log_weight)[:, None] * here.sum(1)).mean(0)

    alpha = np.array([0.0, 1.0, 0.0])
    flips = np.array([[0.7, 0.0, 0.3]] * 3)
    for y, there in zip(COINS, np.asarray(seen), strict=True):
        alpha = alpha @ (0.4 * MOVES[0] + 0.6 * flips)
        alpha = alpha * (np.where(y, HEADS, 1 - HEADS) if there else 1)
    found = jax.jit(integrate(measure), compiler_options=QUICK)()
    np.testing.assert_allclose(found, alpha, rtol=0, atol=EXACT)


def test_what_is_drawn_from_a_mixture_has_its_law():
    """Enumerated when finite; sampled otherwise, by the right component (of 20,000 draws the
    counts in three bins within 5 standard deviations: a false alarm has probability below
    3 * 6e-7, and the key is fixed)."""

    @gen
    def coin(k, _):
        k = sample("k", dist.Categorical(jnp.asarray(MOVES)[0, k]))
        sample("coin", dist.Bernoulli(jnp.asarray(HEADS)[k]))
        sample("y", dist.Normal(10.0 * k, 1.0))
        return k, None

    marginal, start = rao_blackwell(coin, "k", 0)

    def tossed():
        trace, log_weight = marginal.generate({"y": 3.0}, start, None)
        return trace["coin"], jnp.exp(log_weight), jnp.exp(trace.retval[0].log_probs)

    found = law(tossed)()
    joint = MOVES[0, 0] * stats.norm.pdf(3.0, 10 * np.arange(3), 1)
    for (toss, weight, probs), mass in zip(
        zip(*found.values, strict=True), found.masses, strict=True
    ):
        p = MOVES[0, 0] * (HEADS if toss else 1 - HEADS)
        np.testing.assert_allclose(mass, p.sum(), rtol=0, atol=EXACT)
        both = joint * (HEADS if toss else 1 - HEADS)
        np.testing.assert_allclose(weight * mass, both.sum(), rtol=1e-12)
        np.testing.assert_allclose(probs, both / both.sum(), rtol=0, atol=EXACT)

    def drawn(key):
        return seeded(marginal.generate)(key, {"coin": 1}, start, None)[0]["y"]

    ys = jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), 20_000))
    counts = np.bincount(np.round(np.asarray(ys) / 10).astype(int), minlength=3)
    p = MOVES[0, 0] * HEADS / (MOVES[0, 0] @ HEADS)
    assert (abs(counts - 20_000 * p) < 5 * np.sqrt(20_000 * p * (1 - p))).all()


def test_impossible_data_are_evidence_zero():
    @gen
    def sure(k, _):
        k = sample("k", dist.Categorical(jnp.asarray(MOVES)[0, k]))
        sample("coin", dist.Bernoulli(jnp.ones(3)[k]))
        return k, None

    marginal, start = rao_blackwell(sure, "k", 0)
    ys = {"coin": jnp.array([1, 0, 1])}
    found = seeded(lambda: particle_filter(marginal, start, ys, 2))(jax.random.key(0))
    assert found.particles.log_weight.tolist() == [-np.inf] * 2
    assert not np.isnan(found.history.log_evidence).any()


def test_elements_that_the_state_does_not_need_are_summed_one_by_one():
    """Forty bits beside the state: a product of forty sums of two, for each value of the state."""

    @gen
    def noisy(k, _):
        k = sample("k", dist.Bernoulli(0.2 + 0.6 * k))
        bits = sample("bits", dist.Bernoulli(0.3).expand([40]))
        sample("y", dist.Normal(0.5 * k + bits, 1.0).to_event(1))
        return k, None

    marginal, start = rao_blackwell(noisy, select("k", "bits"), 1)
    ys = np.linspace(-1, 2, 40)
    trace, log_weight = jax.jit(marginal.generate, compiler_options=QUICK)({"y": ys}, start, None)
    each = [0.7 * stats.norm.pdf(ys, k / 2) + 0.3 * stats.norm.pdf(ys, k / 2 + 1) for k in (0, 1)]
    joint = np.array([0.2, 0.8]) * np.prod(each, 1)
    np.testing.assert_allclose(log_weight, np.log(joint.sum()), rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(trace.retval[0].log_probs), joint / joint.sum(), rtol=1e-12)


def test_copies_and_loops_are_gone_through():
    """Coins of a `repeat`, and of a loop whose state is summed out: sums written out."""

    @gen
    def tossed(k, _):
        k = sample("k", dist.Bernoulli(0.2 + 0.6 * k))
        sample("coins", repeat(gen(lambda: sample("c", dist.Bernoulli(0.3 + 0.5 * k))), 2)())

        def one(w, _):
            w = sample("w", dist.Bernoulli(0.1 + 0.7 * w))
            sample("y", dist.Bernoulli(0.2 + 0.6 * w))
            return w, None

        return lax.scan(one, k, None, length=3)[0], None

    marginal, start = rao_blackwell(tossed, select("k", "w"), 1)
    data = {"coins": {"c": jnp.array([1, 0])}, "y": jnp.array([1, 1, 0])}
    trace, log_weight = jax.jit(marginal.generate, compiler_options=QUICK)(data, start, None)
    alpha = np.array([0.2, 0.8]) * np.array([0.3 * 0.7, 0.8 * 0.2])
    for y in (1, 1, 0):
        seen = np.array([0.2, 0.8])
        alpha = alpha @ np.array([[0.9, 0.1], [0.2, 0.8]]) * (seen if y else 1 - seen)
    np.testing.assert_allclose(log_weight, np.log(alpha.sum()), rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(trace.retval[0].log_probs), alpha / alpha.sum(), rtol=1e-12)


def test_a_branch_may_leave_the_state_as_it_was():
    @gen
    def kept(state, _):
        k, moves = state
        moves = sample("moves", dist.Bernoulli(0.4))
        move = lambda k: sample("k", dist.Categorical(jnp.asarray(MOVES)[0, k]))  # noqa: E731
        k = lax.cond(moves == 1, move, lambda k: k, k)
        sample("coin", dist.Bernoulli(jnp.asarray(HEADS)[k]))
        return (k, moves), None

    marginal, start = rao_blackwell(kept, "k", (1, 0))
    ys = {"moves": jnp.array([1, 0, 1, 0]), "coin": jnp.array([1, 0, 0, 1])}
    run = seeded(lambda ys: particle_filter(marginal, start, ys, 1).particles)
    found = jax.jit(run, compiler_options=QUICK)(jax.random.key(0), ys)
    alpha = np.array([0.0, 1.0, 0.0])
    for moves, y in zip(*(np.asarray(ys[name]) for name in ("moves", "coin")), strict=True):
        alpha = alpha @ (0.4 * MOVES[0] if moves else 0.6 * np.eye(3))
        alpha = alpha * (HEADS if y else 1 - HEADS)
    probs, values = np.exp(found.value.log_probs[0]), found.value.state[0][0]
    np.testing.assert_allclose(np.bincount(values, probs, 3), alpha / alpha.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.log_weight[0], np.log(alpha.sum()), rtol=1e-12)


# -- what cannot be -----------------------------------------------------------------------------


def stepping(body):
    def step(state, _):
        k = sample("k", dist.Bernoulli(0.2 + 0.6 * state))
        return body(state, k)

    return gen(step)


def in_a_branch(state, k):
    lax.cond(k == 1, lambda: sample("y", dist.Bernoulli(0.5)), lambda: 0)
    return k, None


def put_out(state, k):
    seen = lambda c, _: (c + 0 * sample("y", dist.Poisson(1.0 + c)), c)  # noqa: E731
    return lax.scan(seen, k, None, length=2)[1][1], None


def with_a_gaussian(state, k):
    sample("z", dist.Normal(k, 1.0))
    return k, None


REFUSED = {
    "y": (stepping(lambda s, k: (k, 2 * k)), "k", "cannot hold"),
    "remembers": (stepping(lambda s, k: (jnp.maximum(s, k), None)), "k", "the step before"),
    "branch": (stepping(in_a_branch), "k", "a choice between branches"),
    "put out": (stepping(put_out), "k", "the next state, which depends on it"),
    "draw": (stepping(lambda s, k: (k + 0 * draw(dist.Bernoulli(0.1 + 0.5 * k)), None)), "k",
             "A draw does not depend"),
    "two kinds": (stepping(with_a_gaussian), select("k", "z"), "not summed out together"),
    "no pair": (stepping(lambda s, k: k), "k", "that is no pair"),
}  # fmt: skip


@pytest.mark.parametrize("model, names, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(model, names, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        rao_blackwell(model, names, 1)
    assert "test_finite_latents.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


def test_probabilities_of_another_number_are_refused():
    marginal, start = rao_blackwell(stepping(lambda s, k: (k, None)), "k", 1)
    with pytest.raises(ShapeError, match="not as many as its values"):
        marginal.sites(Enumerated(start.state, jnp.zeros(3)), None)
    assert marginal.sites(start, None) == {}


@pytest.mark.parametrize("names, says", [("a", "2\\^40 together"), ("bcd", "1024 x 1024 x 1024")])
def test_states_of_too_many_values_are_refused(names, says):
    """All elements of one array; and of arrays that are few enough each by itself."""
    size = 40 if names == "a" else 10

    @gen
    def many(state, _):
        del state
        return [sample(name, dist.Bernoulli(0.3).expand([size])) for name in names], None

    with pytest.raises(CannotEnumerate, match=says) as found:
        rao_blackwell(many, select(*names), [jnp.zeros(size, int)] * len(names))
    assert "test_finite_latents.py" in str(found.value)
