"""Functional tensors: what is refused, in which words, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import tensors
from inference.gaussian import Exchangeable, Matern12, Matern32
from inference.tensors.learning import sweep_and_learn
from ppl import Target, gen, sample
from ppl.errors import InvalidArgument

ROWS = tensors.entries({"a": [0.0, 1.0], "b": [0, 1]})
KERNELS = {"a": Matern32(1.0), "b": Exchangeable()}
MODEL = tensors.cp(1, KERNELS)
Y = jnp.array([0.5, -0.5])
TARGET = Target(MODEL, (ROWS,), {"y": Y})
KEY = jax.random.key(0)


@gen
def other():
    sample("y", dist.Normal(0.0, 1.0))


WRONG = {
    "no columns": (lambda: tensors.entries({}), "a mapping from names"),
    "columns of text": (lambda: tensors.entries({"a": ["x", "y"]}), "finite number"),
    "a column with NaN": (lambda: tensors.entries({"a": [0.0, np.nan]}), "finite number"),
    "a column too short": (lambda: tensors.entries({"a": [0.0, 1.0], "b": [1]}), "(2,)"),
    "coordinates of no mode": (
        lambda: tensors.entries({"a": [0.0]}, coordinates={"z": [0.0]}), "'a'",
    ),
    "an entry elsewhere": (
        lambda: tensors.entries({"a": [0.5]}, coordinates={"a": [0.0, 1.0]}), "one of the coord",
    ),
    "a traced column": (
        lambda: jax.jit(lambda x: tensors.entries({"a": x}).index)(jnp.ones(3)), "known numbers",
    ),
    "no rank": (lambda: tensors.cp(0, KERNELS), "1 or more"),
    "no kernel": (lambda: tensors.cp(1, {"a": 1.0}), "the law of a process"),
    "no kernels": (lambda: tensors.cp(1, []), "a mapping"),
    "a reserved name": (lambda: tensors.cp(1, {"core": Matern12(1.0)}), "another word"),
    "too few kernels": (lambda: tensors.cp(3, {"a": [Matern12(1.0)] * 2}), "3, for the comp"),
    "kernels of two kinds": (
        lambda: tensors.cp(2, {"a": [Matern12(1.0), Matern32(1.0)]}), "one kind",
    ),
    "noise of no kind": (lambda: tensors.cp(1, KERNELS, noise=0.1), "NormalNoise()"),
    "noise by no mode": (
        lambda: tensors.cp(1, KERNELS, noise=tensors.NormalNoise(by="c")), "'a' or 'b'",
    ),
    "a level of zero": (lambda: tensors.cp(1, KERNELS, effects=True, level=0.0), "0 < level"),
    "ranks too few": (lambda: tensors.tucker((2,), KERNELS), "2, for a, b"),
    "a core of another shape": (
        lambda: tensors.tucker((2, 2), KERNELS, core=jnp.ones((2, 3))), "(2, 2)",
    ),
    "no entries": (lambda: MODEL.sites(3.0), "entries with the modes a, b"),
    "modes of other names": (lambda: MODEL.sites(tensors.entries({"b": [0], "c": [1.0]})), "a, b"),
    "another model": (
        lambda: tensors.message_passing(KEY, Target(other, (), {})), "`cp` or `tucker`",
    ),
    "a model, no target": (lambda: tensors.message_passing(KEY, MODEL), "the posterior"),
    "nothing observed": (lambda: tensors.message_passing(KEY, Target(MODEL, (ROWS,))), "values}"),
    "more observed": (
        lambda: tensors.message_passing(
            KEY, Target(MODEL, (ROWS,), {"y": Y, "precision": 1.0})
        ), "values}",
    ),
    "a rate of zero": (lambda: tensors.message_passing(KEY, TARGET, rate=0.0), "0 < rate"),
    "damping above one": (lambda: tensors.message_passing(KEY, TARGET, damping=2.0), "<= 1"),
    "no sweeps": (lambda: tensors.message_passing(KEY, TARGET, sweeps=0), "1 or more"),
    "no picture": (lambda: tensors.plot_functions(TARGET), "what `message_passing` gives"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name):
    make, expected = WRONG[name]
    with pytest.raises(InvalidArgument) as raised:
        make()
    error = raised.value
    assert expected in f"{error.expected}"
    assert error.fix
    assert "test_tensors_inputs.py" in str(error)


@pytest.fixture(scope="module")
def found():
    return tensors.message_passing(KEY, TARGET, sweeps=3, starts=1)


def test_what_is_wrong_with_later_entries_is_said(found):
    more = tensors.entries({"a": [2.0], "b": [0]})
    for make, expected in (
        (lambda: found.predict(tensors.entries({"a": [2.0]})), "a, b"),
        (lambda: found.functions("c"), "'a' or 'b'"),
        (lambda: found.predict(more).quantile(1.0), "0 < p < 1"),
        (lambda: found.draw_entries(KEY, more, 0), "1 or more"),
        (lambda: tensors.more_entries(found, more, [1.0, 2.0]), "(1,)"),
        (lambda: tensors.more_entries(found, more, [np.nan]), "finite"),
        (lambda: tensors.revisit(found, sweeps=0), "1 or more"),
        (lambda: tensors.plot_predictions(found, more, [1.0, 2.0]), "(1,)"),
    ):
        with pytest.raises(InvalidArgument) as raised:
            make()
        assert expected in raised.value.expected and raised.value.fix


def test_columns_may_come_in_any_order(found):
    turned = tensors.entries({"b": [1, 0], "a": [0.0, 1.0]})
    straight = tensors.entries({"a": [0.0, 1.0], "b": [1, 0]})
    one, other = (found.predict(rows).predictor for rows in (turned, straight))
    np.testing.assert_array_equal(one, other)
    value = {"a": jnp.ones((1, 2)), "b": jnp.array([[1.0, 2.0]]), "precision": 1.0, "y": Y}
    np.testing.assert_array_equal(MODEL.assess(value, turned)[0], MODEL.assess(value, straight)[0])


@pytest.mark.slow
def test_a_sweep_is_compiled_once():
    """Types after a sweep are those before it: with Student-t noise, whose numbers are learned."""
    model = tensors.cp(1, KERNELS, noise=tensors.StudentTNoise(), effects=True)
    before = sweep_and_learn._cache_size()
    tensors.message_passing(KEY, Target(model, (ROWS,), {"y": Y}), sweeps=3, starts=1)
    assert sweep_and_learn._cache_size() == before + 1


@pytest.mark.slow
def test_components_of_a_core_are_refused():
    model = tensors.tucker(1, KERNELS)
    made = tensors.message_passing(KEY, Target(model, (ROWS,), {"y": Y}), sweeps=2, starts=1)
    with pytest.raises(InvalidArgument, match="CP model"):
        made.relevance()


def test_noise_without_a_distribution_function_says_so():
    noise = tensors.Likelihood(lambda eta: dist.Bernoulli(logits=eta))
    law = tensors.Predicted(jnp.zeros(1), jnp.ones(1), noise, None)
    with pytest.raises(InvalidArgument, match="draw_entries"):
        law.quantile(0.5)


def test_the_shape_of_a_table_is_its_own():
    """Columns in any order of rows; ints as categories; a mode of one coordinate."""
    rows = tensors.entries({"b": [3, 1, 3], "one": [2.0, 2.0, 2.0]})
    assert rows.sizes == (2, 1)
    assert rows.columns()["b"].tolist() == [3.0, 1.0, 3.0]
    assert [site.shape for site in MODEL.sites(ROWS).values()] == [(1, 2), (1, 2), (), (2,)]
