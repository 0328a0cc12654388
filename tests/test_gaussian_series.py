"""Series of Gaussian states, of which several numbers are seen: as one dense normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference.gaussian import lanes
from inference.gaussian.chain import Chain
from inference.gaussian.evidence import evidence, smooth
from inference.gaussian.lanes import WAYS
from inference.gaussian.series import beliefs, chain_of_series, restored, restored_from
from ppl import PPLError

pytestmark = pytest.mark.slow

N = 7
"""Times: more than the blocks, three, and than a piece, four; and no multiple of them."""


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(lanes, "BLOCKS", 3)
    monkeypatch.setattr(lanes, "PIECE", 4)


def roots(rng, *shape, rank=None):
    """Covariances, of that rank."""
    half = rng.normal(size=shape)[..., :rank]
    return half @ np.swapaxes(half, -1, -2) / shape[-1]


def general(seed, d, p):
    """All different at all times, parts of rows missing, and one row whole."""
    rng = np.random.default_rng(seed)
    present = rng.uniform(size=(N, p)) < 0.7
    present[2] = False
    parts = {
        "mean": rng.normal(size=d),
        "covariance": roots(rng, d, d),
        "transition": rng.normal(size=(N, d, d)) / d**0.5,
        "noise": roots(rng, N, d, d),
        "observation": rng.normal(size=(N, p, d)),
        "variance": rng.uniform(0.2, 1.0, (N, p)),
        "offset": rng.normal(size=(N, d)),
        "level": rng.normal(size=(N, p)),
    }
    return parts, present, rng.normal(size=(N, p))


def changed(case, **parts):
    return {**case[0], **parts}, *case[1:]


def constant():
    """Nothing has an axis of times."""
    parts, present, values = general(1, 2, 2)
    alone = {k: x if k in ("mean", "covariance") else x[0] for k, x in parts.items()}
    return alone, present, values


def with_gaps():
    """Started at the first observation; then one state seen twice, and one moved without noise."""
    case = general(2, 2, 2)
    move, noise, offset = (case[0][k].copy() for k in ("transition", "noise", "offset"))
    for still in (0, 4):
        move[still], noise[still], offset[still] = np.eye(2), 0.0, 0.0
    noise[5] = 0.0
    return changed(case, transition=move, noise=noise, offset=offset)


def dependent(seed, d, p, rank=None):
    rng = np.random.default_rng(seed)
    return changed(general(seed, d, p), variance=roots(rng, N, p, p, rank=rank))


def singular():
    """A start that is known, noise of rank one in states of three, and of rank one in two seen."""
    rng = np.random.default_rng(3)
    case = dependent(3, 3, 2, rank=1)
    return changed(case, covariance=np.zeros((3, 3)), noise=roots(rng, N, 3, 3, rank=1))


def exact(seed, *shape):
    """No noise in what is seen, and some in each direction of the states."""
    case = general(seed, 2, 2)
    noise = case[0]["noise"] + np.eye(2)
    return changed(case, noise=noise, variance=np.zeros((N, *shape)))


CASES = {
    "one": general(0, 1, 1),
    "constant": constant(),
    "gaps": with_gaps(),
    "dependent": dependent(4, 3, 2),
    "one matrix": changed(general(5, 1, 2), variance=np.array([[[1.0, 0.8], [0.8, 0.9]]])),
    "many seen": dependent(6, 2, 6),
    "singular": singular(),
    "exact": exact(7, 2),
    "exact, as a matrix": exact(8, 2, 2),
}
each_case = pytest.mark.parametrize("name", CASES)
each_way = pytest.mark.parametrize("along", WAYS)


def fold(parts, values, present, along="scan"):
    return evidence(chain_of_series(N, **parts, present=present), values, along)


def joint(parts):
    """Mean and covariance of all states and then all that is seen, by products of matrices."""
    d, p = parts["observation"].shape[-1], parts["observation"].shape[-2]
    eye = jnp.eye((N + 1) * d).reshape(N + 1, d, -1)
    every = lambda x, rank: x if x.ndim > rank else jnp.broadcast_to(x, (N, *x.shape))  # noqa: E731
    move, noise, h = (every(parts[k], 2) for k in ("transition", "noise", "observation"))
    offset, level = (every(parts[k], 1) for k in ("offset", "level"))
    variance = parts["variance"]
    if variance.ndim < 3:
        variance = jax.vmap(jnp.diag)(every(variance, 1))
    means, by = [parts["mean"]], [eye[0]]
    for t in range(N):
        means.append(move[t] @ means[-1] + offset[t])
        by.append(move[t] @ by[-1] + eye[t + 1])
    kicks = jax.scipy.linalg.block_diag(parts["covariance"], *noise)
    seen = [h[t] @ by[t + 1] for t in range(N)]
    told = [h[t] @ means[t + 1] + level[t] for t in range(N)]
    everything = jnp.concatenate([*by, *seen])
    covariance = everything @ kicks @ everything.T
    at = (N + 1) * d
    error = jax.scipy.linalg.block_diag(*jnp.broadcast_to(variance, (N, p, p)))
    return jnp.concatenate([*means, *told]), covariance.at[at:, at:].add(error), at


def dense(parts, values, present):
    mean, covariance, at = joint(parts)
    seen = at + np.flatnonzero(present)
    law = dist.MultivariateNormal(mean[seen], covariance[np.ix_(seen, seen)])
    return law.log_prob(values.reshape(-1)[seen - at])


@pytest.fixture(scope="module")
def right():
    found = {}
    for name, (parts, present, values) in CASES.items():
        both = jax.value_and_grad(lambda p, y, here=present: dense(p, y, here), (0, 1))
        found[name] = jax.jit(both)(parts, values)
    return found


@each_way
@each_case
def test_evidence_and_every_gradient(name, along, right):
    """1e-10 in value, 1e-8 in all arguments: in singular noise, too, in all directions."""
    parts, present, values = CASES[name]
    unseen = np.where(present, values, np.nan)
    both = jax.jit(jax.value_and_grad(lambda p, y: fold(p, y, present, along), (0, 1)))
    found = both(parts, unseen)
    np.testing.assert_allclose(found[0], right[name][0], rtol=0, atol=1e-10)
    slopes, due = found[1], right[name][1]
    for key in due[0]:
        np.testing.assert_allclose(slopes[0][key], due[0][key], rtol=1e-8, atol=1e-8, err_msg=key)
    np.testing.assert_allclose(slopes[1], due[1], rtol=1e-8, atol=1e-8)


def conditioned(name):
    """Mean and covariance of all states, given what is present."""
    parts, present, values = CASES[name]
    mean, covariance, at = (np.asarray(x) for x in joint(parts))
    seen = at + np.flatnonzero(present)
    gain = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[seen, :at]).T
    shift = gain @ (values.reshape(-1)[seen - at] - mean[seen])
    return mean[:at] + shift, covariance[:at, :at] - gain @ covariance[seen, :at]


ALONG = [(name, "scan") for name in CASES]
ALONG += [(name, along) for name in ("dependent", "singular") for along in WAYS[1:]]


@pytest.mark.parametrize(("name", "along"), ALONG)
def test_beliefs_and_draws_are_the_conditional_law(name, along):
    """A draw is an affine map of normals: its matrix times itself is the *joint* covariance."""
    parts, present, values = CASES[name]
    chain = chain_of_series(N, **parts, present=present)
    mean, covariance = conditioned(name)
    d = parts["mean"].size
    found = jax.jit(lambda y: beliefs(chain, y, along))(np.where(present, values, np.nan))
    np.testing.assert_allclose(found.mean.reshape(-1), mean, atol=1e-9)
    alone = covariance.reshape(N + 1, d, N + 1, d)[np.arange(N + 1), :, np.arange(N + 1)]
    np.testing.assert_allclose(found.covariance, alone, atol=1e-9)
    normals = jnp.zeros((N + 1, d)), jnp.zeros(values.shape)

    def draw(states, noise):
        return restored_from(states, noise, chain, values, along).reshape(-1)

    at, by = jax.jit(lambda *z: (draw(*z), jax.jacobian(draw, (0, 1))(*z)))(*normals)
    factor = np.concatenate([x.reshape(mean.size, -1) for x in by], 1)
    np.testing.assert_allclose(at, mean, atol=1e-9)
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-9)


def test_a_keyed_draw_is_one_from_its_normals():
    """Twice 4000 independent standard normals give draws whose means stay within six errors: a
    false alarm in 1e-8 runs for each of the 24 numbers."""
    parts, present, values = CASES["dependent"]
    chain = chain_of_series(N, **parts, present=present)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.jit(jax.vmap(lambda key: restored(key, chain, values)))(keys).reshape(4000, -1)
    mean, covariance = conditioned("dependent")
    error = np.sqrt(np.diag(covariance) / 4000)
    assert np.all(np.abs(draws.mean(0) - mean) < 6 * error)


def test_numbers_one_by_one_are_a_row_of_one():
    """A chain of `(n,)` values, with a row h for each time and offsets, is the series of (n, 1)."""
    parts, present, values = general(9, 3, 1)
    series = chain_of_series(N, **parts, present=present)
    one = Chain(series.mean, series.covariance, series.transition, series.noise,
                series.observation[:, 0], series.variance[:, 0], series.present[:, 0],
                series.offset, series.level[:, 0])  # fmt: skip
    np.testing.assert_array_equal(evidence(one, values[:, 0]), evidence(series, values))
    for a, b in zip(smooth(one, values[:, 0]), smooth(series, values), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_start_at_the_first_observation_is_a_transition_that_does_nothing():
    """By hand: x_1 ~ N(1, 2) itself, y_1 = x_1 + v of variance 0.5."""
    eye = np.eye(1)
    still = {"transition": np.stack([eye, 3 * eye]), "noise": np.stack([0 * eye, eye])}
    chain = chain_of_series(
        2, np.ones(1), 2 * eye, **still, observation=eye, variance=np.full(1, 0.5)
    )
    covariance = np.array([[2.5, 6.0], [6.0, 9 * 2 + 1 + 0.5]])
    values = np.array([[0.3], [2.0]])
    due = dist.MultivariateNormal(np.array([1.0, 3.0]), covariance).log_prob(values[:, 0])
    np.testing.assert_allclose(evidence(chain, values), due, rtol=1e-13)


def exact_twice(gap):
    """The same state seen twice without noise in one row, and a third number with noise."""
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]])
    chain = chain_of_series(3, np.zeros(2), np.eye(2), np.eye(2), np.eye(2), rows,
                            np.array([0.0, 0.0, 0.3]))  # fmt: skip
    values = np.random.default_rng(0).normal(size=(3, 3))
    values[:, 1] = values[:, 0]
    values[1, 1] += gap
    return chain, values


@each_way
def test_what_is_certain_is_told_once_or_is_impossible(along):
    chain, values = exact_twice(0.0)
    both = jax.value_and_grad(lambda y: evidence(chain, y, along))
    rows, variance = chain.observation[1:], chain.variance[:, 1:]
    once = chain_of_series(
        3, chain.mean, chain.covariance, chain.transition, chain.noise, rows, variance
    )
    found, slope = both(values)
    np.testing.assert_allclose(found, evidence(once, values[:, 1:]), rtol=0, atol=1e-12)
    assert np.all(np.isfinite(slope))
    chain, values = exact_twice(1e-9)
    assert both(values)[0] == -np.inf


@each_way
def test_what_is_no_number_is_impossible_where_it_is_present(along):
    parts, present, values = CASES["dependent"]
    where = tuple(np.argwhere(present)[3])
    for bad in (np.nan, np.inf):
        wrong = values.copy()
        wrong[where] = bad
        found, slopes = jax.value_and_grad(lambda p, y=wrong: fold(p, y, present, along))(parts)
        assert found == -np.inf
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))


@each_way
def test_single_precision(along):
    """Value to 1e-5 of itself and gradient to 1e-3, as is promised of processes: 300 numbers of
    order one each lose some units of 6e-8, and their sum the root of as many."""
    rng = np.random.default_rng(0)
    n, d, p = 300, 3, 2
    parts = (rng.normal(size=d), roots(rng, d, d), 0.9 * np.eye(d), roots(rng, d, d),
             rng.normal(size=(n, p, d)), roots(rng, 1, p, p) + 0.1 * np.eye(p))  # fmt: skip
    values = rng.normal(size=(n, p))

    def both(dtype):
        cast = [np.asarray(x, dtype) for x in (*parts, values)]
        find = lambda *a: evidence(chain_of_series(n, *a[:-1]), a[-1], along)  # noqa: E731
        return jax.jit(jax.value_and_grad(find, range(7)))(*cast)

    single, double = both(np.float32), both(np.float64)
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
    for a, b in zip(single[1], double[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def test_many_series_at_once():
    parts, present, values = CASES["dependent"]
    more = np.stack([values, 2 * values])
    found = jax.vmap(lambda y: fold(parts, y, present))(more)
    np.testing.assert_allclose(found, [fold(parts, y, present) for y in more], rtol=1e-13)


WRONG = {
    "count": ({"count": 0}, "an int, 1 or more"),
    "mean": ({"mean": np.ones((2, 2))}, "real numbers of shape (2,)"),
    "covariance": ({"covariance": np.eye(3)}, "real numbers of shape (2, 2)"),
    "transition": (
        {"transition": np.ones((4, 2, 2))},
        "real numbers of shape (2, 2) or (7, 2, 2)",
    ),
    "observation": ({"observation": np.ones(2)}, "real numbers of shape (1, 2) or (7, 1, 2)"),
    "variance": ({"variance": np.eye(2)}, "real numbers of shape (2,) or (7, 2)"),
    "matrix": ({"variance": np.ones((3, 2, 2))}, "real numbers of shape (1, 2, 2) or (7, 2, 2)"),
    "words": ({"level": ["a", "b"]}, "real numbers of shape (2,) or (7, 2)"),
    "present": ({"present": np.ones(7)}, "bools of shape (7,) or (7, 2)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name):
    parts, present, _ = CASES["constant"]
    wrong, expected = WRONG[name]
    with pytest.raises(PPLError) as told:
        chain_of_series(**{"count": N, **parts, "present": present, **wrong})
    assert told.value.expected == expected
    assert "test_gaussian_series.py" in told.value.where[0]


def test_values_of_another_shape():
    parts, present, values = CASES["constant"]
    with pytest.raises(PPLError) as told:
        fold(parts, values[:, :1], present)
    assert told.value.expected == "shape (7, 2)"
