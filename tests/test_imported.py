"""NumPyro models as targets: what they observe keeps its address, what they derive its name."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density
from numpyro.infer.util import log_likelihood as numpyros

from inference import Draws, log_likelihood, posterior_predictive
from ppl import Masked, Target, errors, gen, sample, target_from_numpyro

KEY = jax.random.key(0)
X = jnp.array([0.5, -1.0, 2.0])
Y = jnp.array([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0]])
MASK = jnp.array([True, False, True])


def plates(x, y=None, z=None, count=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(x)):
        effect = numpyro.sample("effect", dist.Normal(mu, 1.0))
        with handlers.mask(mask=MASK):
            numpyro.sample("z", dist.Normal(effect, 2.0), obs=z)
        numpyro.sample("count", dist.Poisson(jnp.exp(effect)), obs=count)
        numpyro.sample("y", dist.Normal(effect[:, None] * jnp.ones(2), 1.0).to_event(1), obs=y)
    numpyro.deterministic("centred", effect - mu)


DATA = {"y": Y, "z": X + 1, "count": np.array([1, 0, 4])}
LATENTS = {"mu": 0.3, "effect": jnp.array([0.1, -0.2, 0.5])}


@pytest.fixture(scope="module")
def target():
    return target_from_numpyro(plates, (X,), DATA)


def test_the_density_is_numpyros(target):
    expected, _ = log_density(plates, (X,), DATA, {k: jnp.asarray(v) for k, v in LATENTS.items()})
    # twelve terms
    assert float(target.log_density(LATENTS)) == pytest.approx(float(expected), rel=1e-12)


def test_what_is_observed_keeps_its_address(target):
    assert set(target.latents) == {("mu",), ("effect",)}
    seen = target.observations["z"]
    assert isinstance(seen, Masked) and seen.mask.tolist() == MASK.tolist()
    assert target.observations["count"].tolist() == [1, 0, 4]
    assert target.labels.dims[("effect",)] == ("row",)
    assert target.labels.dims[("y",)] == ("row", None)


def test_likelihoods_and_predictions_are_of_its_sites(target):
    draws = Draws({name: np.asarray(x)[None, None] for name, x in LATENTS.items()}, target=target)
    ours = log_likelihood(draws)
    theirs = numpyros(plates, {k: jnp.asarray(v)[None] for k, v in LATENTS.items()}, X, **DATA)
    for name in ("y", "count"):
        if name == "y":  # its event is undone into independent elements here
            np.testing.assert_allclose(ours["y"][0, 0].sum(-1), theirs["y"][0], rtol=1e-12)
        else:
            np.testing.assert_allclose(ours[name][0], theirs[name], rtol=1e-12)
    seen = np.asarray(MASK)
    np.testing.assert_allclose(ours["z"][0, :, seen][:, 0], theirs["z"][0][seen], rtol=1e-12)
    assert np.isnan(ours["z"][0, 0, ~seen]).all()
    new = posterior_predictive(KEY, draws)
    assert {name: x.shape[2:] for name, x in new.items()} == {
        "z": (3,), "count": (3,), "y": (3, 2)}  # fmt: skip
    again = posterior_predictive(KEY, draws, args=(X, None, None, None))  # without the data
    assert (again["count"] == new["count"]).all()


def test_deterministic_sites_come_beside_the_choices(target):
    draws = Draws({name: np.asarray(x)[None, None] for name, x in LATENTS.items()}, target=target)
    made = draws.returned(KEY)
    np.testing.assert_allclose(made["centred"][0, 0], [-0.2, -0.5, 0.2], rtol=1e-12)
    with pytest.raises(errors.InvalidArgument, match="returns no dict"):
        model = gen(lambda: sample("mu", dist.Normal(0.0, 1.0)))
        Draws({"mu": np.zeros((1, 1))}, target=Target(model)).returned()


def series(y, scale=1.0):
    start = numpyro.sample("start", dist.Normal(0.0, 1.0))

    def step(before, seen):
        z = numpyro.sample("z", dist.Normal(before, 0.5))
        numpyro.deterministic("twice", 2 * z)
        numpyro.sample("y", dist.Normal(z, scale), obs=seen)
        return z, None

    scan(step, start, y)


def test_a_series_is_kept_and_what_is_deterministic_in_it_is_stacked():
    y = jnp.array([0.5, 1.0, -0.5, 0.0])
    latents = {"start": jnp.asarray(0.2), "z": jnp.array([0.1, 0.4, 0.0, -0.3])}
    target = target_from_numpyro(series, (y,))
    assert target.observations["y"].tolist() == y.tolist()
    expected, _ = log_density(series, (y,), {}, latents)
    assert float(target.log_density(latents)) == pytest.approx(float(expected), rel=1e-12)
    draws = Draws({name: np.asarray(x)[None, None] for name, x in latents.items()}, target=target)
    np.testing.assert_allclose(draws.returned()["twice"][0, 0], 2 * latents["z"], rtol=1e-12)
    alone = -0.5 * (y - latents["z"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
    np.testing.assert_allclose(log_likelihood(draws)["y"][0, 0], alone, rtol=1e-10)


def test_what_has_no_density_of_its_own_stays_a_factor():
    def weighted(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with handlers.scale(scale=2.0):
            numpyro.sample("twice", dist.Normal(mu, 1.0), obs=y)
        numpyro.sample("own", dist.Normal(0.0, 1.0), obs=mu)  # a value that is random
        numpyro.sample("once", dist.Normal(mu, 1.0), obs=2)  # whole numbers are real ones

    target = target_from_numpyro(weighted, (jnp.array([0.5, 1.0]),))
    assert list(target.observations) == ["once"]
    expected, _ = log_density(weighted, (jnp.array([0.5, 1.0]),), {}, {"mu": jnp.asarray(0.3)})
    assert float(target.log_density({"mu": 0.3})) == pytest.approx(float(expected), rel=1e-12)


def test_what_is_no_model_or_no_argument_is_told():
    for wrong in (
        lambda: target_from_numpyro(3),
        lambda: target_from_numpyro(plates, X),
        lambda: target_from_numpyro(plates, (X,), {"what": 1}),
        lambda: target_from_numpyro(plates, (X,), [1]),
    ):
        with pytest.raises(errors.InvalidArgument) as found:
            wrong()
        assert "test_imported.py" in str(found.value) and "fix:" in str(found.value)
