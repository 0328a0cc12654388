"""Random models with randomly corrupted inputs: the right number, or our own error.

A program is a description; its density in plain Python, from scipy's densities, says what is
right. A case is a program, a door through which a value enters, and what is wrong with the
value: ten thousand of them are the slow stage. A raw error of another library, a wrong number,
or a wrong value accepted in silence fails, and is shrunk by Hypothesis.

Densities are sums of a few dozen terms of order ten in float64: 1e-9 leaves room for values that
are far out.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import numpyro.distributions as dist
import pandas
import pytest
import scipy.stats as st
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as start_at
from hypothesis import strategies as hs
from jax import lax

from ppl import Masked, PPLError, Target, gen, sample, seed
from ppl.addresses import flatten, nest

CLOSE = 1e-9


class Family(NamedTuple):
    """A distribution given the state x, and scipy's density of the same."""

    make: Any
    log_density: Any
    inside: Any
    whole: bool = False
    shape: tuple = ()


def everywhere(value):
    return np.isfinite(value).all()


FAMILIES = {
    "real": Family(
        lambda x: dist.Normal(0.1 * x, 1.0), lambda v, x: st.norm.logpdf(v, 0.1 * x), everywhere
    ),
    "positive": Family(
        lambda x: dist.Exponential(1.0 + 0.1 * jnp.tanh(x)),
        lambda v, x: st.expon.logpdf(v, scale=1 / (1.0 + 0.1 * np.tanh(x))),
        lambda v: np.isfinite(v).all() and (v >= np.finfo(float).tiny).all(),
    ),
    "unit": Family(
        lambda x: dist.Uniform(0.0, 1.0),
        lambda v, x: st.uniform.logpdf(v),
        lambda v: ((v >= 0) & (v <= 1)).all(),
    ),
    "flag": Family(
        lambda x: dist.Bernoulli(0.5 + 0.1 * jnp.tanh(x)),
        lambda v, x: st.bernoulli.logpmf(v, 0.5 + 0.1 * np.tanh(x)),
        lambda v: ((v == 0) | (v == 1)).all(),
        whole=True,
    ),
    "class": Family(
        lambda x: dist.Categorical(jnp.array([0.2, 0.3, 0.5])),
        lambda v, x: np.log(np.array([0.2, 0.3, 0.5])[np.asarray(v, int)]),
        lambda v: ((v == 0) | (v == 1) | (v == 2)).all(),
        whole=True,
    ),
    "count": Family(
        lambda x: dist.Poisson(3.0 + jnp.tanh(x)),
        lambda v, x: st.poisson.logpmf(v, 3.0 + np.tanh(x)),
        lambda v: ((v >= 0) & (v < 2**53)).all() and (np.asarray(v) == np.floor(v)).all(),
        whole=True,
    ),
    "vector": Family(
        lambda x: dist.Normal(jnp.zeros(3) + 0.1 * x, 1.0),
        lambda v, x: st.norm.logpdf(v, 0.1 * x).sum(),
        everywhere,
        shape=(3,),
    ),
    "event": Family(
        lambda x: dist.MultivariateNormal(jnp.zeros(3) + 0.1 * x, jnp.eye(3)),
        lambda v, x: st.norm.logpdf(v, 0.1 * x).sum(),
        everywhere,
        shape=(3,),
    ),
}


# -- programs: a description, in JAX, and in plain Python -------------------------------------


class Leaf(NamedTuple):
    name: str
    family: str


class Wrap(NamedTuple):
    kind: str
    name: str
    parts: tuple


KINDS = ("vmap", "scan", "cond", "jit", "checkpoint", "call")
SIZE = 2  # of loops: another than that of vectors


def in_jax(part):
    """The map of states `x -> x` that makes the choices of a part."""
    if isinstance(part, Leaf):
        family = FAMILIES[part.family]
        return lambda x: jnp.sum(1.0 * sample(part.name, family.make(x)))
    body = functools.reduce(lambda f, g: lambda x: g(f(x)), map(in_jax, part.parts))
    return {
        "vmap": lambda x: jax.vmap(body)(x + jnp.arange(float(SIZE))).sum(),
        "scan": lambda x: lax.scan(lambda c, _: (jnp.tanh(body(c)), None), x, None, length=SIZE)[0],
        "cond": lambda x: lax.cond(x > 0, body, lambda x: x, x),
        "jit": lambda x: jax.jit(body)(x),
        "checkpoint": lambda x: jax.checkpoint(body)(x),
        "call": lambda x: sample(part.name, gen(body)(x)),
    }[part.kind]


def in_python(part, x, values, at=(), prefix=()):
    """The state after a part and its log density, at values by path, stacked along loops."""
    if isinstance(part, Leaf):
        value = np.asarray(values[(*prefix, part.name)], float)[at]
        return float(np.sum(value)), float(FAMILIES[part.family].log_density(value, x))

    def body(x, at, prefix=prefix):
        total = 0.0
        for each in part.parts:
            x, score = in_python(each, x, values, at, prefix)
            total += score
        return x, total

    if part.kind == "vmap":
        ends, scores = zip(*(body(x + i, (*at, i)) for i in range(SIZE)), strict=True)
        return sum(ends), sum(scores)
    if part.kind == "scan":
        total = 0.0
        for i in range(SIZE):
            x, score = body(x, (*at, i))
            x, total = math.tanh(x), total + score
        return x, total
    if part.kind == "cond" and x <= 0:
        return x, 0.0
    return body(x, at, (*prefix, part.name) if part.kind == "call" else prefix)


@hs.composite
def descriptions(draw, depth=2):
    """Parts with unique names, at most three deep."""
    names = (f"s{i}" for i in range(100))

    def build(depth):
        parts = []
        for _ in range(draw(hs.integers(1, 2))):
            kind = draw(hs.sampled_from(("leaf", *KINDS)))
            if depth == 0 or kind == "leaf":
                parts.append(Leaf(next(names), draw(hs.sampled_from(sorted(FAMILIES)))))
            else:
                parts.append(Wrap(kind, next(names), build(depth - 1)))
        return tuple(parts)

    return Wrap("jit", "all", build(depth))


def leaves(part, prefix=()):
    """The families of the choices, by path."""
    if isinstance(part, Leaf):
        return {(*prefix, part.name): FAMILIES[part.family]}
    within = (*prefix, part.name) if part.kind == "call" else prefix
    return {p: f for each in part.parts for p, f in leaves(each, within).items()}


# -- what can be wrong with a value -------------------------------------------------------------


def as_dtype(dtype):
    def cast(v):
        with np.errstate(all="ignore"):
            return np.asarray(v).astype(dtype)

    return cast


def last(v, value):
    """The value with its last number replaced."""
    out = np.array(v, dtype=np.result_type(np.asarray(v).dtype, type(value)))
    out.reshape(-1)[-1:] = value
    return out


CORRUPTIONS = {
    "nothing": lambda v: v,
    "numpy": np.asarray,
    "nested list": lambda v: np.asarray(v).tolist(),
    "tuple": lambda v: tuple(np.atleast_1d(np.asarray(v)).tolist()),
    **{f"{d}": as_dtype(d) for d in ("float16", "float32", "float64", "int8", "int32", "int64")},
    **{f"{d}": as_dtype(d) for d in ("uint8", "uint64", "bool", "complex64", "object", "U8")},
    "bfloat16": as_dtype(ml_dtypes.bfloat16),
    "datetime": lambda v: np.full(np.shape(v), np.datetime64("2020-01-01")),
    "read only, other strides": lambda v: np.flip(np.asarray(v)),
    "big endian": lambda v: np.asarray(v).astype(np.asarray(v).dtype.newbyteorder(">")),
    "nan": lambda v: np.full(np.shape(v), np.nan),
    "a nan at the end": lambda v: last(v, np.nan),
    "inf at the end": lambda v: last(v, np.inf),
    "huge": lambda v: last(v, 2**40),
    "beyond int64": lambda v: last(np.asarray(v).astype(float), 1e30),
    "a Python integer of 30 digits": lambda v: 10**30,
    "tiny": lambda v: np.asarray(v) * 5e-324,
    "far": lambda v: np.asarray(v) - 1000,
    "half": lambda v: np.asarray(v) + 0.5,
    "zero": lambda v: np.zeros_like(np.asarray(v)),
    "an axis more": lambda v: np.asarray(v)[None],
    "an axis behind": lambda v: np.asarray(v)[..., None],
    "no axis": lambda v: np.asarray(v).reshape(-1)[0],
    "empty": lambda v: np.asarray(v).reshape(-1)[:0],
    "one too many": lambda v: (
        np.append(np.asarray(v), np.asarray(v)[:1], 0) if np.ndim(v) else np.zeros(2)
    ),
    "transposed": lambda v: np.asarray(v).T,
    "text": lambda v: "value",
    "bytes": lambda v: b"value",
    "none": lambda v: None,
    "a list of none": lambda v: [None],
    "a ragged list": lambda v: [[1.0], [1.0, 2.0]],
    "a dict": lambda v: {"more": v},
    "an empty dict": lambda v: {},
    "a set": lambda v: {1.0},
    "a function": lambda v: lambda: v,
    "a class": lambda v: float,
    "a distribution": lambda v: dist.Normal(0.0, 1.0),
    "a model": lambda v: gen(lambda: 0.0),
    "a key": lambda v: jax.random.key(0),
    "an object": lambda v: object(),
    "a series of pandas": lambda v: pandas.Series(np.asarray(v).reshape(-1)),
    "a frame of pandas": lambda v: pandas.DataFrame({"a": np.asarray(v).reshape(-1)}),
    "a shape": lambda v: jax.ShapeDtypeStruct(np.shape(v), float),
    "all of it masked in": lambda v: Masked(v, np.ones(np.shape(v), bool)),
    "a mask that does not fit": lambda v: Masked(v, np.ones((*np.shape(v), 5), bool)),
    "a mask that is none": lambda v: Masked(v, None),
    "a mask of numbers": lambda v: Masked(v, np.full(np.shape(v), 0.5)),
    "masked nothing": lambda v: Masked(None, True),
}


def plain(value):
    """What numpy makes of a value, as float64; None where that is no array of numbers."""
    if isinstance(value, Masked):
        fits = isinstance(value.mask, np.ndarray) and value.mask.dtype == bool
        return plain(value.value) if fits and value.mask.shape == np.shape(value.value) else None
    try:
        array = np.asarray(float(value) if type(value) is int else value)
    except Exception:  # whatever it raises: no array
        return None
    if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
        return None
    return array.astype(float)


def is_right(value, family, shape):
    """Whether a value may be accepted, and as what: None if it must be refused."""
    array = plain(value)
    if array is None or array.shape != shape or not family.inside(array):
        return None
    return array


DOORS = ("assess", "generate one", "generate all", "target", "update")


def through(door, model, trace, all_values, path, value):
    """The log density that a door leads to, with the value at the path; None if none is known."""
    key = jax.random.key(0)
    one = nest({path: value})
    if door == "assess":
        return model.assess(nest({**all_values, path: value}), 0.3)[0]
    if door == "generate one":
        return seed(model.generate)(key, one, 0.3)[0].score
    if door == "generate all":
        # a choice in a branch that is not taken cannot be asked for
        sure = {p: v for p, v in all_values.items() if p not in flatten(trace.present)}
        return seed(model.generate)(key, nest({**sure, path: value}), 0.3)[1]
    if door == "update":
        return seed(model.update)(key, trace, one)[0].score
    rest = {p: v for p, v in all_values.items() if p != path}
    return Target(model, (0.3,), one).log_density(nest(rest))


def check_cases(description, cases):
    """Each case is `(door, corruption, which path, whether its name is wrong)`."""
    model = gen(in_jax(description))
    families = leaves(description)
    trace = seed(model.simulate)(jax.random.key(1), 0.3)
    values, present = flatten(trace.choices), flatten(trace.present)
    there = {p: v for p, v in values.items() if np.all(np.asarray(present.get(p, True)))}
    if not there:
        return
    for door, corruption, which, rename in cases:
        path = sorted(there)[which % len(there)]
        value = CORRUPTIONS[corruption](values[path])
        right = is_right(value, families[path], np.shape(values[path]))
        wrong = (*path[:-1], path[-1] + "x") if rename else path
        told = f"{door}, {corruption} at {wrong}: {value!r}"
        try:
            found = through(door, model, trace, values, wrong, value)
        except PPLError as error:
            assert len(str(error).splitlines()) <= 12, told
            assert corruption not in ("nothing", "numpy") or rename or path in present, told
            continue
        assert not rename, f"{told} was accepted: {found}"
        if right is None:  # infinite, or off a support whose ends are computed: density zero
            array = plain(value)
            numbers = array is not None and array.shape == np.shape(values[path])
            assert numbers and not np.isnan(array).any() and found == -np.inf, f"{told}: {found}"
            continue
        if present:  # another value may lead into other branches, and fresh choices there
            assert not np.isnan(float(found)), told
            continue
        if door in ("assess", "generate all", "target", "update"):
            expected = in_python(description, 0.3, {**values, path: right})[1]
            assert abs(float(found) - expected) <= CLOSE * max(1.0, abs(expected)), told


CASES = hs.tuples(
    hs.sampled_from(DOORS),
    hs.sampled_from(sorted(CORRUPTIONS)),
    hs.integers(0, 10),
    hs.integers(0, 19).map(lambda i: i == 0),
)


def fuzz(programs, cases, start=0):
    how = settings(
        max_examples=programs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    listed = hs.lists(CASES, min_size=cases, max_size=cases)
    start_at(start)(how(given(descriptions(), listed)(check_cases)))()


def test_a_number_or_our_error():
    fuzz(programs=6, cases=20)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 5))
def test_ten_thousand_cases(part):
    """In four parts, of 2,500 cases each."""
    fuzz(programs=10, cases=250, start=part)


@pytest.mark.slow
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_every_corruption_at_a_count_in_a_loop_beside_a_vector(corruption):
    """No chance involved: each corruption through each door, once."""
    check_cases(EACH, [(door, corruption, which, False) for door in DOORS for which in range(3)])


EACH = Wrap(
    "jit",
    "all",
    (Wrap("vmap", "v", (Leaf("n", "count"),)), Leaf("x", "vector"), Leaf("e", "event")),
)
