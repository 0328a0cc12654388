"""Many data sets in one run: each has the draws that it would have among any others."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import inference as inf
from inference import hmc, nuts, sample_posterior, sample_posteriors
from ppl import Masked, Target, errors, gen, sample

KEY = jax.random.key(7)
FEW = {"draws": 12, "warmup": 20, "chains": 2, "progress": False}


@gen
def model(x):
    slope = sample("slope", dist.Normal(0.0, 1.0).expand([2]))
    sample("y", dist.Normal(x @ slope, 0.7))


def data(seed, rows=4):
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(rows, 2)), random.normal(size=rows)
    return Target(model, (jnp.asarray(x),), {"y": jnp.asarray(y)})


def short(target):
    return hmc(target, steps=3)


def each(*seeds, **how):
    return sample_posteriors(KEY, [data(seed) for seed in seeds], short, **FEW | how)


@pytest.fixture(scope="module")
def pair():
    return each(1, 2)


def test_equal_data_are_chains_of_one_run():
    """Of two targets that are the same, chains are those of one run with twice as many."""
    one = sample_posterior(KEY, data(1), short(data(1)), **FEW | {"chains": 4})
    both = each(1, 1)
    for i, found in enumerate(both):
        rows = slice(2 * i, 2 * i + 2)
        # other programs, whose sums may be rounded otherwise
        np.testing.assert_allclose(found["slope"], one["slope"][rows], rtol=0, atol=1e-7)
        np.testing.assert_allclose(found.stats["accept"], one.stats["accept"][rows], atol=1e-7)
        for name in ("step_size", "inverse_mass", "warmup_accept"):
            np.testing.assert_allclose(found.tuned[name], one.tuned[name][rows], atol=1e-7)
        assert found.status == one.status == "complete"


def test_a_data_set_does_not_depend_on_the_others(pair):
    other = each(3, 2)
    np.testing.assert_array_equal(pair[1]["slope"], other[1]["slope"])
    np.testing.assert_array_equal(pair[0]["slope"], each(1, 1)[0]["slope"])
    assert np.abs(pair[0]["slope"] - other[0]["slope"]).max() > 0.01
    assert [found.target.observations["y"].tolist() for found in pair] == [
        data(seed).observations["y"].tolist() for seed in (1, 2)
    ]


def test_other_data_compile_nothing(pair, caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        each(4, 5, draws=14)
    assert not [r for r in caplog.records if "Finished XLA" in r.getMessage()]


@pytest.mark.slow
def test_in_batches_and_on_a_mesh_draws_are_the_same(pair):
    mesh = jax.make_mesh((1,), ("chains",))
    for found in (each(1, 2, batch_size=3), each(1, 2, mesh=mesh)):
        for one, other in zip(found, pair, strict=True):
            np.testing.assert_allclose(one["slope"], other["slope"], atol=1e-7)


def test_a_checkpoint_is_of_these_data_sets(pair, tmp_path):
    for _ in range(2):
        found = each(1, 2, checkpoint=tmp_path)
        np.testing.assert_array_equal(found[1]["slope"], pair[1]["slope"])
    with pytest.raises(errors.CheckpointError, match="targets"):
        each(1, 3, checkpoint=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        nuts,
        lambda t: inf.cycle(hmc(t, "slope", steps=2), inf.slice_sample(t, "slope")),
        lambda t: inf.random_walk(t).tuned(inf.random_walk(t).parameters),
        lambda t: lambda trace: short(t)(trace),
    ],
    ids=["nuts", "a cycle", "tuned", "a program"],
)
def test_any_kernel_is_made_of_each(make):
    """Posterior means of slopes, whose law is known: within 7 standard errors."""
    targets = [data(seed) for seed in range(5)]
    found = sample_posteriors(KEY, targets, make, draws=1000, warmup=500, progress=False)
    for target, draws in zip(targets, found, strict=True):
        x, y = np.asarray(target.args[0]), np.asarray(target.observations["y"])
        mean = np.linalg.solve(x.T @ x / 0.49 + np.eye(2), x.T @ y / 0.49)
        table = draws.summary()
        for i in range(2):
            row = table[f"slope[{i + 1}]"]
            assert abs(row["mean"] - mean[i]) < 7 * row["mcse_mean"]


@pytest.mark.slow
def test_missing_elements_may_be_others_in_each():
    def masked(seed, there):
        y = Masked(data(seed).observations["y"], jnp.asarray(there))
        return Target(model, data(seed).args, {"y": y})

    some, others = [True, True, False, True], [False, True, True, True]
    first = sample_posteriors(KEY, [masked(1, some), masked(2, others)], short, **FEW)
    second = sample_posteriors(KEY, [masked(1, some), masked(2, some)], short, **FEW)
    np.testing.assert_array_equal(first[0]["slope"], second[0]["slope"])
    assert np.abs(first[1]["slope"] - second[1]["slope"]).max() > 0.01


# -- mistakes --------------------------------------------------------------------------------------


def refused(targets, make=short, **how):
    with pytest.raises(errors.InvalidArgument) as found:
        sample_posteriors(KEY, targets, make, **FEW | how)
    return found.value


def test_targets_that_differ_in_more_than_numbers():
    error = refused([data(1), data(2, rows=5)])
    assert "Target 1 differs" in str(error) and 'observed "y" float64[5]' in error.given
    assert "model at tests/test_data_sets.py:" in error.expected
    other = Target(gen(lambda: sample("slope", dist.Normal(0.0, 1.0))))
    assert "Target 1 differs" in str(refused([data(1), other]))
    assert "There are no targets" in str(refused([]))
    assert "There are no targets" in str(refused(data(1)))


def test_a_kernel_is_no_maker():
    assert "a function that makes one is due" in str(refused([data(1)], short(data(1))))
    assert "another" in str(refused([data(1), data(2)], lambda t: short(data(1))))


def test_a_start_that_is_not_found_names_the_target():
    endless = Target(model, (jnp.full((4, 2), jnp.inf),), {"y": data(1).observations["y"]})
    with pytest.raises(errors.NonFiniteStart, match="Target 1, chain 0"):
        sample_posteriors(KEY, [data(1), endless], short, **FEW)
