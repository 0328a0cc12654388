"""Random models with randomly corrupted inputs: a correct number, or our own error.

A raw error of JAX or numpyro, or a value accepted in silence, fails the test and is
shrunk by Hypothesis.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from ppl import PPLError, Target, gen, sample, seed
from ppl.addresses import flatten, nest

FAMILIES = {
    "real": lambda x: dist.Normal(0.1 * x, 1.0),
    "positive": lambda x: dist.Exponential(1.0 + 0.1 * jnp.tanh(x)),
    "unit": lambda x: dist.Uniform(0.0, 1.0),
    "flag": lambda x: dist.Bernoulli(0.5 + 0.1 * jnp.tanh(x)),
    "class": lambda x: dist.Categorical(jnp.array([0.2, 0.3, 0.5])),
    "vector": lambda x: dist.Normal(jnp.zeros(3) + 0.1 * x, 1.0),
}


def leaf(name, family):
    return lambda x: jnp.sum(1.0 * sample(name, FAMILIES[family](x)))


def sequence(parts):
    def run(x):
        for part in parts:
            x = part(x)
        return x

    return run


def wrap(kind, name, body):
    if kind == "vmap":
        return lambda x: jax.vmap(body)(x + jnp.arange(2.0)).sum()
    if kind == "scan":
        return lambda x: lax.scan(lambda c, _: (jnp.tanh(body(c)), None), x, None, length=2)[0]
    if kind == "cond":
        return lambda x: lax.cond(x > 0, body, lambda x: x, x)
    if kind == "jit":
        return lambda x: jax.jit(body)(x)
    if kind == "checkpoint":
        return lambda x: jax.checkpoint(body)(x)
    return lambda x: sample(name, gen(body)(x))


@st.composite
def programs(draw, depth=2):
    """A body `x -> x` with uniquely named choices, at most three deep."""
    counter = [0]

    def fresh():
        counter[0] += 1
        return f"s{counter[0]}"

    def build(depth):
        parts = []
        for _ in range(draw(st.integers(1, 2))):
            kind = draw(
                st.sampled_from(["leaf", "vmap", "scan", "cond", "jit", "checkpoint", "call"])
            )
            if depth == 0 or kind == "leaf":
                parts.append(leaf(fresh(), draw(st.sampled_from(sorted(FAMILIES)))))
            else:
                parts.append(wrap(kind, fresh(), build(depth - 1)))
        return sequence(parts)

    return gen(build(depth))


CORRUPTIONS = {
    "nothing": lambda v: v,
    "nan": lambda v: np.full(np.shape(v), np.nan),
    "shape": lambda v: np.asarray(v)[None],
    "far": lambda v: np.asarray(v) - 1000,
    "text": lambda v: "value",
    "none": lambda v: None,
    "list": lambda v: [1.0, 2.0],
    "half": lambda v: np.asarray(v) + 0.5,
    "object": lambda v: object(),
}


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(programs(), st.sampled_from(sorted(CORRUPTIONS)), st.integers(0, 10), st.booleans())
def test_a_number_or_our_error(model, corruption, which, rename):
    trace = seed(model.simulate)(jax.random.key(0), 0.3)
    score, _ = model.assess(trace.choices, 0.3)
    # at most a few dozen terms of order one in float64
    assert abs(float(score) - float(trace.score)) < 1e-11
    values = flatten(trace.choices)
    present = flatten(trace.present)
    chosen = sorted(values)[which % len(values)]
    corrupted = dict(values)
    value = CORRUPTIONS[corruption](corrupted.pop(chosen))
    path = (*chosen[:-1], chosen[-1] + "x") if rename else chosen
    corrupted[path] = value
    there = {p: v for p, v in corrupted.items() if p not in present}
    calls = [
        lambda: model.assess(nest(corrupted), 0.3)[0],
        lambda: seed(model.generate)(jax.random.key(0), nest({path: value}), 0.3)[1],
        lambda: Target(model, (0.3,), nest({path: value})).generate,
        lambda: seed(model.update)(jax.random.key(0), trace, nest({path: value}))[1],
        lambda: seed(model.generate)(jax.random.key(0), nest(there), 0.3)[1],
    ]
    for call in calls:
        try:
            result = call()
        except PPLError as error:
            assert len(str(error).splitlines()) <= 12
            assert corruption != "nothing" or rename or chosen in present
            continue
        assert not rename
        if not callable(result):
            assert not np.isnan(float(result))
