"""Kernels on the elements of finite choices: exact laws, in order and all at once.

Tolerance 1e-12: sums of at most 1e5 path probabilities in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import cycle, each, importance, iterate, lift, mixture, then
from inference.mcmc.gibbs import gibbs
from inference.mcmc.mh_each import mh_each
from inference.targets.plates import Plate
from ppl import Target, draw, errors, gen, repeat, sample, seed, vmap
from semantics import check_equivalent, check_kernel, check_proper, kernel_matrix
from tests import models
from tests.mutants.plates import APART, CHAIN, HEADS, PRIOR, TOGETHER, WALK, Z, in_order

EXACT = 1e-12


def start(target, values):
    return target.generate({"s": {"z": jnp.array(values)}})[0]


# -- the law of one step ----------------------------------------------------------------------


def test_elements_have_their_conditionals_by_hand():
    """p(z_i | y_i) by Bayes' rule, whatever the state before."""
    kernel = gibbs(APART, Z)
    q, y = np.array([0.5, 0.8, 1.0]), np.array([1, 0, 1])
    heads = np.asarray(HEADS) * q[:, None]
    joint = np.asarray(PRIOR) * np.where(y[:, None] == 1, heads, 1 - heads)
    expected = joint / joint.sum(1, keepdims=True)
    drawn = check_equivalent(
        lambda: kernel(start(APART, [0, 2, 1]))[Z],
        lambda: draw(dist.CategoricalProbs(jnp.asarray(expected))),
    )
    assert drawn.require().error < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("target", [APART, TOGETHER, CHAIN], ids=["apart", "together", "chain"])
def test_the_sweep_is_the_one_written_out(target):
    """All at once, one by one, and by windows of a chain: the law of the plain sweep."""
    trace = start(target, [2, 0, 1])
    ours, plain = gibbs(target, Z), in_order(target)
    check_equivalent(lambda: ours(trace)[Z], lambda: plain(trace)[Z]).require()


@pytest.mark.parametrize("proposal", [None, WALK], ids=["model", "walk"])
def test_elements_are_accepted_on_their_own(proposal):
    """The law of three elements at once is the product of the laws of each alone."""
    kernel = mh_each(APART, Z, proposal)

    def alone(i):
        @gen
        def one(y):
            z = sample("z", dist.Categorical(PRIOR))
            sample("y", dist.Bernoulli(HEADS[z] * jnp.array([0.5, 0.8, 1.0])[i]))
            return z

        element = gen(lambda: sample("s", vmap(one)(jnp.zeros(1))))
        return Target(element, (), {"s": {"y": jnp.array([1, 0, 1])[i : i + 1]}})

    targets = [alone(i) for i in range(3)]

    def separately():
        old = [start(target, [value]) for target, value in zip(targets, [2, 0, 1], strict=True)]
        moved = [mh_each(t, Z, proposal)(x) for t, x in zip(targets, old, strict=True)]
        return jnp.concatenate([trace[Z] for trace in moved])

    check_equivalent(lambda: kernel(start(APART, [2, 0, 1]))[Z], separately).require()


# -- every construct around a choice ----------------------------------------------------------


@gen
def batched():
    z = sample("z", dist.Categorical(PRIOR).expand([3]))
    sample("y", dist.Bernoulli(HEADS[z].mean()))


@gen
def counted():
    k = sample("k", dist.Binomial(4, 0.3))
    sample("y", dist.Bernoulli(0.1 + 0.2 * k))


@gen
def die_or_two():
    """A die, from 1 on, that may not be thrown; its absence is 0."""
    thrown = sample("thrown", dist.Bernoulli(0.3))
    k = jax.lax.cond(thrown == 1, lambda: sample("k", dist.DiscreteUniform(1, 3)), lambda: 2)
    sample("y", dist.Bernoulli(0.2 * k))


@gen
def matrix():
    """A plate whose elements are vectors of dependent choices."""

    def row(q):
        z = sample("z", dist.Bernoulli(0.3).expand([2]))
        sample("y", dist.Bernoulli(q * z.mean() + 0.1))

    sample("s", vmap(gen(row))(jnp.array([0.5, 0.8])))


CASES = {
    "batch": (batched, (), {"y": 1}, "z"),
    "count": (counted, (), {"y": 1}, "k"),
    "absent": (die_or_two, (), {"y": 1}, "k"),
    "vectors": (matrix, (), {"s": {"y": jnp.array([1, 0])}}, ("s", "z")),
    "branches": (models.branching, (0.3,), {"y": 1}, "shared"),
    "scan in vmap": (models.scan_in_vmap, (0.7,), {}, "z"),
    "jax.vmap": (models.batch, (0.2,), {"y": 1}, "x"),
    "factor": (models.scored, (0.7,), {"sub": {"c": 1}}, ("sub", "b")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gibbs_is_invariant_around_every_construct(name):
    model, args, data, address = CASES[name]
    check_kernel(lambda t: gibbs(t, address), Target(model, args, data)).require()


def test_elements_that_may_be_absent_stay_so():
    """Of two elements one may not be there; both kernels leave the joint law."""
    target = Target(models.branches_in_vmap, (0.7,))
    for make in (lambda t: gibbs(t, "b"), lambda t: mh_each(t, "b")):
        pi, kernel = kernel_matrix(make, target)
        assert kernel.is_invariant(pi, EXACT)
        for state in pi.support:
            values = dict(state)
            for after in kernel(state).support:
                assert dict(after)[("a",)] == values[("a",)]


def test_an_element_at_a_time_costs_one_evaluation_of_all():
    """1000 elements at once: no array has more numbers than elements times values."""
    n = 1000
    coin = gen(lambda: sample("x", dist.Bernoulli(0.3)))
    target = Target(gen(lambda: sample("r", repeat(coin, n)())))
    for kernel in (gibbs(target, ("r", "x")), mh_each(target, ("r", "x"))):
        run = lambda trace, kernel=kernel: seed(kernel)(jax.random.key(0), trace)  # noqa: E731
        trace, _ = target.generate({"r": {"x": jnp.zeros(n, int)}})
        assert largest(jax.make_jaxpr(run)(trace).jaxpr) <= 4 * n


def largest(jaxpr):
    """The most numbers that a value of the program has."""
    sizes = [0]
    for eqn in jaxpr.eqns:
        sizes += [v.aval.size for v in eqn.outvars if hasattr(v.aval, "size")]
        for param in eqn.params.values():
            for inner in param if isinstance(param, (tuple, list)) else (param,):
                inner = getattr(inner, "jaxpr", inner)
                sizes += [largest(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


# -- in compositions --------------------------------------------------------------------------


def test_they_compose():
    def make(target):
        one = mixture([gibbs(target, Z), mh_each(target, Z, WALK)], [0.25, 0.75])
        return iterate(cycle(one, gibbs(target, Z)), 1)

    check_kernel(make, APART).require()


def test_they_move_particles():
    """As the move of a particle step the kernel leaves the measure of the particles."""
    coin = gen(lambda: sample("x", dist.Bernoulli(0.25)))
    data = gen(lambda x: sample("y", dist.Bernoulli(0.2 + 0.3 * x.sum())))

    @gen
    def model():
        sample("data", data(sample("r", repeat(coin, 2)())))

    target = Target(model, (), {"data": {"y": 1}})
    moved = lambda t: then(importance(t, 2), each(lift(gibbs(t, ("r", "x")))))  # noqa: E731
    check_proper(moved, target).require()


# -- mistakes ---------------------------------------------------------------------------------


@gen
def endless():
    k = sample("k", dist.Poisson(2.0))
    sample("y", dist.Bernoulli(jnp.exp(-k)))


@gen
def guessed():
    k = sample("k", dist.Bernoulli(0.2))
    sample("y", dist.Bernoulli(0.2 + 0.5 * k * draw(dist.Bernoulli(0.3))))


@gen
def named():
    jax.vmap(lambda q: sample("x", dist.Bernoulli(q)), axis_name="i")(jnp.array([0.2, 0.3]))


ENDLESS, GUESSED = Target(endless, (), {"y": 1}), Target(guessed, (), {"y": 1})
BRANCHING = Target(models.branching, (0.3,), {"y": 1})
TWO = gen(lambda value, i: [sample(name, dist.Categorical(PRIOR)) for name in "ab"])
REAL = gen(lambda value, i: sample("to", dist.Normal(0.0, 1.0)))

MISTAKES = {
    "infinite": (lambda: gibbs(ENDLESS, "k"), '"k" cannot be enumerated.'),
    "observed": (lambda: gibbs(BRANCHING, "y"), 'The selection names "y", which is observed.'),
    "a call": (lambda: gibbs(APART, "s"), '"s" is the address of a call, not of one choice.'),
    "estimated": (lambda: gibbs(GUESSED, "k"), "The model draws without addresses, so that its"),
    "presence": (lambda: gibbs(BRANCHING, "a"), '"a" decides which other choices there are.'),
    "dependent": (lambda: mh_each(TOGETHER, Z), 'The elements of "s", "z" are not known to be'),
    "a scan": (lambda: mh_each(CHAIN, Z), 'The elements of "s", "z" are not known to be'),
    "named axis": (lambda: mh_each(Target(named), "x"), 'The elements of "x" are not known to be'),
    "two choices": (lambda: mh_each(APART, Z, TWO), 'The proposal for an element of "s", "z" does'),
    "of reals": (lambda: mh_each(APART, Z, REAL), 'The proposal for an element of "s", "z" does'),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    make, says = MISTAKES[name]
    with pytest.raises(errors.InvalidArgument) as caught:
        make()
    text = str(caught.value)
    assert text.startswith(says) and "test_gibbs.py" in text and "fix:" in text
    assert len(text.splitlines()) <= 12


def test_an_unknown_address_has_a_near_one():
    with pytest.raises(errors.AddressNotFound, match='did you mean "s", "z"'):
        gibbs(APART, ("s", "zz"))


def test_dependence_is_read_off_the_program():
    """What is computed outside of the plate counts only if a density depends on it."""
    coin = gen(lambda q: sample("x", dist.Bernoulli(q)))
    q = jnp.array([0.2, 0.5])
    only_returned = gen(lambda: sample("v", vmap(coin)(q)).sum())
    assert Plate.of(Target(only_returned), ("v", "x")).size == 2
    with pytest.raises(errors.InvalidArgument, match="not known to be independent"):
        scored = gen(lambda: sample("y", dist.Bernoulli(sample("v", vmap(coin)(q)).mean())))
        Plate.of(Target(scored), ("v", "x"))
