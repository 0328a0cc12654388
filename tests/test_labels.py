"""Labelled dimensions: checked where they are given, and carried to what comes of the draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray

from inference import (
    Draws,
    Particles,
    log_likelihood,
    loo,
    mh,
    posterior_predictive,
    prior_predictive,
    sample_posterior,
    to_datatree,
)
from inference.targets.temper import temper
from ppl import Masked, Target, errors, gen, sample

KEY = jax.random.key(0)
SCHOOLS = ["Choate", "Deerfield", "Andover"]


@gen(static_argnames="n")
def inner(mu, n):
    jax.vmap(lambda s: sample("theta", dist.Normal(mu, s).expand([2])))(jnp.ones(n))


@gen(static_argnames="n")
def model(n):
    """A choice of its own shape in a loop, below a call; a series; and an event."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("sub", inner(mu, n))
    jax.lax.scan(lambda x, _: (sample("y", dist.Normal(x, 1.0)), None), mu, None, length=n)
    sample("v", dist.MultivariateNormal(jnp.full((n, 2), mu), jnp.eye(2)))


DIMS = {"sub": {"theta": ("school", "side")}, "y": ("school",), "v": ("school", "side")}
COORDS = {"school": SCHOOLS, "side": [0.5, 1.5]}
DATA = {"y": jnp.arange(3.0), "v": jnp.ones((3, 2))}
TARGET = Target(model, (3,), DATA, dims=DIMS, coords=COORDS)
RANDOM = np.random.default_rng(0)
LATENTS = {"mu": RANDOM.normal(size=(2, 20)), "sub": {"theta": RANDOM.normal(size=(2, 20, 3, 2))}}


@pytest.fixture(scope="module")
def draws():
    made = Draws(LATENTS, target=TARGET)
    return made.derive(
        effect=lambda latents: latents["sub"]["theta"].sum(1), dims={"effect": ("school",)}
    )


def test_elements_are_called_by_their_labels(draws):
    names = list(draws.scalars())
    assert names[:3] == ["mu", "sub/theta[Choate,0.5]", "sub/theta[Choate,1.5]"]
    assert names[-1] == "effect[Andover]"
    assert (
        draws.summary()["sub/theta[Andover,0.5]"]["mean"] == draws["sub", "theta"][..., 2, 0].mean()
    )
    assert draws["effect"][0, 0, 1] == draws["sub", "theta"][0, 0, 1].sum()
    assert not any("[Choate" in name for name in Draws(LATENTS).scalars())
    assert temper(TARGET, 0.5).labels.names(("y",), (3,))[0] == "y[Choate]"


def test_a_run_carries_the_labels_of_its_target():
    flat = gen(lambda: sample("x", dist.Bernoulli(0.5).expand([3])))
    target = Target(flat, (), dims={"x": ("school",)}, coords={"school": SCHOOLS})
    run = sample_posterior(KEY, target, mh(target, "x"), draws=2, warmup=0, chains=1)
    assert list(run.scalars()) == [f"x[{name}]" for name in SCHOOLS]
    assert run.dims == {"x": ("school",)} and run.coords["school"].tolist() == SCHOOLS


def test_they_are_in_all_groups_of_the_export(draws, tmp_path):
    new = posterior_predictive(KEY, draws)
    tree = to_datatree(
        draws,
        posterior_predictive=new,
        log_likelihood=log_likelihood(draws),
        prior=prior_predictive(KEY, TARGET, 5),
    )
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as read:
        for group in ("posterior", "prior"):
            theta = read[group]["sub.theta"]
            assert theta.dims == ("chain", "draw", "school", "side")
            assert theta["school"].values.tolist() == SCHOOLS
        assert read["posterior"]["effect"].dims == ("chain", "draw", "school")
        chosen = read["posterior"]["sub.theta"].sel(school="Deerfield", side=1.5).values
        assert (chosen == LATENTS["sub"]["theta"][:, :, 1, 1]).all()
        assert read["observed_data"]["v"].dims == ("school", "side")
        assert read["observed_data"]["y"].sel(school="Andover").item() == 2.0
        assert read["posterior_predictive"]["v"].dims == ("chain", "draw", "school", "side")
        assert read["log_likelihood"]["v"].dims == ("chain", "draw", "school")  # an event is one
        assert read["prior_predictive"]["y"].dims == ("chain", "draw", "school")


def test_predictions_of_other_things_take_labels_of_their_own(draws):
    other = posterior_predictive(KEY, draws, args=(4,), past="redrawn")
    with pytest.raises(errors.ShapeError, match='"school" of "y" has another length') as found:
        to_datatree(draws, posterior_predictive=other)
    assert 'coords={"school": [...]}), 4 of them' in str(found.value)
    tree = to_datatree(draws, posterior_predictive=other, coords={"school": [1, 2, 3, 4]})
    assert tree["posterior_predictive"]["school"].values.tolist() == [1, 2, 3, 4]
    assert tree["posterior"]["school"].values.tolist() == SCHOOLS
    with pytest.raises(errors.InvalidArgument, match="of predictions, and there are none"):
        to_datatree(draws, coords={"school": [1, 2, 3, 4]})
    with pytest.raises(errors.ShapeError, match="no axes of chains and draws"):
        to_datatree(draws, posterior_predictive={"y": 1.0})
    with pytest.raises(errors.InvalidArgument, match='did you mean "school"'):
        to_datatree(draws, posterior_predictive=other, coords={"schools": [1, 2, 3, 4]})


def test_files_keep_them(draws, tmp_path):
    years = np.array(["1851-01-01", "1852-01-01"], "datetime64[D]")
    more = Draws(
        {"mu": np.zeros((1, 3)), "a": np.zeros((1, 3, 2)), "b": np.zeros((1, 3, 4, 2))},
        dims={"a": ("year",), "b": (None, "year")},
        coords={"year": years},
    )
    for number, each in enumerate((draws, more)):
        each.save(tmp_path / f"{number}.npz")
        again = Draws.load(tmp_path / f"{number}.npz")
        assert again.dims == each.dims and list(again.scalars()) == list(each.scalars())
        for name, along in each.coords.items():
            assert again.coords[name].dtype == along.dtype
            assert again.coords[name].tolist() == along.tolist()
    assert list(more.scalars())[3] == "b[1,1851-01-01]"


def test_pandas_labels():
    pandas = pytest.importorskip("pandas")
    for labels in (pandas.Index(SCHOOLS), pandas.Series(SCHOOLS), pandas.Categorical(SCHOOLS)):
        target = Target(model, (3,), DATA, dims=DIMS, coords={"school": labels})
        assert target.labels.coords["school"].tolist() == SCHOOLS


def of(dims=None, coords=None):
    return lambda: Target(model, (3,), DATA, dims=dims, coords=coords)


WRONG = {
    "unknown": (of({"thet": ("school",)}), errors.AddressNotFound, "thet"),
    "not nested": (of({"theta": ("school",)}), errors.AddressNotFound, "did you mean"),
    "rank": (of({"y": ("school", "side")}), errors.ShapeError, "expected: 1, for shape (3,)"),
    "scalar": (of({"mu": ("school",)}), errors.ShapeError, "expected: 0, for shape ()"),
    "length": (of(DIMS, {"school": SCHOOLS[:2]}), errors.ShapeError, "give 3 labels"),
    "two lengths": (
        of({"y": ("a",), "sub": {"theta": (None, "a")}}), errors.ShapeError, "two lengths"),
    "twice": (of({"v": ("school", "school")}), errors.InvalidArgument, '"school" twice'),
    "reserved": (of({"y": ("draw",)}), errors.InvalidArgument, "axis of draws"),
    "no name": (of({"y": (3,)}), errors.InvalidArgument, "no names of axes"),
    "no dict": (of(["school"]), errors.InvalidArgument, "dims are a dict"),
    "no dict of labels": (of(None, SCHOOLS), errors.InvalidArgument, "coords are a dict"),
    "no axis": (of(DIMS, {"scool": SCHOOLS}), errors.InvalidArgument, 'did you mean "school"'),
    "double": (of(DIMS, {"school": ["a", "b", "a"]}), errors.InvalidArgument, "a stands 2 times"),
    "objects": (of(DIMS, {"school": [None, 1, "a"]}), errors.InvalidArgument, "no labels"),
    "a number": (of(DIMS, {"school": 3}), errors.InvalidArgument, "no labels"),
    "draws": (
        lambda: Draws({"x": np.zeros((1, 3, 2))}, dims={"x": ("a",)}, coords={"a": [1]}),
        errors.ShapeError, "give 2 labels"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "told"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_told_before_anything_runs(make, kind, told):
    with pytest.raises(kind) as found:
        make()
    text = str(found.value)
    assert told in text and "test_labels.py" in text and "fix:" in text


def test_dims_need_no_coords():
    target = Target(model, (3,), DATA, dims={"y": "school"})
    tree = to_datatree(Draws(LATENTS, target=target))
    assert tree["observed_data"]["y"].dims == ("school",)
    assert list(Draws(LATENTS, target=target).scalars())[1] == "sub/theta[1,1]"


def test_other_labels_compile_nothing():
    one = Target(model, (3,), DATA, dims=DIMS, coords=COORDS)
    assert jax.tree.structure(one) == jax.tree.structure(Target(model, (3,), DATA))


# -- leave-one-out, of data in part --------------------------------------------------------------


@gen
def line(x):
    slope = sample("slope", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(slope * x, 1.0))


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_loo_of_arviz_on_the_export_agrees_where_a_mask_leaves_out(shape):
    azstats = pytest.importorskip("arviz_stats.loo", exc_type=ImportError)
    x = jnp.asarray(RANDOM.normal(size=shape))
    mask = jnp.asarray([True, False, True, True, False, True]).reshape(shape)
    data = jnp.where(mask, 2 * x + 0.5, 99.0)
    dims = {"y": ("row", "column")[-len(shape) :]}
    target = Target(
        line,
        (x,),
        {"y": Masked(data, mask)},
        dims=dims,
        coords={"column": list("abcdef")[: shape[-1]]},
    )
    draws = Draws({"slope": 2 + 0.4 * RANDOM.normal(size=(4, 250))}, target=target)
    densities = log_likelihood(draws)["y"]
    assert (np.isnan(densities) == ~np.broadcast_to(mask, densities.shape)).all()
    tree = to_datatree(draws, log_likelihood={"y": densities})
    ours, theirs = loo(draws), azstats.loo(tree, pointwise=True)
    # sums of four terms in another order
    assert theirs.elpd == pytest.approx(ours.elpd, rel=1e-12)
    assert theirs.se == pytest.approx(ours.se, rel=1e-12)
    assert theirs.p == pytest.approx(ours.p, rel=1e-10)
    assert theirs.n_data_points == ours.n == 4
    seen = np.asarray(mask)
    np.testing.assert_allclose(theirs.elpd_i.values, ours.pointwise["y"][seen], rtol=1e-12)
    np.testing.assert_allclose(theirs.pareto_k.values, ours.pareto_k["y"][seen], rtol=1e-12)
    places = tree["log_likelihood"]["y_element_column"].values.tolist()
    assert places == [list("abcdef")[i] for i in np.nonzero(seen)[-1]]


def test_weighted_particles_have_labels_too(tmp_path):
    """Derived quantities, what is drawn by weight, files."""
    random = np.random.default_rng(0)
    theta = random.normal(size=(2, 50, 3))
    labels = {"dims": {"theta": ("school",)}, "coords": {"school": ["A", "B", "C"]}}
    found = Particles({"theta": theta}, np.zeros((2, 50)), **labels)
    found = found.derive(double=lambda v: 2 * v["theta"], dims={"double": ("school",)})
    names = [f"{name}[{school}]" for name in ("theta", "double") for school in "ABC"]
    found.save(tmp_path / "particles.npz")
    again = Particles.load(tmp_path / "particles.npz")
    for some in (found, again, found.resampled(jax.random.key(0), 10)):
        assert list(some.summary()) == names
    assert to_datatree(found)["posterior"]["double"].dims == ("chain", "draw", "school")
