"""Each mistake gets one error that names the line, and every class has a row in docs/errors.md.

A case is a function that makes the mistake. The lines that its error must name
end in `# here`.

Longer than 400 lines because it is a list: one short case for each mistake.
"""

import builtins
import inspect
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import (
    Masked,
    Target,
    at_boundary,
    draw,
    errors,
    extend,
    factor,
    gen,
    integrate,
    law,
    observe,
    paths,
    record,
    replay,
    sample,
    seed,
    select,
    unfold,
)

KEY = jax.random.key(0)
NORMAL = dist.Normal(0.0, 1.0)
CASES = []


def case(kind, builtin, what, fix, address=None):
    """Register a mistake: its class and builtin, first line, start of the fix, and address."""

    def register(fn):
        CASES.append(pytest.param(fn, kind, builtin, what, fix, address, id=fn.__name__))
        return fn

    return register


def marked(fn):
    """The lines of `fn` that end in `# here`."""
    lines, first = inspect.getsourcelines(fn)
    return [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here")]


# -- models -----------------------------------------------------------------------


@gen
def inner():
    return sample("noise", NORMAL)


@gen
def model(n=1.0):
    mu = sample("mu", NORMAL)
    sigma = sample("sigma", dist.LogNormal(0.0, 1.0))
    sample("sub", inner())
    sample("heads", dist.Bernoulli(0.5))
    sample("count", dist.Poisson(3.0))
    sample("y", dist.Normal(jnp.zeros(5) + mu, sigma))


def simulated():
    return seed(model.simulate)(KEY)


def noisy(x):
    return draw(dist.Normal(x, 1.0))


# -- addresses --------------------------------------------------------------------


@case(
    errors.AddressNotFound,
    KeyError,
    'The constraint names "sigm", which is no choice of the model.',
    'did you mean "sigma"?',
    '"sigm"',
)
def constraint_of_an_unknown_address():
    seed(model.generate)(KEY, {"sigm": 1.0})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The constraint names "sub", "nois", which is no choice of the model.',
    'did you mean "sub", "noise"?',
    '"sub", "nois"',
)
def constraint_of_an_unknown_nested_address():
    seed(model.generate)(KEY, {"sub": {"nois": 1.0}})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The constraint names "temperature", which is no choice of the model.',
    "use one of the model's addresses",
    '"temperature"',
)
def constraint_far_from_every_address():
    seed(model.generate)(KEY, {"temperature": 1.0})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The constraint gives one value for "sub", which is a generative function\'s address.',
    '{"sub": {"noise": ...}}',
    '"sub"',
)
def constraint_of_a_prefix():
    seed(model.generate)(KEY, {"sub": 1.0})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The observation names "Y", which is no choice of the model.',
    'did you mean "y"?',
    '"Y"',
)
def observation_of_an_unknown_address():
    Target(model, (), {"Y": np.zeros(5)})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The constraint names "sigm", which is no choice of the model.',
    'did you mean "sigma"?',
    '"sigm"',
)
def update_of_an_unknown_address():
    trace = simulated()
    seed(model.update)(KEY, trace, {"sigm": 1.0})  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The selection names "sub", "nose", which is no choice of the model.',
    'did you mean "sub", "noise"?',
    '"sub", "nose"',
)
def selection_of_an_unknown_address():
    trace = simulated()
    seed(model.project)(KEY, trace, select("mu", ("sub", "nose")))  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The selection names "mu", "sigma", which is no choice of the model.',
    'a tuple is one nested address: select("mu", "sigma") names each',
    '"mu", "sigma"',
)
def selection_of_two_addresses_by_a_tuple():
    trace = simulated()
    seed(model.project)(KEY, trace, ("mu", "sigma"))  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The selection names "head", which is no choice of the model.',
    'did you mean "heads"?',
    '"head"',
)
def regenerate_of_an_unknown_address():
    trace = simulated()
    seed(lambda t: model.regenerate(t, "head"))(KEY, trace)  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The trace lookup names "mus", which is no choice of the model.',
    'did you mean "mu"?',
    '"mus"',
)
def lookup_of_an_unknown_address():
    trace = simulated()
    trace["mus"]  # here


@case(
    errors.AddressNotFound,
    KeyError,
    'The trace lookup names "sub", "mu", which is no choice of the model.',
    'did you mean "sub", "noise"?',
    '"sub", "mu"',
)
def lookup_of_an_unknown_nested_address():
    trace = simulated()
    trace["sub", "mu"]  # here


@case(
    errors.MissingChoice,
    KeyError,
    'assess needs a value for "sigma".',
    "give it, or use generate",
    '"sigma"',
)
def assess_without_a_choice():
    seed(model.assess)(KEY, {"mu": 0.0})  # here


@case(
    errors.MissingChoice,
    KeyError,
    'A latent choice has no value: "noise".',
    "give all of them",
    '"noise"',
)
def log_density_without_a_latent():
    @gen
    def two():
        sample("noise", NORMAL)  # here

    Target(two, (), {}).log_density({})


@case(
    errors.DuplicateAddress,
    ValueError,
    'Two choices have the address "x".',
    "rename one of them",
    '"x"',
)
def two_choices_at_one_address():
    @gen
    def twice():
        sample("x", NORMAL)  # here
        sample("x", NORMAL)  # here

    seed(twice.simulate)(KEY)


@case(
    errors.DuplicateAddress,
    ValueError,
    'Two choices have the address "x".',
    "jax.lax.map with a batch_size that leaves a remainder",
    '"x"',
)
def a_batch_size_that_leaves_a_remainder():
    @gen
    def batches():
        one = lambda m: sample("x", dist.Normal(m, 1.0))  # noqa: E731  # here
        return jax.lax.map(one, jnp.ones(5), batch_size=2)

    seed(batches.simulate)(KEY)


@case(
    errors.DuplicateAddress,
    ValueError,
    'Two choices have the address "sub", "x".',
    "rename one of them",
    '"sub", "x"',
)
def two_nested_choices_at_one_address():
    @gen
    def one():
        sample("x", NORMAL)  # here

    @gen
    def twice():
        sample("sub", one())
        sample(("sub", "x"), NORMAL)  # here

    twice.sites()


@case(
    errors.PrefixClash,
    ValueError,
    '"a" is a choice and a prefix of "a", "b".',
    "rename one of them",
    '"a", "b"',
)
def choice_that_is_a_prefix():
    @gen
    def clash():
        sample("a", NORMAL)  # here
        sample(("a", "b"), NORMAL)  # here

    seed(clash.simulate)(KEY)


@case(
    errors.InvalidAddress,
    TypeError,
    "An address is a non-empty string, or a tuple of them.",
    'for a Python loop, use f"x{i}"',
)
def address_that_is_a_number():
    @gen
    def numbered():
        sample(0, NORMAL)  # here

    seed(numbered.simulate)(KEY)


# -- values -----------------------------------------------------------------------


@case(
    errors.SupportError,
    ValueError,
    'The value of "sigma" is outside the support of its distribution.',
    "check the data",
    '"sigma"',
)
def observation_outside_the_support():
    Target(model, (), {"sigma": -1.0})  # here


@case(
    errors.SupportError,
    ValueError,
    'The value of "sigma" is outside the support of its distribution.',
    "check the data",
    '"sigma"',
)
def constraint_outside_the_support():
    seed(lambda: model.generate({"sigma": -1.0}))(KEY)  # here


@case(
    errors.SupportError,
    ValueError,
    "The value of observe is outside the support of its distribution.",
    "check the data",
)
def observe_outside_the_support():
    @gen
    def observes():
        observe(dist.Exponential(1.0), -2.0)  # here

    seed(observes.generate)(KEY, {})


@case(
    errors.SupportError,
    ValueError,
    'The value of "y" is not a number.',
    "mark missing data: Masked(value, mask)",
    '"y"',
)
def observation_that_is_nan():
    Target(model, (), {"y": np.array([0.0, 1.0, np.nan, 2.0, 3.0])})  # here


@case(
    errors.SupportError,
    ValueError,
    "The value of observe is not a number.",
    "mark missing data: Masked(value, mask)",
)
def observe_of_nan():
    @gen
    def observes():
        observe(NORMAL, float("nan"))  # here

    seed(observes.generate)(KEY, {})


@case(
    errors.ShapeError,
    ValueError,
    'The observation gives "y" another shape than its choice has.',
    "reshape it: jnp.reshape(value, (5,))",
    '"y"',
)
def column_for_a_vector():
    Target(model, (), {"y": np.zeros((5, 1))})  # here


@case(
    errors.ShapeError,
    ValueError,
    'The constraint gives "y" another shape than its choice has.',
    "check the data against the model's loops",
    '"y"',
)
def scalar_for_a_vector():
    seed(model.generate)(KEY, {"y": 1.0})  # here


@case(
    errors.ShapeError,
    ValueError,
    "An observed value has another shape than its distribution.",
    "reshape the value",
)
def observe_of_a_column():
    @gen
    def observes():
        observe(dist.Normal(jnp.zeros(5), 1.0), np.zeros((5, 1)))  # here

    seed(observes.generate)(KEY, {})


@case(
    errors.ShapeError,
    ValueError,
    'The mask of "y" does not fit its choice.',
    "give one boolean for each independent element",
    '"y"',
)
def mask_of_another_shape():
    Target(model, (), {"y": Masked(np.zeros(5), np.ones(4, bool))})  # here


@case(
    errors.ShapeError,
    ValueError,
    "factor takes a scalar log weight.",
    "sum it: factor(log_weight.sum())",
)
def factor_of_a_vector():
    @gen
    def weighs():
        factor(jnp.zeros(3))  # here

    seed(weighs.generate)(KEY, {})


@case(
    errors.DtypeError,
    TypeError,
    'The observation gives "heads" another dtype than its choice has.',
    "cast it: jnp.asarray(value, 'int64')",
    '"heads"',
)
def float_for_a_bernoulli():
    Target(model, (), {"heads": np.array(1.0)})  # here


@case(
    errors.DtypeError,
    TypeError,
    'The constraint gives "count" another dtype than its choice has.',
    "cast it: jnp.asarray(value, 'int64')",
    '"count"',
)
def float_for_a_poisson():
    seed(model.generate)(KEY, {"count": jnp.array(2.0)})  # here


@case(
    errors.InvalidArgument,
    ValueError,
    'The constraint gives "y", which is observed.',
    "make a new Target to change the data",
    '"y"',
)
def constraint_of_an_observed_choice():
    target = Target(model, (), {"y": np.zeros(5)})
    seed(target.generate)(KEY, {"y": np.ones(5)})  # here


@case(
    errors.InvalidArgument,
    ValueError,
    'The selection names "y", which is observed.',
    "select a latent choice",
    '"y"',
)
def selection_of_an_observed_choice():
    Target(model, (), {"y": np.zeros(5)}).selection("y")  # here


@case(
    errors.InvalidArgument,
    ValueError,
    '"count" is discrete and has no unconstrained space.',
    "sum it out",
    '"count"',
)
def discrete_latent_in_unconstrained_space():
    @gen
    def counts():
        sample("count", dist.Poisson(3.0))  # here

    Target(counts).coordinates()


@case(errors.InvalidArgument, ValueError, "A choice map is a nested dict.", "wrap the value")
def choices_that_are_no_dict():
    seed(model.generate)(KEY, 1.0)  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "static_argnames names 'lenght', which is no argument of looped.",
    "did you mean 'length'?",
)
def static_argument_with_a_typo():
    def looped(length):
        return length

    gen(looped, static_argnames=("lenght",))  # here


@case(errors.InvalidArgument, ValueError, "Unknown boundary.", 'at_boundary(f, "zero")')
def unknown_boundary():
    at_boundary(noisy, "two")  # here


@case(errors.InvalidArgument, ValueError, "Unknown quadrature rule.", 'rule="gauss"')
def unknown_quadrature():
    integrate(noisy, nodes=(5, 8), rule="simpson")  # here


@case(
    errors.StaticArgument,
    TypeError,
    "A static argument must be hashable.",
    "pass a tuple instead of a list",
)
def static_argument_that_is_a_list():
    looped = gen(lambda sizes: sample("x", NORMAL), static_argnames=("sizes",))
    seed(looped.simulate)(KEY, [1, 2])  # here


# -- distributions ----------------------------------------------------------------


@case(
    errors.InvalidDistribution,
    ValueError,
    "Normal has an invalid parameter `scale`.",
    "constrain it, for instance",
)
def negative_scale():
    def f():
        return draw(dist.Normal(0.0, -1.0))  # here

    seed(f)(KEY)


@case(
    errors.InvalidDistribution,
    ValueError,
    "Normal has an invalid parameter `scale`.",
    "constrain it, for instance",
)
def negative_scale_of_a_choice():
    @gen
    def wrong():
        sample("x", dist.Normal(0.0, -1.0))  # here

    seed(wrong.simulate)(KEY)


@case(
    errors.InvalidDistribution,
    ValueError,
    'sample("x", ...) needs a distribution.',
    "e.g. dist.Normal(0., 1.)",
    '"x"',
)
def choice_from_a_number():
    @gen
    def wrong():
        sample("x", 1.0)  # here

    seed(wrong.simulate)(KEY)


@case(
    errors.InvalidDistribution,
    ValueError,
    "draw needs a distribution.",
    "e.g. dist.Normal(0., 1.)",
)
def draw_from_a_number():
    seed(lambda: draw(1.0))(KEY)  # here


# -- control flow -----------------------------------------------------------------

BRANCHED = "Python needed the value of a traced variable (an `if`, a loop, int(), a shape)."


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def if_on_a_draw():
    def f():
        if draw(NORMAL) > 0:  # here
            return 1.0
        return 0.0

    seed(f)(KEY)


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def if_on_a_choice():
    @gen
    def f():
        if sample("x", NORMAL) > 0:  # here
            sample("y", NORMAL)

    seed(f.simulate)(KEY)


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def range_of_an_argument():
    @gen
    def f(n):
        for i in range(n):  # here
            sample(f"x{i}", NORMAL)

    seed(f.simulate)(KEY, 3)


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def float_of_a_draw():
    seed(lambda: float(draw(NORMAL)))(KEY)  # here


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def numpy_of_a_draw():
    seed(lambda: np.exp(draw(NORMAL)))(KEY)  # here


@case(
    errors.UnsupportedControlFlow,
    TypeError,
    "A choice under `while_loop`: the number of choices would be unknown.",
    "use jax.lax.scan or a static fori_loop",
    '"z"',
)
def choice_under_a_while_loop():
    @gen
    def waits():
        def step(total):
            return total + sample("z", dist.Exponential(1.0))  # here

        return jax.lax.while_loop(lambda total: total < 3.0, step, 0.0)

    seed(waits.simulate)(KEY)


@case(
    errors.UnsupportedControlFlow,
    TypeError,
    "A choice under `while_loop`: the number of choices would be unknown.",
    "use jax.lax.scan or a static fori_loop",
    '"z"',
)
def choice_under_a_loop_of_traced_length():
    @gen
    def waits(n):
        def step(i, total):
            return total + sample("z", dist.Exponential(1.0))  # here

        return jax.lax.fori_loop(0, n, step, 0.0)

    seed(waits.simulate)(KEY, 3)


@case(
    errors.BranchMismatch,
    TypeError,
    'Two branches make the choice "x" differently.',
    "give them different addresses",
    '"x"',
)
def branches_of_different_shape():
    @gen
    def branches():
        def one():
            return sample("x", NORMAL)  # here

        def three():
            return sample("x", dist.Normal(jnp.zeros(3), 1.0)).sum()  # here

        return jax.lax.cond(sample("b", dist.Bernoulli(0.5)) == 1, one, three)

    seed(branches.simulate)(KEY)


@case(
    errors.BranchMismatch,
    TypeError,
    'Two branches make the choice "x" differently.',
    "give them different addresses",
    '"x"',
)
def branches_of_different_support():
    @gen
    def branches(b):
        def line():
            return sample("x", NORMAL)  # here

        def half():
            return sample("x", dist.Exponential(1.0))  # here

        return jax.lax.cond(b, line, half)

    branches.sites(True)


# -- where programs run -----------------------------------------------------------

CALLED = 'sample("x", ...) ran outside a generative function.'
SEEDED = "A random program makes an addressed choice outside a generative function."
UNSEEDED = "A random program was run without randomness."


@case(errors.OutsideModel, RuntimeError, CALLED, "decorate the function with @gen", '"x"')
def choice_in_a_plain_call():
    sample("x", NORMAL)  # here


@case(errors.OutsideModel, RuntimeError, CALLED, "decorate the function with @gen", '"x"')
def choice_under_jit():
    jax.jit(lambda: sample("x", NORMAL))()  # here


@case(
    errors.OutsideModel,
    RuntimeError,
    "factor/observe ran outside a generative function.",
    "decorate the function with @gen",
)
def factor_in_a_plain_call():
    factor(0.0)  # here


@case(errors.OutsideModel, RuntimeError, SEEDED, "decorate it with @gen")
def choice_in_a_seeded_function():
    def f():
        return sample("x", NORMAL)  # here

    seed(f)(KEY)


@case(errors.OutsideModel, RuntimeError, SEEDED, "decorate it with @gen", '"x"')
def choice_in_a_loop_of_a_seeded_function():
    def f():
        def body(c, _):
            return c, sample("x", NORMAL)  # here

        return jax.lax.scan(body, 0.0, None, length=3)[1]

    seed(f)(KEY)


@case(errors.MissingSeed, RuntimeError, UNSEEDED, "wrap the program: seed(f)(")
def draw_without_a_key():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    f(0.0)


@case(errors.MissingSeed, RuntimeError, UNSEEDED, "wrap the program: seed(f)(")
def draw_without_a_key_under_jit():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    jax.jit(f)(0.0)


@case(errors.MissingSeed, RuntimeError, UNSEEDED, "wrap the program: seed(f)(")
def draw_without_a_key_under_vmap():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    jax.vmap(f)(jnp.zeros(3))


@case(errors.MissingSeed, RuntimeError, UNSEEDED, "wrap the program: seed(f)(")
def draw_without_a_key_under_scan():
    def body(c, _):
        return draw(dist.Normal(c, 1.0)), None  # here

    jax.lax.scan(body, 0.0, None, length=3)


@case(
    errors.InvalidArgument,
    ValueError,
    "Only the trace of an unfold can be extended.",
    "trace = seed(unfold(step, capacity).simulate)(key",
)
def extending_another_trace():
    model = gen(lambda: sample("x", dist.Normal(0.0, 1.0)))
    extend(seed(model.simulate)(KEY), {})  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "The capacity of an unfold is the number of steps it can grow to.",
    "unfold(step, 100)",
)
def unfold_without_a_capacity():
    unfold(gen(lambda z, _: (sample("z", dist.Normal(z, 1.0)),) * 2), 0)  # here


@case(errors.MissingSeed, RuntimeError, UNSEEDED, "wrap the program: seed(f)(", address='"mu"')
def model_without_a_key():
    @gen
    def model():
        sample("mu", dist.Normal(0.0, 1.0))  # here

    model.simulate()


@case(errors.InvalidKey, TypeError, "seed needs one PRNG key.", "jax.random.key(0)")
def key_that_is_an_int():
    seed(noisy)(0, 1.0)  # here


@case(errors.InvalidKey, TypeError, "seed needs one PRNG key.", "jax.vmap(seed(f)) over the keys")
def key_that_is_a_batch():
    seed(noisy)(jax.random.split(KEY, 4), 1.0)  # here


@case(errors.InvalidKey, TypeError, "seed needs one PRNG key.", "jax.random.key(0)")
def key_that_is_forgotten():
    record(noisy)(1.0, 2.0)  # here


@case(
    errors.CannotSimulate,
    TypeError,
    "scores scores with factor/observe, so it cannot be run forward exactly.",
    "use generate({}, *args)",
)
def simulate_with_a_factor():
    @gen
    def scores():
        factor(-(sample("x", NORMAL) ** 2))

    seed(scores.simulate)(KEY)  # here


@case(
    errors.CannotSimulate,
    TypeError,
    "ImproperUniform has no sampler: an improper prior cannot be drawn.",
    "constrain or initialise it",
    '"x"',
)
def simulate_an_improper_prior():
    @gen
    def flat():
        sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))  # here

    seed(flat.simulate)(KEY)


# -- gradients, integrals, tapes --------------------------------------------------

DISCRETE = (
    "A derivative was taken through a discrete draw: "
    "JAX would return 0, which is not the derivative of the expectation."
)


@case(
    errors.GradientThroughDraw,
    TypeError,
    "A derivative was taken through a random draw.",
    "differentiate outside",
)
def gradient_inside_a_random_program():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    seed(jax.grad(f))(KEY, 1.0)


@case(errors.GradientThroughDraw, TypeError, DISCRETE, "jax.grad(expectation(f)), an unbiased")
def gradient_through_a_discrete_draw():
    def f(p):
        return 1.0 * draw(dist.Bernoulli(p))  # here

    jax.grad(lambda p: seed(f)(KEY, p))(0.5)


@case(errors.GradientThroughDraw, TypeError, DISCRETE, "jax.grad(expectation(f)), an unbiased")
def gradient_through_a_discrete_choice():
    @gen
    def flips(p):
        return 1.0 * sample("x", dist.Bernoulli(p))  # here

    jax.grad(lambda p: seed(flips.simulate)(KEY, p).retval)(0.5)


@case(
    errors.InvalidDistribution,
    ValueError,
    "CategoricalProbs has a parameter `probs` that is no array.",
    "probs=jnp.array([...])",
)
def a_list_as_a_parameter():
    seed(lambda: draw(dist.Categorical(probs=[0.5, 0.5])))(KEY)  # here


@case(
    errors.CannotIntegrate,
    TypeError,
    "A draw of Normal cannot be integrated exactly.",
    "give a number of quadrature nodes: integrate(f, nodes=16)",
)
def integral_of_a_normal():
    def f():
        return draw(NORMAL)  # here

    integrate(f)()


@case(
    errors.CannotIntegrate,
    TypeError,
    "A draw of Poisson cannot be integrated exactly.",
    "use a distribution with finitely many",
)
def law_of_a_poisson():
    def f():
        return draw(dist.Poisson(3.0))  # here

    law(f)()


@case(
    errors.CannotIntegrate,
    TypeError,
    "A draw under a `while_loop` of unknown length has unboundedly many paths.",
    "use lax.scan",
)
def integral_of_a_while_loop():
    def f():
        def step(i):
            return i + draw(dist.Bernoulli(0.5))  # here

        return jax.lax.while_loop(lambda i: i < 3, step, 0)

    integrate(f)()


@case(
    errors.CannotIntegrate,
    TypeError,
    "The program has too many paths to enumerate.",
    "shorten the loop",
)
def too_many_paths_to_list():
    paths(lambda: draw(dist.Bernoulli(0.5).expand([24])))()  # here


@case(
    errors.CannotIntegrate,
    TypeError,
    "The program has too many paths to enumerate.",
    "shorten the loop",
)
def integral_of_too_many_paths():
    def f():
        def body(c, _):
            return c, draw(dist.Bernoulli(0.5))  # here

        return jax.lax.scan(body, 0, None, length=100)[1]

    integrate(f)()


@case(
    errors.TapeMismatch,
    ValueError,
    "The tape does not fit the program.",
    "record the tape from the same program",
)
def tape_without_a_draw():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    replay(f, {})(0.0)


@case(
    errors.TapeMismatch,
    ValueError,
    "The tape does not fit the program.",
    "record the tape from the same program",
)
def tape_of_another_shape():
    def f(x):
        return draw(dist.Normal(x, 1.0))  # here

    _, tape = record(f)(KEY, jnp.zeros(3))
    replay(f, tape)(0.0)


@case(
    errors.TapeMismatch,
    ValueError,
    "The tape has draws that the program does not make.",
    "record the tape from the same program",
)
def tape_with_a_draw_too_many():
    _, tape = record(noisy)(KEY, 0.0)
    replay(lambda: draw(NORMAL), {**tape, "#9": 0.0})()  # here


# -- values that known values exclude, and values in branches ------------------------


@gen
def branching(b=0):
    f = sample("f", dist.Bernoulli(0.5))
    return jax.lax.cond(
        f == 1,
        lambda: sample("a", dist.Exponential(1.0)),
        lambda: sample("b", dist.Gamma(2.0, 1.0)),
    )


EXCLUDED = (errors.ExcludedBranch, ValueError)


@case(
    *EXCLUDED,
    'The observation gives "b", which other values exclude.',
    'leave out "b", or change "f"',
    '"b"',
)
def observation_in_an_excluded_branch():
    Target(branching, (0,), {"f": 1, "b": 1.0})  # here


@case(
    *EXCLUDED,
    'The constraint gives "b", which other values exclude.',
    'leave out "b", or change "f"',
    '"f"',
)
def constraint_in_an_excluded_branch():
    seed(branching.generate)(KEY, {"f": 1, "b": 1.0})  # here


@case(*EXCLUDED, 'assess gives "b", which other values exclude.', 'leave out "b"', '"b"')
def assess_in_an_excluded_branch():
    seed(branching.assess)(KEY, {"f": 1, "a": 1.0, "b": 1.0})  # here


@case(*EXCLUDED, 'The constraint gives "x", which other values exclude.', 'leave out "x"', '"x"')
def constraint_that_an_argument_excludes():
    @gen
    def sometimes(flag):
        return jax.lax.cond(flag, lambda: sample("x", NORMAL), lambda: 0.0)  # here

    seed(sometimes.generate)(KEY, {"x": 1.0}, False)  # here


def test_a_branch_is_excluded_only_by_values_that_are_known():
    seed(branching.assess)(KEY, {"f": 1, "a": 1.0, "b": 0.0})
    seed(branching.generate)(KEY, {"f": 1, "a": 1.0})
    seed(branching.generate)(KEY, {"f": 0, "a": Masked(1.0, False)})
    _, weight = jax.jit(seed(branching.generate))(KEY, {"f": 1, "b": 1.0})
    assert weight == -jnp.inf


@case(
    errors.SupportError,
    ValueError,
    'The value of "a" is outside the support of its distribution.',
    "check the data",
    '"a"',
)
def observation_in_a_branch_outside_the_support():
    Target(branching, (), {"a": -1.0})  # here


@case(
    errors.SupportError,
    ValueError,
    'The value of "a" is not a number.',
    "mark missing data",
    '"a"',
)
def constraint_in_a_branch_that_is_nan():
    seed(branching.generate)(KEY, {"a": np.nan})  # here


def test_a_value_shared_by_branches_needs_the_support_of_one():
    @gen
    def either():
        def uniform(high):
            return lambda: sample("x", dist.Uniform(0.0, high))

        return jax.lax.cond(sample("f", dist.Bernoulli(0.5)), uniform(1.0), uniform(2.0))

    Target(either, (), {"x": 1.5})
    Target(either, (), {"x": 0.5})
    with pytest.raises(errors.SupportError):
        Target(either, (), {"x": 2.5})


def test_masked_out_values_are_not_checked():
    given = np.array([0.0, np.nan, 2.0, np.inf, 4.0])
    Target(model, (), {"y": Masked(given, np.array([True, False, True, False, True]))})
    with pytest.raises(errors.SupportError):
        Target(model, (), {"y": Masked(given, np.array([True, True, True, False, True]))})


@case(
    errors.SupportError,
    ValueError,
    'The value of "sigma" is outside the support of its distribution.',
    "check the data",
    '"sigma"',
)
def argument_of_seed_outside_the_support():
    seed(model.generate)(KEY, {"sigma": -1.0})  # here


@case(
    errors.SupportError,
    ValueError,
    'The value of "sigma" is not a number.',
    "mark missing data",
    '"sigma"',
)
def update_with_nan():
    trace = simulated()
    seed(model.update)(KEY, trace, {"sigma": np.nan})  # here


@case(
    errors.SupportError,
    ValueError,
    'The value of "sigma" is outside the support of its distribution.',
    "check the data",
    '"sigma"',
)
def target_constraint_outside_the_support():
    target = Target(model, (), {"y": np.zeros(5)})
    seed(target.generate)(KEY, {"sigma": -1.0})  # here


@case(
    errors.SupportError,
    ValueError,
    "The log weight of factor is not a number.",
    "correct the computation",
)
def factor_of_nan():
    @gen
    def weighs():
        factor(float("nan"))  # here

    seed(weighs.generate)(KEY, {})


@case(errors.DtypeError, TypeError, "factor takes a real log weight.", "give the log")
def factor_of_a_string():
    @gen
    def weighs():
        factor("a")  # here

    seed(weighs.generate)(KEY, {})


NO_ARRAY = 'The observation gives "y" something that is no array.'


@case(errors.DtypeError, TypeError, NO_ARRAY, "give a number or an array", '"y"')
def observation_that_is_none():
    Target(model, (), {"y": None})  # here


@case(errors.DtypeError, TypeError, NO_ARRAY, "give a number or an array", '"y"')
def observation_that_is_a_string():
    Target(model, (), {"y": "a"})  # here


INVALID_SCALE = "Normal has an invalid parameter `scale`."


@case(errors.InvalidDistribution, ValueError, INVALID_SCALE, "constrain it", '"x"')
def negative_scale_in_an_array_of_the_model():
    @gen
    def wrong():
        sample("x", dist.Normal(0.0, jnp.array([1.0, -1.0])))  # here

    seed(wrong.simulate)(KEY)


@case(errors.InvalidDistribution, ValueError, INVALID_SCALE, "constrain it")
def negative_scale_in_an_array_of_a_random_program():
    seed(lambda: draw(dist.Normal(0.0, jnp.array(-1.0))))(KEY)  # here


# -- arguments of the library's functions --------------------------------------------


@case(
    errors.InvalidArgument,
    ValueError,
    "static_argnames names 'm', which is no argument of looped.",
    "use a name of its signature",
)
def static_argument_unlike_any():
    def looped(n):
        return n

    gen(looped, static_argnames="m")  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "static_argnums has 5, which is no argument of looped.",
    "count the arguments from 0",
)
def static_argument_out_of_range():
    def looped(n):
        return n

    gen(looped, static_argnums=(5,))  # here


def test_static_arguments_stay_static_through_seed():
    @gen(static_argnames=("n",))
    def sized(n):
        sample("x", dist.Normal(jnp.zeros(n), 1.0))

    trace = seed(sized.simulate)(KEY, 3)
    assert trace["x"].shape == (3,)
    assert seed(sized.generate)(KEY, {"x": np.zeros(3)}, 3)[0]["x"].shape == (3,)
    assert seed(sized.assess)(KEY, {"x": np.zeros(2)}, n=2)[0] < 0
    assert seed(sized.update)(KEY, trace, {"x": np.ones(3)}, 3)[0]["x"].sum() == 3


@case(
    errors.InvalidArgument,
    ValueError,
    "model was called with the wrong arguments: too many positional arguments.",
    "give the arguments of its signature",
)
def too_many_arguments():
    seed(model.simulate)(KEY, 1.0, 2.0, 3.0)  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "generate was called with the wrong arguments: missing a required argument: 'constraints'.",
    "give the arguments of its signature",
)
def generate_without_constraints():
    seed(model.generate)(KEY)  # here


@case(errors.InvalidArgument, ValueError, "The arguments of a target are a tuple.", "wrap the")
def target_of_an_argument_alone():
    Target(model, 3.0, {})  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "The arguments of a target are a tuple.",
    "observations come third",
)
def target_without_arguments():
    Target(model, {"mu": 1.0})  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "A target needs a generative function.",
    "decorate it: Target(gen(f), args)",
)
def target_of_a_plain_function():
    Target(noisy)  # here


@case(errors.InvalidArgument, ValueError, "A trace was expected.", "trace = seed(")
def regenerate_of_a_dict():
    seed(lambda: model.regenerate({"mu": 1.0}, "mu"))(KEY)  # here


@case(errors.InvalidArgument, ValueError, "A trace was expected.", "trace = seed(")
def update_of_a_number():
    seed(model.update)(KEY, 1.0, {"mu": 1.0})  # here


@case(errors.InvalidArgument, ValueError, "A trace was expected.", "trace = seed(")
def projection_of_a_number():
    seed(lambda: model.project(1.0, "mu"))(KEY)  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "The trace is of another model than model.",
    "use the methods of branching",
)
def update_of_another_models_trace():
    trace = seed(branching.simulate)(KEY)
    seed(lambda t: model.update(t, {"mu": 1.0}))(KEY, trace)  # here


@case(
    errors.InvalidArgument,
    ValueError,
    "inner(...) is used as a value, but it is a call that has not been run.",
    'sample("name", inner(...))',
)
def call_in_a_sum():
    @gen
    def adds():
        return inner() + 1.0  # here

    seed(adds.simulate)(KEY)


@case(
    errors.AddressNotFound,
    KeyError,
    'The value names "nois", which is no choice of the model.',
    'did you mean "noise"?',
    '"nois"',
)
def constrain_of_an_unknown_address():
    Target(inner).constrain({"nois": 1.0})  # here


@case(
    errors.MissingChoice, KeyError, 'A latent choice has no value: "noise".', "give all", '"noise"'
)
def unconstrain_without_a_latent():
    Target(inner).unconstrain({})  # here


# -- calls, keys, tapes, and what is named --------------------------------------------

NOT_RUN = "A generative function was called, but no method ran it."


@case(errors.OutsideModel, RuntimeError, NOT_RUN, "seed(model.simulate)(key, *args)")
def seed_of_a_model():
    seed(inner)(KEY)  # here


@case(errors.OutsideModel, RuntimeError, NOT_RUN, "seed(model.simulate)(key, *args)")
def seed_of_a_call():
    seed(lambda: inner())(KEY)  # here


@case(
    errors.OutsideModel,
    RuntimeError,
    "A random program scores with factor/observe outside a generative function.",
    "decorate it with @gen",
)
def factor_in_a_seeded_function():
    seed(lambda: factor(1.0))(KEY)  # here


@case(errors.OutsideModel, RuntimeError, CALLED, "decorate the function with @gen", '"x"')
def choice_under_a_plain_vmap():
    jax.vmap(lambda i: sample("x", NORMAL))(jnp.arange(3.0))  # here


@case(errors.PythonControlFlow, TypeError, BRANCHED, "use jax.lax.cond / jnp.where")
def shape_from_an_argument():
    @gen
    def sized(n):
        return sample("x", dist.Normal(jnp.zeros(n), 1.0))  # here

    seed(sized.simulate)(KEY, 3)


@case(errors.InvalidKey, TypeError, "seed needs one PRNG key.", "jax.random.key(0)")
def key_of_floats():
    seed(noisy)(jnp.zeros(2), 1.0)  # here


def test_a_raw_key_may_be_a_numpy_array():
    raw = jax.random.key_data(KEY)
    assert seed(noisy)(np.asarray(raw), 1.0) == seed(noisy)(raw, 1.0) == seed(noisy)(KEY, 1.0)


@case(
    errors.CannotIntegrate,
    TypeError,
    "A draw of Normal cannot be integrated exactly.",
    "use integrate(f, nodes=16) for an expectation",
)
def law_of_a_normal():
    law(lambda: draw(NORMAL))()  # here


@case(
    errors.CannotSimulate,
    TypeError,
    "nests scores with factor/observe, so it cannot be run forward exactly.",
    "use generate({}, *args)",
)
def simulate_with_a_nested_factor():
    @gen
    def scores():
        factor(1.0)  # here

    @gen
    def nests():
        sample("sub", scores())

    seed(nests.simulate)(KEY)  # here


@case(
    errors.TapeMismatch,
    ValueError,
    "The tape does not fit the program.",
    "record the tape from the same program",
)
def tape_of_floats_for_an_integer():
    replay(lambda: draw(dist.Bernoulli(0.5)), {"#0": 0.7})()  # here


@case(
    errors.TapeMismatch,
    ValueError,
    "A tape is a dict from the draws' names to their values.",
    "result, tape = record(f)(key, *args)",
)
def tape_that_is_a_number():
    replay(noisy, 3.0)  # here


# -- the contract -----------------------------------------------------------------


@pytest.mark.parametrize(("mistake", "kind", "builtin", "what", "fix", "address"), CASES)
def test_error_names_the_mistake_its_line_and_a_fix(mistake, kind, builtin, what, fix, address):
    with pytest.raises(kind) as caught:
        mistake()
    error = caught.value
    assert type(error) is kind
    assert issubclass(kind, errors.PPLError) and issubclass(kind, builtin)
    text = str(error)
    lines = text.split("\n")
    assert len(lines) <= 12
    assert lines[0] == what
    fixes = [line.removeprefix("  fix:      ") for line in lines if line.startswith("  fix: ")]
    assert len(fixes) == 1 and fixes[0] and fixes[0].startswith(fix)
    assert "test_errors.py" in text and "<unknown>" not in text
    assert marked(mistake)
    for line in marked(mistake):
        assert re.search(rf"^  where: .*test_errors\.py:{line}$", text, re.MULTILINE)
    if address is not None:
        assert address in text


def classes(parent=errors.PPLError):
    for kind in parent.__subclasses__():
        yield kind
        yield from classes(kind)


def rows():
    """The table of docs/errors.md: {class: (builtin, when, what to do)}."""
    text = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("` "): [cell.strip("` ") for cell in rest] for name, *rest in cells}


def test_every_error_class_has_a_row_with_its_builtin():
    table = rows()
    assert sorted(table) == sorted(kind.__name__ for kind in classes())
    for kind in classes():
        builtin, when, todo = table[kind.__name__]
        assert issubclass(kind, getattr(builtins, builtin)) and when and todo


def test_message_of_long_values_has_at_most_twelve_lines():
    error = errors.ShapeError(
        "what", where=["f.py:1"] * 9, given="a\n" * 99, expected="b\n" * 99, fix="c\n" * 999
    )
    assert len(str(error).split("\n")) <= 12


def test_many_draws_in_a_row_are_warned_about():
    def long(n):
        x = 0.0
        for _ in range(n):
            x = draw(dist.Normal(x, 1.0))
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(seed(lambda: long(200)), KEY)
        jax.eval_shape(seed(lambda: jax.lax.fori_loop(0, 1000, lambda i, x: long(1), 0.0)), KEY)
    with pytest.warns(errors.UnrolledDraws, match="201 draws one by one") as caught:
        jax.eval_shape(seed(lambda: long(201)), KEY)
    text = str(caught[0].message)
    assert "test_errors.py" in text and "jax.lax.scan" in text and len(text.splitlines()) <= 12
