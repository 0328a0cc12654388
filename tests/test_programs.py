"""The programs that the strategies make are what they say, and print as code that runs."""

import functools
import math
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from ppl import Target
from ppl.addresses import flatten, nest
from semantics.generated.closed_forms import BRANCHING
from semantics.generated.finite import thawed
from semantics.generated.programs import (
    SHAPES,
    conjugate,
    discrete,
    guides,
    linear_gaussian,
    mixed,
    nested,
    state_space,
)

EXACT = 1e-12  # some hundred terms in float64, each with relative rounding error 1e-16
few = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
first = settings(few, max_examples=1, phases=[Phase.generate])
# Compiling is what takes the time here.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# -- the numbers that the strategies claim -----------------------------------------------------


@functools.cache
def log_density(source, model):
    """log p(latents, observations; args) of a program given as code, compiled once."""
    return quick_jit(lambda args, seen, latents: Target(model, args, seen).log_density(latents))


@settings(few, max_examples=40)
@given(st.one_of(conjugate(), linear_gaussian(), mixed()))
def test_closed_forms(program):
    """Bayes' rule holds at several points: p(x, y) = p(y, component) p(x | y, component).

    The densities are below e^1000 in absolute value of their logarithm, and covariances
    have condition numbers below 1e4: relative errors of 1e-16 times both make 1e-9.
    """
    density = log_density(program.source, program.model)
    names = [path for (path,) in program.target.latents]
    for component in program.components:
        for point in points(component.posterior):
            here = dict.fromkeys(names, jnp.zeros(())) | dict(component.choices)
            if program.source == BRANCHING:
                here |= dict(zip(component.latents, point, strict=True))
            else:
                here |= dict.fromkeys(component.latents, point)
            expected = component.log_mass
            if component.posterior is not None:
                expected += float(component.posterior.log_prob(point))
            found = float(density(program.args, program.observed, here))
            assert found == pytest.approx(expected, abs=1e-9)


def points(posterior):
    """Three points that are nothing special to the posterior (one, where it has no choices)."""
    if posterior is None:
        return [()]
    mean = np.asarray(posterior.mean)
    away = np.linspace(0.5, 0.7, mean.size).reshape(mean.shape)
    return [mean, mean * away + 0.01, mean * (1.1 - 0.2 * away) + 0.02]


@settings(few, max_examples=40)
@given(state_space())
def test_state_space(hmm):
    """The forward algorithm agrees with enumeration, and its bounds are bounds."""
    posterior = hmm.program.posterior()
    assert hmm.evidence == pytest.approx(float(posterior.mass), rel=EXACT)
    states = [[dict(choices)["x",][t] for choices in posterior.support] for t in range(hmm.steps)]
    masses = np.array([float(posterior[choices]) for choices in posterior.support])
    for t, values in enumerate(states):
        found = np.bincount(values, weights=masses, minlength=hmm.marginals.shape[1])
        np.testing.assert_allclose(found / masses.sum(), hmm.marginals[t], rtol=0, atol=EXACT)
    latent = hmm.program.prior().map(hmm.program.latent)
    low, high = hmm.bounds
    for choices in posterior.support:
        likelihood = float(posterior[choices] / latent[choices])
        assert low**hmm.steps * (1 - EXACT) <= likelihood <= high**hmm.steps * (1 + EXACT)


@settings(few, max_examples=60)
@given(guides())
def test_guides(pair):
    """A guide chooses exactly the latents, and may choose all that the posterior does."""
    program, guide = pair
    latents = {path: info.shape for path, info in program.sites.items()}
    for path, _ in program.observations:
        del latents[path]
    assert {path: info.shape for path, info in guide.sites.items()} == latents
    assert guide.prior().mass == 1
    assert set(program.posterior().support) <= set(guide.prior().support)


@settings(few, max_examples=60)
@given(st.one_of(discrete(), nested()))
def test_generated_programs_are_possible_and_lopsided(program):
    """Positive evidence, no uniform row of a table, and something of size 3 in each shape."""
    assert program.prior().mass == 1
    assert 0 < program.posterior().mass <= 1
    for name, table in program.counts:
        table = np.asarray(table)
        flat = (table == table[..., :1]).all(-1)
        assert table.shape[-1] == 1 or not flat.any(), name


# -- code ------------------------------------------------------------------------------------


def stack(choices):
    """Frozen choice maps as one choice map with an axis in front."""
    maps = [flatten(thawed(each)) for each in choices]
    return nest({path: np.stack([each[path] for each in maps]) for path in maps[0]})


def run_code(code):
    names = {}
    exec(code, names)
    return names["target"]


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "empty"])
def test_code_of_finite_programs(shape):
    """The target that the code defines has the exact posterior."""
    program = find(discrete([shape], rows="positive"), lambda program: True, settings=first)
    target, posterior = run_code(program.code()), program.posterior()
    assert set(target.latents) == {path for path, _ in program.latent(program.prior().support[0])}
    latents = stack(posterior.support)
    found = quick_jit(jax.vmap(target.log_density))(latents)
    expected = [math.log(mass) for mass in posterior.weights.values()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


@settings(few, max_examples=20)
@given(st.one_of(conjugate(), linear_gaussian(), mixed()))
def test_code_of_closed_forms(program):
    """The code's target has the same model, arguments and observations."""
    target = run_code(program.code())
    component = program.components[0]
    assert program.source in program.code()
    for mine, theirs in zip(program.args, target.args, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name, value in program.observed.items():
        np.testing.assert_array_equal(target.observations[name], value)
    latents = {(name,) for name in component.latents} | {(k,) for k, _ in component.choices}
    assert latents <= set(target.latents)


def test_a_failure_shrinks_to_code_that_runs():
    """What Hypothesis prints of a false claim is a minimal program, and it runs."""

    @settings(few, max_examples=100, phases=[Phase.generate, Phase.shrink])
    @given(discrete())
    def no_program_observes_a_2(program):
        assert 2 not in dict(program.observations).values()

    with pytest.raises(AssertionError) as failure:
        no_program_observes_a_2()
    text = textwrap.dedent("\n".join(failure.value.__notes__))
    code = textwrap.dedent(text[text.index("import jax") :].split(",\n)")[0])
    target = run_code(code)
    assert target.latents == [("b",)]
    np.testing.assert_array_equal(target.args[0]["a"], [0, 0, 1])
    np.testing.assert_array_equal(target.args[0]["b"], [0, 1])
    assert {name: int(value) for name, value in target.observations.items()} == {"a": 2}
