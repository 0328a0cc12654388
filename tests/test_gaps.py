"""Missing elements that others depend on are latent: densities, kernels, results.

Some lines over 400: each kernel that tells data from gaps is held to the exact posterior.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from inference import (
    Draws,
    Move,
    by_importance,
    cycle,
    elbo,
    elliptical_slice,
    gibbs,
    laplace,
    log_likelihood,
    loo,
    mean_field,
    metropolize,
    mh,
    mh_each,
    nuts,
    posterior_predictive,
    propose,
    sample_posterior,
    sleep,
    sum_out,
    temper,
    to_datatree,
    translate,
    unit,
    weigh,
)
from ppl import At, Masked, Target, gen, integrate, part_of_normal, sample, seed, select, vmap
from ppl.errors import InvalidArgument, ShapeError, SupportError

KEY = jax.random.key(0)
T, PHI, SIZE = 7, 0.8, 0.5
SERIES = np.array([0.3, -0.4, 9.0, 9.0, 0.7, 9.0, -0.2])
SEEN = np.array([True, True, False, False, True, False, True])


@gen
def autoregressive():
    start = sample("start", dist.Normal(0.0, 1.0))

    def step(before, _):
        y = sample("y", dist.Normal(PHI * before, SIZE))
        return y, None

    lax.scan(step, start, None, length=T)


def with_gaps(model, address, value, seen, more=None, args=()):
    return Target(model, args, {address: Masked(value, seen, impute=True), **(more or {})})


GAPS = with_gaps(autoregressive, "y", np.where(SEEN, SERIES, np.nan), SEEN)


def dense():
    """Mean and covariance of the start and the gaps given the data, by the dense joint law."""
    lags = np.eye(T + 1) - PHI * np.eye(T + 1, k=-1)
    precision = lags.T @ np.diag([1.0] + [1 / SIZE**2] * T) @ lags
    gone = np.concatenate([[True], ~SEEN])
    covariance = np.linalg.inv(precision[np.ix_(gone, gone)])
    return -covariance @ precision[np.ix_(gone, ~gone)] @ SERIES[SEEN], covariance


def test_the_density_is_that_of_the_dense_conditional_law():
    assert GAPS.latents == [("start",), ("y",)]
    assert GAPS.coordinates().shapes == {("start",): (), ("y",): (3,)}
    mean, covariance = dense()

    def expected(point):
        off = np.concatenate([point["start"][None], point["y"]]) - mean
        return 0.5 * off @ np.linalg.solve(covariance, off)

    points = [
        {"start": jnp.asarray(a), "y": jnp.asarray(b)}
        for a, b in [(0.1, [0.5, -1.0, 2.0]), (-1.2, [0.0, 0.3, 0.4])]
    ]
    found = [float(GAPS.potential(point)) for point in points]
    # quadratic forms of four numbers of order one
    assert found[1] - found[0] == pytest.approx(
        expected(points[1]) - expected(points[0]), abs=1e-12
    )
    latents, log_det = GAPS.constrain(points[0])
    np.testing.assert_array_equal(latents["y"], [0.3, -0.4, 0.5, -1.0, 0.7, 2.0, -0.2])
    assert float(log_det) == 0.0
    np.testing.assert_array_equal(GAPS.unconstrain(latents)["y"], points[0]["y"])


def test_chains_have_the_dense_posterior():
    """Means of 4 numbers within 7 standard errors (in the budget)."""
    draws = sample_posterior(KEY, GAPS, nuts(GAPS), draws=500, chains=4)
    mean, covariance = dense()
    rows = draws.summary()
    assert list(rows) == ["start", "y[3]", "y[4]", "y[6]"]
    for (name, row), m, variance in zip(rows.items(), mean, np.diag(covariance), strict=True):
        off = abs(row["mean"] - m)
        assert off < 7 * (variance / row["ess_bulk"]) ** 0.5, name
    np.testing.assert_array_equal(draws["y"][..., SEEN], np.broadcast_to(SERIES[SEEN], (4, 500, 4)))


@gen
def chain_of_coins():
    """Each depends on the one before, and what is heard on all."""
    share = sample("share", dist.Bernoulli(0.4))

    def step(before, _):
        x = sample("x", dist.Bernoulli(jnp.where(before == 1, 0.7, 0.2 + 0.3 * share)))
        return x, x

    xs = lax.scan(step, 1, None, length=4)[1]
    sample("heard", dist.Bernoulli(0.1 + 0.2 * xs.sum()))


COINS = with_gaps(
    chain_of_coins, "x", np.array([0, 0, 1, 0]), [True, False, True, False], {"heard": 1}
)


def coins_at(i):
    return {"share": i // 4, "x": jnp.stack([0, i // 2 % 2, 1, i % 2])}


@pytest.mark.parametrize(
    "kernel",
    [
        mh(COINS, "x"),
        mh(COINS, "share"),
        mh(COINS, select("share", "x")),
        gibbs(COINS, "x"),
        gibbs(COINS, "share"),
    ],
    ids=["mh x", "mh share", "mh", "gibbs x", "gibbs share"],
)
def test_kernels_leave_the_exact_posterior_of_finite_gaps(kernel):
    posterior = np.exp([float(COINS.log_density(coins_at(i))) for i in range(8)])
    posterior /= posterior.sum()

    def row(i):
        trace = COINS.at(coins_at(i))[0]

        def run():
            moved = kernel(trace)
            data = (moved["x"][0] == 0) & (moved["x"][2] == 1)
            at = 4 * moved["share"] + 2 * moved["x"][1] + moved["x"][3]
            return jnp.where(data, 1.0, jnp.nan) * jnp.zeros(8).at[at].set(1.0)

        return integrate(run)()

    k = np.asarray(jax.jit(jax.vmap(row))(jnp.arange(8)))
    np.testing.assert_allclose(k.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(posterior @ k, posterior, atol=1e-12)
    assert abs(k - np.eye(8)).max() > 0.01  # something moves


@gen
def ever_higher():
    """Each is between zero and one above the one before: the support moves."""

    def step(before, _):
        h = sample("h", dist.Uniform(0.0, before + 1.0))
        return h, None

    lax.scan(step, 1.0, None, length=4)
    sample("p", dist.Beta(2.0, 3.0).expand([3]).to_event(1))


BOUNDED = Target(
    ever_higher,
    (),
    {
        "h": Masked(np.array([0.5, 9.0, 0.3, 9.0]), [True, False, True, False], impute=True),
        "p": Masked(np.array([0.2, 9.0, 9.0]), [True, False, False], impute=True),
    },
)


@gen
def rows_of_coins():
    """Two rows of a plate: in each a coin depends on the one before, and is heard."""

    def row(stay):
        def step(before, _):
            x = sample("x", dist.Bernoulli(jnp.where(before == 1, stay, 0.2)))
            sample("heard", dist.Bernoulli(0.1 + 0.6 * x))
            return x, None

        lax.scan(step, 1, None, length=2)

    sample("row", vmap(gen(row))(jnp.array([0.7, 0.6])))


ROWS_OF_COINS = Target(
    rows_of_coins,
    (),
    {
        "row": {
            "x": Masked(np.array([[0, 0], [1, 0]]), [[True, False], [False, True]], impute=True),
            "heard": np.array([[1, 1], [0, 1]]),
        }
    },
)


@gen
def plate_of_coins():
    def one(share):
        x = sample("x", dist.Bernoulli(share))
        sample("heard", dist.Bernoulli(0.1 + 0.6 * x))

    sample("row", vmap(gen(one))(jnp.array([0.7, 0.6, 0.2])))


PLATE_OF_COINS = Target(
    plate_of_coins,
    (),
    {
        "row": {
            "x": Masked(np.array([0, 1, 0]), [False, True, False], impute=True),
            "heard": np.array([1, 1, 0]),
        }
    },
)
X = ("row", "x")
FLIP = gen(lambda x, i: sample("to", dist.Bernoulli(jnp.where(x == 1, 0.2, 0.5 + 0.1 * i))))


@pytest.mark.parametrize(
    "target, kernel",
    [
        (ROWS_OF_COINS, gibbs(ROWS_OF_COINS, X)),
        (ROWS_OF_COINS, mh(ROWS_OF_COINS, X)),
        (PLATE_OF_COINS, gibbs(PLATE_OF_COINS, X)),
        (PLATE_OF_COINS, mh_each(PLATE_OF_COINS, X)),
        (PLATE_OF_COINS, mh_each(PLATE_OF_COINS, X, FLIP)),
    ],
    ids=["gibbs in rows", "mh in rows", "gibbs", "mh_each", "mh_each by a proposal"],
)
def test_kernels_of_plates_leave_the_exact_posterior_of_their_gaps(target, kernel):
    """What a datum is proposed to be has no influence on the gaps beside it."""
    gap = target.gaps[X]
    first, second = zip(*np.nonzero(~gap.seen), strict=True)

    def at(i):
        x = jnp.asarray(gap.value)
        return {"row": {"x": x.at[first].set(i // 2).at[second].set(i % 2)}}

    posterior = np.exp([float(target.log_density(at(i))) for i in range(4)])
    posterior /= posterior.sum()

    def row(i):
        trace = target.at(at(i))[0]

        def run():
            x = kernel(trace)[X]
            data = jnp.all(jnp.where(gap.seen, x == jnp.asarray(gap.value), True))
            found = jnp.zeros(4).at[2 * x[first] + x[second]].set(1.0)
            return jnp.where(data, found, jnp.nan)

        return integrate(run)()

    k = np.asarray(jax.jit(jax.vmap(row))(jnp.arange(4)))
    np.testing.assert_allclose(posterior @ k, posterior, atol=1e-12)
    np.testing.assert_allclose(k.sum(1), 1.0, atol=1e-12)
    assert abs(k - np.eye(4)).max() > 0.01


def test_the_ellipse_leaves_data_where_they_are():
    """Two gaps of four numbers of which the sum is heard: means within 7 standard errors."""

    @gen
    def heard():
        x = sample("x", dist.Normal(0.3, 1.0).expand([4]))
        sample("w", dist.Normal(x.sum(), 1.0))

    data, seen = np.array([1.0, 9.0, -0.5, 9.0]), [True, False, True, False]
    target = with_gaps(heard, "x", data, seen, {"w": 2.0})
    draws = sample_posterior(KEY, target, elliptical_slice(target, "x"), draws=1000, chains=4)
    rows = draws.summary()
    assert list(rows) == ["x[2]", "x[4]"]
    for row in rows.values():  # precision [[2, 1], [1, 2]], information .3 + 1.5
        assert abs(row["mean"] - 0.6) < 7 * row["mcse_mean"]
    np.testing.assert_array_equal(draws["x"][..., 0], 1.0)


def test_what_cannot_tell_data_from_gaps_refuses_them():
    parts = with_gaps(vectors, "v", ROWS, KNOWN)
    trace = COVARIATES.at({"slope": 0.0, "x": jnp.ones(4)})[0]

    @gen
    def own(*_):
        sample("slope", dist.Normal(0.0, 1.0))
        sample("x", dist.Normal(jnp.zeros(4), 1.0))

    walk = Move(
        gen(lambda x: sample("by", dist.Normal(jnp.zeros(4), 1.0))),
        lambda x, u: ({**x, "x": x["x"] + u["by"]}, {"by": -u["by"]}),
    )
    whole = Target(regression, (), {"y": np.ones(4)})
    same = gen(lambda x: None)
    for attempt in (
        lambda: mh_each(ROWS_OF_COINS, X),
        lambda: elliptical_slice(parts, "v"),
        lambda: propose(COVARIATES, own),
        lambda: seed(metropolize(walk, COVARIATES))(KEY, trace),
        lambda: weigh(walk, COVARIATES, whole),
        lambda: translate(whole, COVARIATES, same, lambda x, u: (x, u), same),
        lambda: seed(elbo(COVARIATES, own))(KEY),
        lambda: seed(elbo(COVARIATES, own, analytic=True))(KEY),
        lambda: seed(sleep(COVARIATES, own))(KEY, {"x": jnp.ones(4), "y": jnp.ones(4)}),
        lambda: seed(lambda: by_importance(3, own)(COVARIATES)(unit()))(KEY),
        lambda: temper(COVARIATES, 0.5),
    ):
        with pytest.raises(InvalidArgument):
            attempt()
    moved = Move(
        gen(lambda x: sample("by", dist.Normal(0.0, 1.0))),
        lambda x, u: ({**x, "slope": x["slope"] + u["by"]}, {"by": -u["by"]}),
    )
    changed = seed(metropolize(moved, COVARIATES))(KEY, trace)  # of what has no gaps
    np.testing.assert_array_equal(changed["x"], trace["x"])


def test_guides_made_of_a_target_are_of_its_gaps_alone():
    """Where the posterior is normal, Laplace's guide is it: each draw of the bound is exact."""
    lags = np.eye(T + 1) - PHI * np.eye(T + 1, k=-1)
    whole = np.linalg.inv(lags.T @ np.diag([1.0] + [1 / SIZE**2] * T) @ lags)[1:, 1:]
    part, y = whole[np.ix_(SEEN, SEEN)], SERIES[SEEN]
    exact = -0.5 * y @ np.linalg.solve(part, y) - 0.5 * np.linalg.slogdet(2 * np.pi * part)[1]
    guide, parameters = laplace(GAPS)
    bound = jax.jit(seed(elbo(GAPS, guide)))
    found = [float(bound(jax.random.key(i), parameters)) for i in range(3)]
    # the mode is found by Newton's method to a gradient of 1e-6 at worst
    np.testing.assert_allclose(found, exact, atol=1e-6)
    wide, start = mean_field(GAPS)
    below = seed(elbo(GAPS, wide))
    assert np.mean([float(below(jax.random.key(i), start)) for i in range(20)]) < exact


def test_one_element_of_a_series_is_changed_unless_it_is_a_datum():
    old = COINS.at(coins_at(0))[0]
    for i, moves in enumerate(~np.array(COINS.gaps["x",].seen)):
        new, weight, _ = COINS.update(old, {"x": At(i, 1 - old["x"][i])})
        np.testing.assert_array_equal(new["x"] != old["x"], moves & (np.arange(4) == i))
        assert float(weight) == pytest.approx(
            float(COINS.log_density(COINS.choices(new)) - COINS.log_density(coins_at(0))), abs=1e-12
        )


def test_supports_that_move_and_events_of_independent_elements_have_their_jacobians():
    z = {"h": jnp.array([0.2, -0.7]), "p": jnp.array([0.4, 1.1])}

    def flat(z):
        latents, _ = BOUNDED.constrain(z)
        return jnp.concatenate([latents["h"][jnp.array([1, 3])], latents["p"][1:]])

    jacobian = jax.jacfwd(flat)(z)
    square = jnp.concatenate([jacobian["h"], jacobian["p"]], 1)
    latents, log_det = BOUNDED.constrain(z)
    assert float(log_det) == pytest.approx(np.linalg.slogdet(square)[1], abs=1e-12)
    h, p = np.asarray(latents["h"]), np.asarray(latents["p"])
    before = np.concatenate([[1.0], h[:-1]])
    expected = -np.log(before + 1).sum() + np.log(12 * p * (1 - p) ** 2).sum()
    assert float(-BOUNDED.potential(z) - log_det) == pytest.approx(expected, abs=1e-12)
    back = BOUNDED.unconstrain(latents)
    for name in z:  # a logarithm and an exponential
        np.testing.assert_allclose(back[name], z[name], atol=1e-14)


# -- parts of normal vectors -----------------------------------------------------------------

ROOT = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.5, 1.2]])
COVARIANCE = ROOT @ ROOT.T
KNOWN = np.array([[True, False, True], [False, True, False]])
ROWS = np.array([[0.4, 9.0, -1.0], [9.0, 0.7, 9.0]])


@gen
def vectors():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    law = dist.MultivariateNormal(jnp.full(3, mu), COVARIANCE)
    jax.vmap(lambda _: sample("v", law))(jnp.arange(2))


def marginal(mu):
    total = -0.5 * mu**2 - 0.5 * np.log(2 * np.pi)
    for row, known in zip(ROWS, KNOWN, strict=True):
        off, part = row[known] - mu, COVARIANCE[np.ix_(known, known)]
        total -= 0.5 * off @ np.linalg.solve(part, off)
        total -= 0.5 * np.linalg.slogdet(2 * np.pi * part)[1]
    return total


def test_part_of_a_normal_vector_has_its_marginal():
    target = Target(vectors, (), {"v": Masked(np.where(KNOWN, ROWS, np.nan), KNOWN)})
    assert float(target.log_density({"mu": 0.3})) == pytest.approx(marginal(0.3), abs=1e-12)
    trace, weight = seed(lambda: target.generate({"mu": 0.3}))(KEY)
    assert float(weight) == pytest.approx(marginal(0.3), abs=1e-12)
    np.testing.assert_array_equal(trace["v"][KNOWN], ROWS[KNOWN])
    slope = jax.grad(lambda mu: target.log_density({"mu": mu}))(0.3)
    step = 1e-5  # the density is quadratic: a central difference rounds, and no more
    assert float(slope) == pytest.approx(
        (marginal(0.3 + step) - marginal(0.3 - step)) / (2 * step), abs=1e-9
    )
    draws = Draws({"mu": np.full((4, 100), 0.3)}, target=target)
    each = log_likelihood(draws)["v"][0, 0]
    assert each.sum() == pytest.approx(marginal(0.3) - float(dist.Normal(0, 1).log_prob(0.3)))


def test_what_is_missing_of_a_vector_is_drawn_given_the_rest():
    """It is affine in a draw of the whole vector: its mean and covariance are exact."""
    law, known = dist.MultivariateNormal(jnp.full(3, 0.3), COVARIANCE), KNOWN[0]
    value = jnp.asarray(ROWS[0])

    def complete(drawn):
        return part_of_normal.completed(law, value, jnp.asarray(known), drawn)[~known]

    cross = COVARIANCE[np.ix_(~known, known)] @ np.linalg.inv(COVARIANCE[np.ix_(known, known)])
    mean = 0.3 + cross @ (ROWS[0][known] - 0.3)
    np.testing.assert_allclose(complete(law.loc), mean, atol=1e-12)
    slope = np.asarray(jax.jacfwd(complete)(law.loc))
    left = COVARIANCE[np.ix_(~known, ~known)] - cross @ COVARIANCE[np.ix_(known, ~known)]
    np.testing.assert_allclose(slope @ COVARIANCE @ slope.T, left, atol=1e-12)


def test_parts_of_vectors_that_are_imputed_are_redrawn_given_the_rest():
    """w = log p(new) - log p(old) less the densities of what is redrawn, forward and back."""
    target = with_gaps(vectors, "v", ROWS, KNOWN)
    assert target.coordinates().shapes["v",] == (3,)
    old = target.at({"mu": 0.3, "v": jnp.ones((2, 3))})[0]
    new, weight, _ = seed(target.regenerate)(KEY, old, "v")
    np.testing.assert_array_equal(new["v"][KNOWN], ROWS[KNOWN])
    assert not np.any(new["v"][~KNOWN] == 1.0)
    # both kept parts have one marginal density: the ratio of joint and conditional densities
    assert float(weight) == pytest.approx(0.0, abs=1e-12)
    both, ratio, _ = seed(target.regenerate)(KEY, old, ("mu",))
    assert float(ratio) == pytest.approx(
        float(both.score - old.score)
        - float(dist.Normal(0, 1).log_prob(both["mu"]) - dist.Normal(0, 1).log_prob(0.3)),
        abs=1e-12,
    )


# -- exact filters ---------------------------------------------------------------------------


@gen
def seen_with_noise(noise):
    def step(z, _):
        z = sample("z", dist.Normal(PHI * z, noise))
        sample("y", dist.Normal(z, SIZE))
        return z, None

    lax.scan(step, 0.0, None, length=T)


def test_what_a_summed_model_lacks_is_left_out():
    """The density is the dense marginal, without noise between keys."""
    quiet = sum_out(seen_with_noise, "z")
    ys = Masked(np.where(SEEN, SERIES, np.nan), SEEN)
    target = Target(quiet, (0.7,), {"y": ys})
    lags = np.eye(T) - PHI * np.eye(T, k=-1)
    whole = np.linalg.inv(lags.T @ lags / 0.49) + SIZE**2 * np.eye(T)
    part, y = whole[np.ix_(SEEN, SEEN)], SERIES[SEEN]
    exact = -0.5 * y @ np.linalg.solve(part, y) - 0.5 * np.linalg.slogdet(2 * np.pi * part)[1]
    assert float(target.log_density({})) == pytest.approx(exact, abs=1e-12)
    found = [float(seed(target.generate)(jax.random.key(i))[1]) for i in range(3)]
    assert found == pytest.approx([exact] * 3, abs=1e-12)

    def density(noise):
        return Target(quiet, (noise,), {"y": ys}).log_density({})

    def left_out(noise):
        gone = sum_out(seen_with_noise, "z", missing={"y": jnp.asarray(~SEEN)})
        return gone.assess({"y": jnp.asarray(np.where(SEEN, SERIES, 0.0))}, noise)[0]

    pair = jax.value_and_grad(density)(0.7), jax.value_and_grad(left_out)(0.7)
    np.testing.assert_allclose(*pair, atol=1e-12)
    more = sum_out(seen_with_noise, "z", missing={"y": jnp.arange(T) == 0})
    both = Target(more, (0.7,), {"y": ys}).log_density({})
    fewer = Masked(ys.value, SEEN & (np.arange(T) > 0))
    assert float(both) == float(Target(quiet, (0.7,), {"y": fewer}).log_density({}))


# -- results ---------------------------------------------------------------------------------


@gen
def regression():
    slope = sample("slope", dist.Normal(0.0, 1.0))
    x = sample("x", dist.Normal(0.0, 1.0).expand([4]))
    sample("y", dist.Normal(slope * x, 1.0))


COVARIATES = with_gaps(
    regression, "x", np.array([1.0, 0.0, -1.0, 0.5]), [True, False, True, True],
    {"y": np.array([0.5, 1.0, -0.2, 0.1])},
)  # fmt: skip


def imputed_draws():
    random = np.random.default_rng(0)
    x = np.broadcast_to([1.0, 0.0, -1.0, 0.5], (4, 200, 4)).copy()
    x[..., 1] = random.normal(size=(4, 200))
    return Draws({"slope": random.normal(size=(4, 200)), "x": x}, target=COVARIATES)


def test_results_tell_of_what_is_missing():
    draws = imputed_draws()
    assert list(draws.summary()) == ["slope", "x[2]"] and list(draws.scalars()) == ["slope", "x[2]"]
    found = log_likelihood(draws)
    x, y = draws["x"], np.array([0.5, 1.0, -0.2, 0.1])
    means = draws["slope"][..., None] * x
    half_log_tau = 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found["y"], -0.5 * (y - means) ** 2 - half_log_tau, atol=1e-12)
    assert np.isnan(found["x"][..., 1]).all()  # no datum
    assert loo(draws).n == 7
    anew = posterior_predictive(KEY, draws)
    assert len(np.unique(anew["x"][..., 0])) == 800  # data are predicted, too
    tree = to_datatree(draws)
    assert tree["posterior"]["x"].shape == (4, 200, 4)
    np.testing.assert_array_equal(tree["observed_data"]["x_observed"], [True, False, True, True])


def test_draws_are_saved_and_chains_begun_with_gaps(tmp_path):
    draws = imputed_draws()
    draws.save(tmp_path / "draws.npz")
    again = Draws.load(tmp_path / "draws.npz", COVARIATES)
    np.testing.assert_array_equal(again["x"], draws["x"])
    some = sample_posterior(
        KEY, COVARIATES, mh(COVARIATES, "slope"), draws=2, warmup=0, chains=1,
        initial={"x": np.full(4, 3.0)},
    )  # fmt: skip
    np.testing.assert_array_equal(some["x"][0, 0], [1.0, 3.0, -1.0, 0.5])


def test_a_mask_without_gaps_observes_all():
    target = with_gaps(regression, "x", np.ones(4), np.ones(4, bool))
    assert target.latents == [("slope",), ("y",)]


def test_targets_of_equal_gaps_share_their_structure():
    one, other = (
        with_gaps(regression, "x", np.full(4, v), [True, False, True, True]) for v in (1.0, 2.0)
    )
    another = with_gaps(regression, "x", np.ones(4), [True, True, True, False])
    structure = jax.tree.structure
    assert structure(one) == structure(other) != structure(another)
    rows = jax.tree.map(lambda *x: jnp.stack(x), one, other)
    density = jax.vmap(lambda t: t.log_density({"slope": 0.5, "x": jnp.zeros(4), "y": jnp.ones(4)}))
    alone = [
        t.log_density({"slope": 0.5, "x": jnp.zeros(4), "y": jnp.ones(4)}) for t in (one, other)
    ]
    np.testing.assert_allclose(density(rows), alone, rtol=1e-14)


def test_errors_tell_what_may_be_done():
    with pytest.raises(InvalidArgument, match="impute=True"):  # what others depend on
        Target(
            autoregressive, (), {"y": Masked(SERIES, SEEN)}
        ).log_density({"start": 0.0})  # fmt: skip
    with pytest.raises(InvalidArgument, match="traced"):
        jax.jit(lambda seen: with_gaps(regression, "x", jnp.ones(4), seen))(jnp.ones(4, bool))
    with pytest.raises(InvalidArgument, match="whole array"):
        trace = COVARIATES.at({"slope": 0.0, "x": jnp.ones(4)})[0]
        COVARIATES.update(trace, {"x": Masked(jnp.ones(4), jnp.ones(4, bool))})
    with pytest.raises(InvalidArgument, match="yes or no"):
        Target(regression, (), {"x": Masked(np.ones(4), [True] * 4, impute="yes")})
    with pytest.raises(ShapeError, match="the whole array"):
        GAPS.log_density({"start": 0.0, "y": jnp.zeros(3)})
    assert "impute=True" in repr(GAPS)
    with pytest.raises(SupportError, match="not a number"):
        with_gaps(regression, "x", np.full(4, np.nan), [True, False, True, True])

    @gen
    def sometimes():
        b = sample("b", dist.Bernoulli(0.5))
        lax.cond(
            b == 1, lambda: sample("x", dist.Normal(0.0, 1.0).expand([2])), lambda: jnp.ones(2)
        )

    with pytest.raises(InvalidArgument, match="not always there"):
        with_gaps(sometimes, "x", np.ones(2), [True, False])


def test_what_is_traced_of_a_cycle_is_moved_by_each():
    """Gradients move the numbers, enumeration the coins."""

    @gen
    def both():
        k = sample("k", dist.Bernoulli(0.3).expand([3]))
        sample("x", dist.Normal(1.0 * k, 0.5))

    target = Target(
        both,
        (),
        {
            "k": Masked([1, 0, 0], [True, False, False], impute=True),
            "x": Masked(np.array([1.0, 0.2, 0.0]), [True, True, False], impute=True),
        },
    )
    draws = sample_posterior(
        KEY, target, cycle(nuts(target, "x"), gibbs(target, "k")), draws=500, chains=4
    )
    odds = 0.3 / 0.7 * np.exp(-0.5 * ((0.2 - 1) ** 2 - 0.2**2) / 0.25)
    exact = {"k[2]": odds / (1 + odds), "k[3]": 0.3, "x[3]": 0.3}
    rows = draws.summary()
    assert rows.keys() == exact.keys()
    for name, row in rows.items():
        assert abs(row["mean"] - exact[name]) < 7 * row["mcse_mean"], name
