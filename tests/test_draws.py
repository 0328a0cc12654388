"""Draws beyond their arrays: what the warm-up did, derived quantities, files, and any size."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Draws,
    cycle,
    log_likelihood,
    loo,
    mh,
    nuts,
    plot_posterior,
    plot_predictive,
    plot_trace,
    posterior_predictive,
    prior_predictive,
    sample_posterior,
    to_datatree,
)
from ppl import Masked, Target, draw, errors, gen, sample

KEY = jax.random.key(0)
X = jnp.array([1.0, 2.0, 3.0])
Y = jnp.array([1.5, 2.5, 6.0])


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 2.0))
    k = sample("k", dist.Bernoulli(0.5))
    sample("y", dist.Normal(slope * x + k, 1.0))
    return {"end": slope * x[-1] + k}


TARGET = Target(line, (X,), {"y": Y})
SLOPE = np.random.default_rng(0).normal(size=(2, 30))
MADE = Draws({"slope": SLOPE, "k": (SLOPE > 0).astype(int)}, target=TARGET)


# -- the warm-up ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    kernel = cycle(nuts(TARGET, "slope"), mh(TARGET, "k"))
    return sample_posterior(KEY, TARGET, kernel, draws=40, warmup=200, chains=2, progress=False)


@pytest.mark.slow
def test_the_step_size_and_the_metric_are_told(found):
    for name in ("nuts/step_size", "nuts/inverse_mass"):
        assert found.tuned[name].shape[0] == 2
    sizes = found.stats["nuts/step_size"]
    assert sizes.shape == (2, 40) and (sizes == found.tuned["nuts/step_size"][:, None]).all()
    # the posterior variance of the slope given k, exactly, within the spread of its estimate
    # from the 75 positions of the window: sqrt(2 / 75) of it, and five times that
    variance = 1 / (1 / 4 + float((X**2).sum()))
    estimate = found.tuned["nuts/inverse_mass"].ravel()
    assert (abs(estimate / variance - 1) < 5).all() and (estimate > variance / 10).all()
    again = nuts(TARGET, "slope", step_size=float(found.tuned["nuts/step_size"][0]))
    assert again.parameters.step_size == found.tuned["nuts/step_size"][0]


def test_what_the_warm_up_did_is_told(found):
    assert found.tuned["warmup"] == 200
    windows = found.tuned["nuts/windows"]  # Stan's: they fill the warm-up without a gap
    assert windows[0, 0] == 0 and windows[-1, 1] == 199
    assert (windows[1:, 0] == windows[:-1, 1] + 1).all()
    accept, steps = found.tuned["nuts/warmup_accept"], found.tuned["nuts/warmup_steps"]
    assert ((accept > 0) & (accept < 1)).all() and (steps >= 200).all()
    assert found.tuned["mh k/warmup_accept" if "mh k/warmup_accept" in found.tuned
                       else "mh select('k')/warmup_accept"].shape == (2,)  # fmt: skip
    assert found.tuned["nuts/warmup_diverging"].dtype == float


# -- derived quantities ---------------------------------------------------------------------------


def test_what_is_derived_is_computed_at_each_draw():
    drawn = MADE.derive(
        made="retval", square=lambda c: c["slope"] ** 2, pair=lambda c: (c["k"], 2 * c["slope"])
    )
    k = (SLOPE > 0).astype(int)
    np.testing.assert_allclose(drawn["made", "end"], 3 * SLOPE + k, rtol=1e-12)
    np.testing.assert_allclose(drawn["square"], SLOPE**2, rtol=1e-12)
    np.testing.assert_allclose(drawn["pair", "1"], 2 * SLOPE, rtol=1e-12)
    assert list(drawn.derived) == ["made", "square", "pair"] and drawn["pair", "0"].dtype == int
    assert list(drawn.choices) == ["slope", "k"] and not MADE.derived
    # summarised and exported with the choices, and predictions do not see it
    assert drawn.summary()["square"]["mean"] == pytest.approx((SLOPE**2).mean())
    assert {"slope", "made.end", "square"} <= set(to_datatree(drawn)["posterior"])
    same = posterior_predictive(KEY, drawn)["y"] == posterior_predictive(KEY, MADE)["y"]
    assert same.all() and loo(drawn).elpd == loo(MADE).elpd
    # a number that does not depend on the draws is no chain that is stuck
    still = MADE.derive(one=lambda c: 1.0).verdict()
    assert all(finding.name != "one" for finding in still.findings)
    broken = MADE.derive(log=lambda c: jnp.log(c["slope"])).verdict()
    assert broken.check == "finite" and "derived from" in broken.findings[0].action


def test_a_return_value_that_is_random_takes_a_key():
    @gen
    def noisy():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        y = sample("y", dist.Normal(mu, 1.0).expand([2]))
        return y.sum() + 0 * draw(dist.Normal(0.0, 1.0))

    seen = Masked(jnp.array([50.0, 0.0]), jnp.array([True, False]))
    draws = Draws({"mu": np.zeros((1, 3))}, target=Target(noisy, (), {"y": seen}))
    with pytest.raises(errors.InvalidArgument, match="is random") as told:
        draws.derive(total="retval")
    assert "test_draws.py" in str(told.value) and "key" in str(told.value)
    total = draws.derive(KEY, total="retval")["total"]
    assert (abs(total - 50.0) < 10).all() and np.ptp(total) > 0  # ten deviations


@pytest.mark.parametrize(
    "named, kind, says",
    [
        ({"slope": lambda c: 1.0}, errors.InvalidArgument, 'name of the choice "slope"'),
        ({"a": 3.0}, errors.InvalidArgument, "no function"),
        ({"a": lambda c: float(c["slope"])}, errors.PythonControlFlow, "before it runs"),
        ({"a": lambda c: np.sort(c["slope"])}, errors.PythonControlFlow, "before it runs"),
        ({"a": lambda c: 1 if c["k"] else 0}, errors.PythonControlFlow, "before it runs"),
    ],
)
def test_what_cannot_be_derived_is_refused(named, kind, says):
    with pytest.raises(kind, match=says) as found:
        MADE.derive(**named)
    assert "test_draws.py" in str(found.value) and len(str(found.value).splitlines()) <= 12


# -- files ----------------------------------------------------------------------------------------


def bits(draws):
    trees = (draws.choices, draws.derived, dict(draws.stats), dict(draws.tuned))
    return [(str(p), x.dtype, x.shape, x.tobytes()) for p, x in jax.tree.leaves_with_path(trees)]


def test_draws_come_back_from_a_file_to_the_bit(found, tmp_path):
    kept = found.derive(made="retval")
    kept.save(tmp_path / "draws.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["draws.npz"]
    read = Draws.load(tmp_path / "draws.npz", TARGET)
    assert bits(read) == bits(kept) and read.target is TARGET and read.status == kept.status
    assert list(read.choices) == list(kept.choices) and repr(read) == repr(kept)
    assert str(read.summary()) == str(kept.summary())
    assert Draws.load(tmp_path / "draws.npz").target is None


def test_files_have_every_type_and_size(tmp_path):
    for i, dtype in enumerate([np.float32, np.int8, bool, jnp.bfloat16, np.uint32]):
        for shape in ((0, 0), (4, 0), (1, 1), (2, 3, 0), (2, 3, 2)):
            draws = Draws({"a": {"b": np.ones(shape, dtype)}}, {"accept": np.ones(shape[:2])})
            draws.save(tmp_path / f"{i}")
            assert bits(Draws.load(tmp_path / f"{i}")) == bits(draws)


def test_draws_of_another_target_are_refused_by_what_differs(tmp_path):
    @gen
    def steeper(x):
        slope = sample("slope", dist.Normal(0.0, 3.0))
        k = sample("k", dist.Bernoulli(0.5))
        sample("y", dist.Normal(slope * x + k, 1.0))

    MADE.save(tmp_path / "draws.npz")
    others = {
        "another model": Target(steeper, (X,), {"y": Y}),
        "other arguments": Target(line, (X + 1,), {"y": Y}),
        "other observations": Target(line, (X,), {"y": Y + 1}),
        "other arguments; other observations": Target(line, (X + 1,), {"y": Y + 1}),
    }
    for says, target in others.items():
        with pytest.raises(errors.CheckpointError, match="draws of another target") as found:
            Draws.load(tmp_path / "draws.npz", target)
        assert found.value.given == says and "draws.npz" in str(found.value)
    again = Target(gen(line.fn), (jnp.array(X),), {"y": np.array(Y)})  # the same, made anew
    assert Draws.load(tmp_path / "draws.npz", again).target is again


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    MADE.save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    for name in ("half", "other.npz", "none"):
        with pytest.raises(errors.CheckpointError, match="cannot be read") as found:
            Draws.load(tmp_path / name)
        assert str(tmp_path / name) in str(found.value)


# -- any size ------------------------------------------------------------------------------------


@gen
def sized(shape):
    a = sample("a", dist.Normal(0.0, 1.0).expand(shape))
    sample("y", dist.Normal(a.sum(), 1.0).expand([2]))
    return a.sum()


METHODS = {  # what takes draws; and whether none, or one, can be enough for it
    "repr": (repr, 0),
    "shape": (lambda d: d.shape, 0),
    "scalars": (lambda d: d.scalars(), 0),
    "summary": (lambda d: str(d.summary()), 0),
    "verdict": (lambda d: str(d.verdict()), 0),
    "divergences": (lambda d: d.divergences(), 0),
    "bfmi": (lambda d: d.bfmi(), 2),
    "predictive": (lambda d: posterior_predictive(KEY, d), 1),
    "forecast": (lambda d: posterior_predictive(KEY, d, past="kept"), 1),
    "log_likelihood": (lambda d: log_likelihood(d), 1),
    "loo": (lambda d: loo(d), 25),
    "derive": (lambda d: d.derive(total="retval"), 1),
    "export": (lambda d: to_datatree(d), 0),
    "trace": (lambda d: plot_trace(d), 1),
    "posterior": (lambda d: plot_posterior(d), 1),
}
SIZES = {
    "no draws": (4, 0), "one chain, no draws": (1, 0), "one draw": (1, 1),
    "one draw a chain": (4, 1), "two draws": (2, 2), "one chain": (1, 40), "usual": (2, 40),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_what_takes_draws_takes_any_number_of_them(method, size):
    """Sweep over methods and sizes; one draw a chain also of latents of two and no elements."""
    call, least = METHODS[method]
    chains, draws = SIZES[size]
    for shape in ((), (2,), (0,)) if size == "one draw a chain" else ((),):
        target = Target(gen(lambda shape=shape: sized.fn(shape)), (), {"y": Y[:2]})
        a = np.random.default_rng(1).normal(size=(chains, draws, *shape))
        stats = {"diverging": np.zeros((chains, draws), bool), "energy": np.ones((chains, draws))}
        stats["energy"][:, ::2] = 0.0
        made = Draws({"a": a}, stats, target=target)
        if chains * draws >= least and (method != "bfmi" or draws >= least):
            found = call(made)
            for leaf in jax.tree.leaves(found):
                if isinstance(leaf, np.ndarray) and method in ("predictive", "log_likelihood"):
                    assert leaf.shape[:2] == (chains, draws)
        else:
            with pytest.raises(errors.InvalidArgument) as refused:
                call(made)
            assert "test_draws.py" in str(refused.value)


def test_predictions_are_drawn_with_latents_of_no_elements():
    target = Target(gen(lambda: sized.fn((0,))), (), {"y": Y[:2]})
    drawn = Draws({"a": np.zeros((2, 3, 0))}, target=target)
    found = posterior_predictive(KEY, drawn)["y"]
    assert found.shape == (2, 3, 2) and len(np.unique(found)) == 12
    plot_predictive({"y": found}, target)
    assert prior_predictive(KEY, target, 1)["a"].shape == (1, 1, 0)
