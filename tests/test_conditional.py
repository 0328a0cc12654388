"""Conditional particle filters leave the law of paths given observations, exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    collapse,
    conditional_filter,
    cycle,
    genealogy,
    gibbs,
    log_evidence,
    mixture,
    particle_gibbs,
)
from ppl import Masked, Target, draw, factor, gen, integrate, sample, scan, seed
from ppl.errors import InvalidArgument
from semantics import check_kernel
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of at most a million products of probabilities in float64
MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])  # the probability of seeing 1
SEEN = [1, 0, 1]
INPUTS = np.array([1.0, 0.6, 0.9])
PATHS = np.array(list(itertools.product((0, 1), repeat=3)))


@gen
def hidden(k, x):
    """What is seen depends on the state before, too: weights are those of pairs."""
    new = sample("k", dist.Categorical(MOVES[k]))
    sample("y", dist.Bernoulli(EMITS[new] * jnp.where(k == 1, x, 0.9 * x)))
    return new, None


@gen
def counting(state, x):
    """A state that remembers more than the last choice: how many were 1."""
    k, ones = state
    new = sample("k", dist.Categorical(MOVES[k]))
    sample("y", dist.Bernoulli(EMITS[new] * x / (1 + ones)))
    return (new, ones + new), None


@gen
def guess(k, x, observed):
    sample("k", dist.Categorical(jnp.where(observed["y"] == 1, MOVES[k], jnp.array([0.4, 0.6]))))


def masses(memory):
    """p(path, observations) of all paths, by hand."""
    found = []
    for path in PATHS:
        p, before, ones = 1.0, 0, 0
        for k, y, x in zip(path, SEEN, INPUTS, strict=True):
            q = float(EMITS[k]) * x
            q = q / (1 + ones) if memory else q * (1 if before else 0.9)
            p *= float(MOVES[before, k]) * (q if y else 1 - q)
            before, ones = k, ones + k
        found.append(p)
    return np.array(found)


CASES = {
    "bootstrap": (hidden, 0, {"ancestor_sampling": False}),
    "adaptive": (hidden, 0, {"ancestor_sampling": False, "threshold": 0.8}),
    "never resampled": (hidden, 0, {"threshold": 0.0}),
    "ancestors": (hidden, 0, {}),
    "ancestors, guided": (hidden, 0, {"proposal": guess}),
    "ancestors, guided, adaptive": (hidden, 0, {"proposal": guess, "threshold": 0.8}),
    "ancestors, with memory": (counting, (0, 0), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("model, init, options", CASES.values(), ids=CASES)
def test_the_law_of_paths_is_kept(model, init, options):
    """Also the harmonic law of the evidence: E[1 / estimate] = 1 / p(observations)."""
    mass = masses(model is counting)

    def run():
        start = draw(dist.CategoricalProbs(jnp.array(mass / mass.sum())))
        path = {"k": jnp.array(PATHS)[start]}
        found = conditional_filter(
            model, init, {"y": jnp.array(SEEN)}, path, 3, xs=jnp.array(INPUTS), **options
        )
        new = collapse(genealogy(found)).value["k"] @ jnp.array([4, 2, 1])
        return new == jnp.arange(8), jnp.exp(-log_evidence(found.particles))

    law, inverse = jax.jit(integrate(run), compiler_options=QUICK)()
    np.testing.assert_allclose(law, mass / mass.sum(), rtol=0, atol=EXACT)
    assert abs(inverse * mass.sum() - 1) < EXACT


# -- as a kernel ---------------------------------------------------------------------------------

FLIPS = jnp.array([0.2, 0.6])


@gen
def step(k, flip):
    new = sample("k", dist.Bernoulli(jnp.where(k == 1, 1 - flip, flip)))
    sample("y", dist.Bernoulli(EMITS[new]))
    return new, new


@gen
def model():
    theta = sample("theta", dist.Bernoulli(0.4))
    sample("z", dist.Bernoulli(FLIPS[theta]))
    return sample("chain", scan(step)(0, FLIPS[theta] * jnp.array([0.5, 1.0])))


small = Target(model, (), {"z": 1, "chain": {"y": jnp.array([1, 0])}})
backwards = Target(
    gen(lambda: sample("chain", scan(step, reverse=True)(0, jnp.array([0.3, 0.6])))),
    (),
    {"chain": {"y": jnp.array([1, 0])}},
)
KERNELS = {
    "alone": (lambda t: particle_gibbs(t, "chain", 3), small),
    "cycle": (lambda t: cycle(particle_gibbs(t, ("chain", "k"), 2), gibbs(t, "theta")), small),
    "mixture": (lambda t: mixture([particle_gibbs(t, "chain", 2), gibbs(t, "theta")]), small),
    "reverse": (lambda t: particle_gibbs(t, "chain", 3, ancestor_sampling=False), backwards),
}


@pytest.mark.slow
@pytest.mark.parametrize("make, target", KERNELS.values(), ids=KERNELS)
def test_kernels_leave_the_target(make, target):
    check_kernel(make, target).require()


# -- what cannot be ------------------------------------------------------------------------------


@gen
def estimated(k, x):
    new = sample("k", dist.Categorical(MOVES[k]))
    factor(jnp.log(0.5 + draw(dist.Bernoulli(0.5))))
    sample("y", dist.Bernoulli(EMITS[new] * x))
    return new, None


def run(step=hidden, n=3, rows=3, seen=None, **options):
    path, ys = {"k": jnp.zeros(rows, int)}, {"y": jnp.array(SEEN) if seen is None else seen}
    return lambda: conditional_filter(step, 0, ys, path, n, xs=jnp.array(INPUTS), **options)


@gen
def afterwards():
    last, _ = sample("chain", scan(step)(0, jnp.array([0.3, 0.6])))
    sample("z", dist.Bernoulli(EMITS[last]))


@gen
def again():
    last, _ = sample("chain", scan(step)(0, jnp.array([0.3, 0.6])))
    sample("more", scan(step)(last, jnp.array([0.3])))


@gen
def optional():
    def one(k, flip):
        k = sample("k", dist.Bernoulli(jnp.where(k == 1, 1 - flip, flip)))
        coin = lambda: sample("u", dist.Bernoulli(0.5))  # noqa: E731
        return k, jax.lax.cond(k == 1, coin, lambda: jnp.zeros((), jnp.result_type(int)))

    jax.lax.scan(one, 0, jnp.array([0.3, 0.6]))


@gen
def noisy():
    sample("chain", scan(step)(0, jnp.array([0.3, 0.6])))
    factor(jnp.log(0.5 + draw(dist.Bernoulli(0.5))))


@pytest.mark.parametrize(
    "call, says",
    [
        (run(n=1), "n is not a number"),
        (run(rows=2), "series of one length"),
        (run(threshold=1.5), "is not a number"),
        (run(seen=Masked(jnp.array(SEEN), jnp.array([True, False, True]))), '"y" is partial'),
        (run(estimated), "density of estimated is only estimated"),
        (lambda: particle_gibbs(small, "chain", 1), "n is not a number"),
        (lambda: particle_gibbs(small, "theta", 3), "not a series of states"),
        (lambda: particle_gibbs(Target(afterwards), "chain", 3), '"z" at .*depends on them'),
        (lambda: particle_gibbs(Target(again), "chain", 3), r"at \S+py:\d+ depends on them"),
        (lambda: particle_gibbs(Target(optional), "k", 3), '"u" is made or not'),
        (lambda: particle_gibbs(Target(noisy), "chain", 3), "draws without addresses"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InvalidArgument, match=says) as found:
        seed(call)(jax.random.key(0))
    assert "test_conditional.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12
