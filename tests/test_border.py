"""Every door of the library, and what may come in: the right number or our error.

A door is a public way in which an array enters; the zoo has arrays, and things that are none.
"""

from functools import partial
from types import FunctionType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from inference import particle_filter
from inference.running.starting import given_values
from ppl import Masked, Target, errors, gen, observe, sample, seed

KEY = jax.random.key(0)


def series(values):
    return pytest.importorskip("pandas").Series(values)


@gen
def real():
    sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, 1.0).expand([2]))


@gen
def counts():
    sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Poisson(3.0).expand([2]))


REAL = np.array([0.5, 1.5])
LARGE = [3, 2**32 + 5]
# name: (value, the array that it is, or None where it must be refused)
ZOO = {
    "array": (REAL, REAL),
    "float16": (REAL.astype("float16"), REAL),
    "jax": (jnp.asarray(REAL, "float32"), REAL),
    "list": ([0.5, 1.5], REAL),
    "tuple": ((0.5, 1.5), REAL),
    "list of ints": ([1, 2], np.array([1.0, 2.0])),
    "list of jax": ([jnp.float32(0.5), jnp.float32(1.5)], REAL),
    "series": (lambda: series([0.5, 1.5]), REAL),
    "series of None": (lambda: series([0.5, None]), None),  # pandas makes it NaN
    "series of texts": (lambda: series(["a", "b"]), None),
    "table": (lambda: pytest.importorskip("pandas").DataFrame({"a": [0.5, 1.5]}), None),
    "nan": (np.array([0.5, np.nan]), None),
    "list with nan": ([0.5, float("nan")], None),
    "inf": (np.array([0.5, np.inf]), None),
    "too large": (np.array([0.5, 1e300]), None),
    "list with None": ([0.5, None], None),
    "ragged": ([0.5, [1.0, 2.0]], None),
    "string": ("a", None),
    "strings": (np.array(["a", "b"]), None),
    "dates": (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), None),
    "None": (None, None),
    "objects": (np.array([0.5, None], object), None),
    "complex": (np.array([0.5, 1.5j]), None),
    "column": (REAL[:, None], None),
    "long": (np.zeros(3), None),
    "scalar": (0.5, None),
    "empty": (np.zeros(0), None),
    "ints": (np.array([1, 2]), None),  # Python's are of any kind, arrays have one
    "bools": (np.array([True, False]), None),
    "set": ({0.5, 1.5}, None),
    "object": (object(), None),
    "dict": ({"a": REAL}, None),
    "distribution": (dist.Normal(0.0, 1.0), None),
    "function": (np.sin, None),
}
COUNTS = {
    "array": (np.array([3, 4]), np.array([3, 4])),
    "int8": (np.array([3, 4], "int8"), np.array([3, 4])),
    "uint64": (np.array([3, 4], "uint64"), None),  # no kind of int64
    "list": ([3, 4], np.array([3, 4])),
    "series": (lambda: series([3, 4]), np.array([3, 4])),
    "bools": (np.array([True, False]), np.array([1, 0])),
    "too large": (np.array(LARGE), None),
    "list too large": (LARGE, None),
    "beyond int64": ([3, 2**70], None),
    "negative": (np.array([3, -1]), None),
    "floats": (np.array([3.0, 4.0]), None),
    "fraction": ([3, 4.5], None),
    "nan": ([3, float("nan")], None),
}


def score(trace):
    return float(trace.score)


def by_target(model, value):
    return float(Target(model, (), {"y": value}).log_density({"mu": 0.0}))


def by_generate(model, value):
    return score(seed(model.generate)(KEY, {"mu": 0.0, "y": value})[0])


def by_assess(model, value):
    return float(model.assess({"mu": 0.0, "y": value})[0])


def by_update(model, value):
    trace, _ = model.generate({"mu": 0.0, "y": np.array([1, 2], model.sites()["y",].dtype)})
    return score(seed(model.update)(KEY, trace, {"y": value})[0])


def by_mask(model, value):
    return by_generate(model, Masked(value, np.ones(2, bool)))


def by_initial(model, value):
    _, values = given_values(Target(model, (), {"mu": 0.0}), {"y": value}, 3)
    assert values["y"].shape == (3, 2)
    return by_target(model, values["y"][2])


def by_observe(model, value):
    d = dist.Poisson(3.0) if model is counts else dist.Normal(0.0, 1.0)
    log_weight = gen(lambda: observe(d.expand([2]), value)).generate({})[1]
    return float(log_weight) + st.norm.logpdf(0.0)


def by_filter(model, value):
    d = dist.Poisson(3.0) if model is counts else dist.Normal(0.0, 1.0)

    @gen
    def step(z, _):
        sample("y", d)
        return z, None

    run = seed(lambda: particle_filter(step, 0.0, {"y": value}, 2).history.log_evidence[-1])
    return float(run(KEY)) + st.norm.logpdf(0.0)


DOORS = [
    by_target, by_generate, by_assess, by_update, by_mask, by_initial, by_observe, by_filter
]  # fmt: skip


def made(value):
    return value() if isinstance(value, FunctionType) else value


@pytest.mark.parametrize("door", DOORS)
def test_what_enters_is_the_right_number_or_our_error(door):
    """All doors x the zoo (S3, S9, R9): reals and counts, in single precision."""
    wrong = []
    for model, zoo in ((real, ZOO), (counts, COUNTS)):
        law = st.poisson(3.0).logpmf if model is counts else st.norm.logpdf
        for name, (value, meant) in zoo.items():
            if door is by_filter and name == "long":
                continue  # a series of three steps
            if door is by_observe and name in ("ints", "bools", "floats", "uint64"):
                continue  # a density in place takes whole numbers of any dtype
            expected = None if meant is None else law(meant).sum() + st.norm.logpdf(0.0)
            wrong += outcome(f"{name} of {model.name}", partial(door, model), value, expected)
    assert not wrong, "\n".join(wrong)


def outcome(name, door, value, expected):
    """What is wrong with what `door(value)` gave: a line, or nothing."""
    with jax.enable_x64(False):
        try:
            found = door(made(value))
        except errors.PPLError as error:
            text = str(error)
            good = expected is None and "test_border.py" in text and len(text.splitlines()) <= 12
            return [] if good else [f"{name}: {type(error).__name__} {text}"]
        except Exception as error:  # a raw error is what is looked for
            return [f"{name}: raw {type(error).__name__}: {error}"]
    # a handful of roundings of numbers below 8
    good = expected is not None and abs(found - expected) < 1e-5
    return [] if good else [f"{name}: {found} for {expected}"]


@gen
def line(x):
    sample("y", dist.Normal(2.0 * x, 1.0))


ARGUMENTS = {
    **ZOO,
    "list": ([0.5, 1.5], None),  # a tree of numbers: told where it is computed with
    "tuple": ((0.5, 1.5), None),
    "list of ints": ([1, 2], None),
    "list of jax": ([jnp.float32(0.5), jnp.float32(1.5)], None),
    "ints": (np.array([1, 2]), np.array([1, 2])),
    "bools": (np.array([True, False]), np.array([1, 0])),
    "scalar": None,  # of another shape, and as good
    "long": None,
    "column": None,
    "empty": None,
    "large int": (np.array(LARGE), None),
}
WAYS = {
    "target": lambda x: float(Target(line, (x,), {"y": REAL}).log_density({})),
    "keyword": lambda x: float(line.assess({"y": REAL}, x=x)[0]),
    "seeded": lambda x: score(seed(line.generate)(KEY, {"y": REAL}, x)[0]),
    "nested": lambda x: score(
        gen(lambda: sample("sub", line(x))).generate({"sub": {"y": REAL}})[0]
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_arguments_are_looked_at_as_observations_are(way):
    """R9: all ways to give an argument x the zoo."""
    wrong = []
    for name, entry in ARGUMENTS.items():
        if entry is not None:
            value, meant = entry
            expected = None if meant is None else st.norm(2.0 * meant).logpdf(REAL).sum()
            wrong += outcome(name, way, value, expected)
    assert not wrong, "\n".join(wrong)


def test_numbers_that_do_not_fit_are_named_with_their_index():
    with jax.enable_x64(False):
        with pytest.raises(errors.DtypeError) as found:
            Target(counts, (), {"y": np.array(LARGE)})
        assert "4294967301 at [1] (1 of 2)" in str(found.value)
        with pytest.raises(errors.DtypeError, match="argument `n`") as found:
            gen(lambda n: sample("k", dist.Poisson(1.0 * n))).sites(np.int64(2**32 + 10))
    with jax.enable_x64(True):  # there they fit
        Target(counts, (), {"y": np.array(LARGE)})
