"""Forecasts continue what was observed: means and deviations in closed form, by quadrature.

What is drawn is normal, and two nodes a draw are exact for its first two moments. The kind is a
past that is drawn anew where it is known; the sweep is over every construct that makes something
longer: loops, nested calls, combinators, plates, Python loops, growing capacities, masks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Draws
from inference.results.forecast import continued, goes_on
from inference.results.predictive import posterior_predictive
from ppl import Masked, Target, draw, errors, factor, gen, integrate, sample, scan, unfold

KEY = jax.random.key(0)
STEPS = {"static_argnames": "n"}
A, C, S, Q, R = 0.5, 1.0, 0.3, 0.4, 0.7
Y = jnp.array([2.0, -1.0, 3.0])
Z = jnp.array([0.5, 1.0, -2.0])


@gen(**STEPS)
def walk(n):
    s = sample("s", dist.HalfNormal(1.0))
    jax.lax.scan(lambda p, _: (sample("y", dist.Normal(p, s)), None), 0.0, None, length=n)


@gen
def step(before, x):
    y = sample("y", dist.Normal(C * x + A * before, S))
    return y, y


@gen
def nested(xs):
    """An AR(1) by the combinator, below two calls, beside a latent."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("series", gen(lambda: sample("inner", scan(step)(mu * 0.0, xs)))())


@gen(**STEPS)
def level(n):
    def one(z, _):
        z = sample("z", dist.Normal(z, Q))
        sample("y", dist.Normal(z, R))
        return z, None

    jax.lax.scan(one, 0.0, None, length=n)


@gen(**STEPS)
def apart(n):
    """States in one loop, data in a plate, and a second series that follows the first."""
    states = jax.lax.scan(lambda z, _: (sample("z", dist.Normal(z, Q)),) * 2, 0.0, None, length=n)
    ys = jax.vmap(lambda z: sample("y", dist.Normal(z, R)))(states[1])
    sample("w", dist.Normal(ys, S))


@gen(**STEPS)
def groups(n):
    mu = sample("mu", dist.Normal(0.0, 1.0))

    def group():
        b = sample("b", dist.Normal(mu, Q))
        sample("y", dist.Normal(b, R).expand([1]))

    jax.vmap(group, axis_size=n)()


@gen(**STEPS)
def many(n):
    """Two series side by side."""
    s = sample("s", dist.HalfNormal(1.0))

    def series(start):
        def one(p, _):
            return sample("y", dist.Normal(p, s)), None

        jax.lax.scan(one, start, None, length=n)

    jax.vmap(series)(jnp.zeros(2))


@gen(**STEPS)
def unrolled(n):
    y = sample("s", dist.HalfNormal(1.0))
    for i in range(n):
        y = sample(f"y{i}", dist.Normal(y, S))


@gen
def growing(length):
    s = sample("s", dist.HalfNormal(1.0))
    one = gen(lambda p, _: (sample("y", dist.Normal(p, s)), None))
    sample("u", unfold(one, 3)(length, 0.0))


def part(values, *seen):
    return Masked(jnp.asarray(values), jnp.array(seen))


def ar(start, steps, x=0.0):
    """Mean and deviation of each of so many steps of the AR(1) after `start`."""
    means, variances, mean, variance = [], [], start, 0.0
    for _ in range(steps):
        mean, variance = C * x + A * mean, A**2 * variance + S**2
        means.append(mean)
        variances.append(variance)
    return means, np.sqrt(variances)


XS = jnp.array([1.0, 0.0, -1.0, 0.0, 0.0])
TWO = jnp.array([[2.0, 1.0], [0.0, -3.0]])
U = {"u": {"y": part([4.0, 2.0, 0.0], True, True, False)}}
# of h more steps of a random walk in the state, seen with noise R
AHEAD = [np.sqrt(h * Q**2 + R**2) for h in (1, 2)]

# target, arguments, latents, address, then means and deviations of its last elements
CASES = {
    "random walk": (
        Target(walk, (3,), {"y": Y}), (5,), {"s": S},
        ("y",), [3.0, 3.0], [S, S * 2**0.5],
    ),
    "AR(1) in nested calls": (
        Target(nested, (XS[:3],), {"series": {"inner": {"y": Y}}}), (XS,), {"mu": 1.0},
        ("series", "inner", "y"), *ar(3.0, 2),
    ),
    "states that were drawn": (
        Target(level, (2,), {"y": Y[:2]}), (4,), {"z": Z[:2]},
        ("y",), [1.0, 1.0], AHEAD,
    ),
    "states go on": (
        Target(level, (2,), {"y": Y[:2]}), (4,), {"z": Z[:2]},
        ("z",), [1.0, 1.0], [Q, Q * 2**0.5],
    ),
    "a missing element": (
        Target(level, (2,), {"y": part(Y[:2], False, True)}), (3,), {"z": Z[:2]},
        ("y",), [0.5, -1.0, 1.0], [R, 0.0, AHEAD[0]],
    ),
    "observed in a plate": (
        Target(apart, (2,), {"y": Y[:2], "w": Y[:2]}), (3,), {"z": Z[:2]},
        ("w",), [1.0], [np.sqrt(Q**2 + R**2 + S**2)],
    ),
    "a new group": (
        Target(groups, (2,), {"y": Y[:2, None]}), (3,), {"mu": 1.5, "b": Z[:2]},
        ("y",), [1.5], [AHEAD[0]],
    ),
    "series side by side": (
        Target(many, (2,), {"y": TWO}), (3,), {"s": S},
        ("y",), [1.0, -3.0], [S, S],
    ),
    "a Python loop": (
        Target(unrolled, (2,), {"y0": 1.0, "y1": 4.0}), (4,), {"s": 0.5},
        ("y3",), [4.0], [S * 2**0.5],
    ),
    "room to grow": (
        Target(growing, (2,), U), (3,), {"s": S},
        ("u", "y"), [2.0], [S],
    ),
    "the end is missing": (
        Target(walk, (3,), {"y": part(Y, True, True, False)}), (4,), {"s": S},
        ("y",), [-1.0, -1.0], [S, S * 2**0.5],
    ),
}  # fmt: skip


SINGLE = ("states that were drawn", "AR(1) in nested calls")
BOTH = [(case, True) for case in CASES] + [(case, False) for case in SINGLE]


@pytest.mark.slow
@pytest.mark.parametrize("case, x64", BOTH)
def test_what_is_new_has_the_law_given_the_past(case, x64):
    target, args, latents, path, means, deviations = CASES[case]
    with jax.enable_x64(x64):
        if not x64:
            single = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
            args, latents, data = jax.tree.map(
                lambda x: x if isinstance(x, int) else single(x),
                (args, latents, target.observations),
            )
            before = jax.tree.map(lambda x: x if isinstance(x, int) else single(x), target.args)
            target = Target(target.model, before, data)
        program = continued(target, args)

        def moments():
            found = program(latents)
            y = found["values"][path]
            return y, y**2, {k: v.astype(y.dtype) for k, v in found["changed"].items()}

        first, second, changed = jax.jit(lambda: integrate(moments, nodes=2)())()
    eps = float(jnp.finfo(first.dtype).eps)
    new = (..., slice(-1, None)) if case == "series side by side" else slice(-len(means), None)
    mean, square = np.atleast_1d(first)[new].ravel(), np.atleast_1d(second)[new].ravel()
    # rounding: some hundred sums of numbers of this size
    np.testing.assert_allclose(mean, means, rtol=0, atol=1000 * eps)
    np.testing.assert_allclose(square - mean**2, np.square(deviations), rtol=0, atol=5000 * eps)
    assert not any(float(x) for x in changed.values())
    # and all that was observed is where it was
    for at, value in target.observed.items():
        value, mask = (value.value, value.mask) if isinstance(value, Masked) else (value, True)
        if at == path and np.ndim(value):
            old = np.asarray(first)[tuple(slice(0, n) for n in np.shape(value))]
            np.testing.assert_allclose(
                np.where(mask, old, 0), np.where(mask, value, 0), atol=1000 * eps
            )


def test_a_longer_series_is_a_forecast_unless_it_is_told_otherwise():
    target = Target(walk, (3,), {"y": jnp.array([10.0, 20.0, 30.0])})
    draws = Draws({"s": np.full((2, 3), 1e-3)}, target=target)
    found = posterior_predictive(KEY, draws, args=(5,))["y"]
    assert found.shape == (2, 3, 5) and (found[..., :3] == [10.0, 20.0, 30.0]).all()
    assert (abs(found[..., 3:] - 30.0) < 0.1).all()  # a hundred deviations
    anew = posterior_predictive(KEY, draws, args=(5,), past="redrawn")["y"]
    assert (abs(anew) < 0.1).all()
    assert (posterior_predictive(KEY, draws, past="kept")["y"] == [10.0, 20.0, 30.0]).all()
    assert (abs(posterior_predictive(KEY, draws)["y"]) < 0.1).all()  # a replicate


def test_steps_that_appear_in_a_growing_series_are_a_forecast():
    draws = Draws({"s": np.full((1, 2), 1e-3)}, target=Target(growing, (2,), U))
    assert (posterior_predictive(KEY, draws, args=(3,))["u"]["y"][..., :2] == [4.0, 2.0]).all()
    # with no step more the data are replicated
    assert (abs(posterior_predictive(KEY, draws, args=(2,))["u"]["y"]) < 0.1).all()


def test_states_go_on_where_the_data_are_drawn_anew():
    draws = Draws({"z": np.full((1, 2, 2), 50.0)}, target=Target(level, (2,), {"y": Y[:2]}))
    found = posterior_predictive(KEY, draws, args=(4,), past="redrawn")
    assert list(found) == ["y"] and (abs(found["y"] - 50.0) < 10 * AHEAD[1]).all()


@gen
def regression(x):
    b = sample("b", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(b * x, 1e-3))


def test_more_data_that_are_independent_are_all_new():
    target = Target(regression, (jnp.ones(2),), {"y": Y[:2]})
    draws = Draws({"b": np.full((1, 2), 3.0)}, target=target)
    assert not goes_on(target, (jnp.ones(4),))
    found = posterior_predictive(KEY, draws, args=(jnp.arange(4.0),))["y"]
    assert (abs(found - 3.0 * np.arange(4.0)) < 0.1).all()


@gen(**STEPS)
def backwards(n):
    one = lambda p, _: (sample("y", dist.Normal(p, 1.0)), None)  # noqa: E731
    jax.lax.scan(one, sample("s", dist.Normal(0.0, 1.0)), None, length=n, reverse=True)


@gen(**STEPS)
def by_length(n):
    s = sample("s", dist.HalfNormal(1.0))
    jax.lax.scan(lambda p, _: (sample("y", dist.Normal(p, s / n)), None), 0.0, None, length=n)


@gen(**STEPS)
def weighted(n):
    def one(p, _):
        y = sample("y", dist.Normal(p, 1.0))
        factor(-(y**2))
        return y, None

    jax.lax.scan(one, sample("s", dist.Normal(0.0, 1.0)), None, length=n)


@gen(**STEPS)
def noisy(n):
    def one(p, _):
        p = p + draw(dist.Normal(0.0, 1.0))
        return p, sample("y", dist.Normal(p, 1.0))

    jax.lax.scan(one, sample("s", dist.Normal(0.0, 1.0)), None, length=n)


@gen(**STEPS)
def process(n):
    s = sample("s", dist.HalfNormal(1.0))
    sample("y", dist.GaussianRandomWalk(s, num_steps=n))


OTHER = Target(nested, (XS[:3],), {"series": {"inner": {"y": Y}}})


@pytest.mark.parametrize(
    "target, args, says",
    [
        (Target(backwards, (3,), {"y": Y}), (4,), '"y" has another density'),
        (Target(by_length, (3,), {"y": Y}), (4,), "3 of 3 kept elements changed"),
        (OTHER, (XS + 1.0,), '"series", "inner", "y" has another density'),
        (Target(weighted, (3,), {"y": Y}), (4,), "factors add is not what they add"),
        (Target(noisy, (3,), {"y": Y}), (4,), "draws without addresses"),
        (Target(process, (3,), {"y": Y}), (4,), '"y" is one value'),
        (Target(walk, (3,), {"y": part(Y, True, False, True)}), (4,), '"y" has another density'),
    ],
    ids=["backwards", "length", "covariates", "factors", "draws", "one value", "missing within"],
)
def test_what_is_no_forecast_is_refused(target, args, says):
    latents = {name: np.ones((1, 2)) for (name,) in target.latents}
    with pytest.raises(errors.InvalidArgument, match=says) as found:
        posterior_predictive(KEY, Draws(latents, target=target), args=args)
    text = str(found.value)
    assert "test_forecasts.py" in text and 'past="redrawn"' in text
    assert len(text.splitlines()) <= 12


def test_what_is_shorter_has_no_past():
    draws = Draws({"s": np.ones((1, 2))}, target=Target(walk, (3,), {"y": Y}))
    with pytest.raises(errors.ShapeError, match='"y" has no room for its past'):
        posterior_predictive(KEY, draws, args=(2,), past="kept")
    assert posterior_predictive(KEY, draws, args=(2,))["y"].shape == (1, 2, 2)
    with pytest.raises(errors.InvalidArgument, match="kept or drawn anew"):
        posterior_predictive(KEY, draws, args=(4,), past="observed")
