"""A kernel knows the target that it was made for, and is refused on any other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Draws,
    Kernel,
    adaptive_annealing,
    annealed,
    as_kernel,
    cycle,
    delayed_acceptance,
    iterate,
    lift,
    log_likelihood,
    loo,
    mh,
    mixture,
    nested_sampling,
    nuts,
    parallel_tempering,
    posterior_predictive,
    random_walk,
    sample_posterior,
    smc2,
    start,
    temper,
    then,
    unit,
)
from inference.validation.same import difference
from ppl import Masked, Target, gen, sample, seed
from ppl.errors import InvalidArgument
from tests.calls import CALLS, CHEAP, KEY, LINE, WALK, X, line, walk

Y = np.array([0.6, 2.5, 3.2])
FEW = {"draws": 2, "warmup": 1, "chains": 1, "progress": False}


# -- what differs ----------------------------------------------------------------------------------


@gen
def steep(x):
    slope = sample("slope", dist.Normal(0.0, 20.0))
    sample("y", dist.Normal(slope * x, 1.0))


def scaled(scale):
    """A model that is made anew, of what it closes over."""

    @gen
    def model(x):
        slope = sample("slope", dist.Normal(0.0, scale))
        sample("y", dist.Normal(slope * x, 1.0))

    return model


@dataclasses.dataclass
class Scale:
    value: float


class Plain:
    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value


OTHERS = {
    "values of data": (
        Target(line, (X,), {"y": Y + np.array([0.0, 1.0, 2.0])}),
        ('observation "y", 2 of 3 values, the first at [1]: ', "2.5", "3.5"),
    ),
    "values of arguments": (
        Target(line, (X.at[2].set(7.0),), {"y": Y}),
        ("argument 0 of line, 1 of 3 values, the first at [2]: ", "2.0", "7.0"),
    ),
    "shapes": (
        Target(line, (X[:2],), {"y": Y[:2]}),
        ("argument 0 of line, of shape ", "(3,)", "(2,)"),
    ),
    "no data": (Target(line, (X,)), ("observed are ", '"y"', "nothing")),
    "a mask": (
        Target(line, (X,), {"y": Masked(Y, X < 2)}),
        ('observation "y": ', "ArrayImpl", "Masked"),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_differs_is_named(name):
    other, expected = OTHERS[name]
    assert difference(LINE, other) == expected
    with pytest.raises(InvalidArgument, match="The kernel mh") as found:
        sample_posterior(KEY, other, mh(LINE, "slope"), **FEW)
    what, mine, theirs = expected
    assert found.value.given == f"made for: {what}{mine}"
    assert found.value.expected == f"the target of the run: {what}{theirs}"


def test_another_model_is_named_with_its_line():
    other = Target(steep, (X,), {"y": Y})
    _, mine, theirs = difference(LINE, other)
    assert mine.startswith("model line at ") and "calls.py" in mine
    assert theirs.startswith("model steep at ") and "test_known_targets.py" in theirs


def test_nans_in_the_same_places_are_the_same():
    nan = np.array([0.0, np.nan, 2.0])
    one, other = (Target(line, (nan,), {"y": Y}) for _ in range(2))
    assert difference(one, other) is None
    found = difference(one, Target(line, (np.array([0.0, 1.0, 2.0]),), {"y": Y}))
    assert found == ("argument 0 of line, 1 of 3 values, the first at [1]: ", "nan", "1.0")


# Models that a function makes anew: `scaled(s)` of each of these, twice, is one model; of
# another number it is another.
HOLDERS = {
    "number": lambda s: s,
    "array": jnp.asarray,
    "numpy": np.asarray,
    "partial": lambda s: functools.partial(lambda v: v, s).args[0],
    "dataclass": lambda s: Scale(s),
    "object": lambda s: Plain(s),
    "dict": lambda s: {"value": [s]},
    "function": lambda s: lambda: s,
    "jitted": lambda s: jax.jit(lambda: s),
    "method": lambda s: Plain(s).get,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_model_made_anew_is_the_same_model(holder):
    hold = HOLDERS[holder]

    def target(s):
        held = hold(s)

        @gen
        def model():
            _ = held  # what a model closes over
            sample("y", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0))

        return Target(model, (), {"y": 1.0})

    assert difference(target(2.0), target(2.0)) is None
    assert difference(target(2.0), target(3.0)) is not None


def test_equal_data_of_any_kind_are_the_same():
    same = [
        Target(line, (np.arange(3.0),), {"y": np.asarray(LINE.observations["y"])}),
        Target(line, (jnp.arange(3.0),), {"y": jnp.array(LINE.observations["y"])}),
        Target(scaled(2.0), (X,), {"y": Y}),
    ]
    assert difference(LINE, same[0]) is None and difference(LINE, same[1]) is None
    assert difference(same[2], Target(scaled(2.0), (X,), {"y": Y})) is None
    assert difference(same[2], Target(scaled(3.0), (X,), {"y": Y})) is not None
    with jax.enable_x64(False):  # doubles on the host are rounded on the device
        third = np.array([1 / 3, 2 / 3, 1.0])
        one, other = (Target(line, (x,), {"y": x}) for x in (third, jnp.asarray(third)))
        assert difference(one, other) is None


def test_tempered_and_traced_targets_are_compared_by_what_is_known():
    assert difference(temper(LINE, 0.5), temper(LINE, 0.5)) is None
    assert difference(temper(LINE, 0.5), temper(LINE, 0.25)) is not None

    def moved(y):
        target = Target(line, (X,), {"y": y})
        trace, _ = Target(line, (X,), {"y": y}).generate({"slope": 1.0})
        return mh(target, "slope")(trace)["slope"]

    rows = jnp.stack([Y, 2 * Y])
    out = jax.eval_shape(jax.vmap(lambda y: seed(lambda: moved(y))(KEY)), rows)
    assert out.shape == (2,)


# -- kernels ---------------------------------------------------------------------------------------


def kernels():
    for name, call in CALLS.items():
        if not call.random and not call.heavy and "target" in call.arguments():
            made = call.run(call.arguments())
            if isinstance(made, Kernel):
                yield name, made, call.arguments()["target"]


def test_every_kernel_carries_its_target():
    """Swept: all public functions that make a kernel of a target."""
    found = {name: made.target is target for name, made, target in kernels()}
    assert all(found.values()), found
    assert len(found) >= 16


COMPOSED = {
    "cycle": lambda: cycle(random_walk(LINE), mh(LINE, "slope")),
    "mixture": lambda: mixture([lambda trace: trace, mh(LINE, "slope")]),
    "iterate": lambda: iterate(mh(LINE, "slope"), 2),
    "tuned": lambda: random_walk(LINE).tuned(random_walk(LINE).parameters),
    "as_kernel": lambda: as_kernel(mh(LINE, "slope")),
    "delayed": lambda: delayed_acceptance(mh(CHEAP, "slope"), CHEAP, LINE),
    "tempered": lambda: parallel_tempering(LINE, lambda t: mh(t, "slope"), 3),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_kernels_carry_the_target_of_their_parts(name):
    kernel = COMPOSED[name]()
    assert kernel.target is LINE
    with pytest.raises(InvalidArgument, match="was made for another target"):
        sample_posterior(KEY, CHEAP, kernel, **FEW)


def other_series(t):
    return mh(Target(walk, (), {"y": -WALK.observations["y"]}), "scale")


MISTAKES = {
    "cycle": lambda: cycle(mh(LINE, "slope"), mh(CHEAP, "slope")),
    "mixture": lambda: mixture([mh(LINE, "slope"), mh(CHEAP, "slope")]),
    "delayed": lambda: delayed_acceptance(mh(LINE, "slope"), CHEAP, LINE),
    "tempering": lambda: parallel_tempering(LINE, lambda t: mh(LINE, "slope"), 3),
    "annealed": lambda: annealed(LINE, 4, lambda t: mh(LINE, "slope"), 3)(unit()),
    "adaptive": lambda: adaptive_annealing(LINE, 4, lambda t: mh(LINE, "slope")),
    "nested": lambda: nested_sampling(LINE, 4, lambda t: mh(LINE, "slope")),
    "smc2": lambda: smc2(WALK, "z", 4, 3, other_series)(unit()),
    "lifted": lambda: then(start(LINE), lift(mh(Target(steep, (X,), {"y": Y}), "slope")))(unit()),
    "lifted, of fewer data": lambda: then(
        start(LINE), lift(mh(Target(line, (X[:2],), {"y": Y[:2]}), "slope"))
    )(unit()),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_part_of_another_target_is_refused(name):
    with pytest.raises(InvalidArgument, match="was made for another target") as found:
        jax.eval_shape(seed(MISTAKES[name]), KEY)
    assert len(str(found.value).splitlines()) <= 12


def test_a_function_has_no_target():
    kernel = mh(LINE, "slope")
    found = sample_posterior(KEY, LINE, lambda trace: kernel(trace), **FEW)
    assert found["slope"].shape == (1, 2)


# -- draws -----------------------------------------------------------------------------------------

DRAWS = Draws({"slope": np.random.default_rng(0).normal(size=(2, 30))}, target=LINE)


@pytest.mark.parametrize(
    "use",
    [log_likelihood, loo, lambda draws, target: posterior_predictive(KEY, draws, target)],
    ids=["log_likelihood", "loo", "posterior_predictive"],
)
def test_draws_of_another_target_are_refused(use):
    with pytest.raises(InvalidArgument, match="These draws were made for another target") as found:
        use(DRAWS, CHEAP)
    # as the fix says: data that were left out
    assert "Draws(draws.choices, target=" in found.value.fix
    held_out = Draws(DRAWS.choices, target=CHEAP)
    assert log_likelihood(held_out)["y"].shape == (2, 30, 3)


def test_nuts_of_other_data():
    """The case itself: another sign of the data, and fewer of them."""
    kernel = nuts(LINE)
    for other in (Target(line, (X,), {"y": -Y}), Target(line, (X[:2],), {"y": Y[:2]})):
        with pytest.raises(InvalidArgument, match="The kernel nuts was made for another target"):
            sample_posterior(KEY, other, kernel, **FEW)
