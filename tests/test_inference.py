"""Inference programs have the law they claim, exactly: `integrate` of the algorithms.

Tolerance 1e-12: sums of at most 1e5 path probabilities in float64.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Move,
    Weighted,
    annealed,
    collapse,
    cycle,
    each,
    gibbs,
    importance,
    iterate,
    lift,
    log_evidence,
    marginal,
    metropolize,
    mh,
    mixture,
    multinomial,
    nested_sampling,
    normalize,
    nuts,
    particle_gibbs,
    resample,
    run_particles,
    sample_posterior,
    smc2,
    start,
    systematic,
    then,
    unit,
    weigh,
)
from ppl import Target, factor, gen, integrate, paths, sample, seed
from ppl.errors import InvalidArgument, InvalidKey, ShapeError
from semantics.compiling import QUICK

EXACT = 1e-12
PRIOR = jnp.array([0.5, 0.2, 0.3])
LIKELIHOOD = jnp.array([[0.9, 0.2, 0.4], [0.3, 0.7, 0.1]])


@gen
def model():
    a = sample("a", dist.Bernoulli(0.3))
    b = sample("b", dist.Categorical(PRIOR[(jnp.arange(3) + a) % 3]))
    sample("y", dist.Bernoulli(LIKELIHOOD[a, b]))


target = Target(model, (), {"y": 1})


def posterior():
    """Unnormalised mass of each (a, b), by hand."""
    mass = np.zeros((2, 3))
    for a in range(2):
        for b in range(3):
            p = [0.7, 0.3][a] * float(PRIOR[(b + a) % 3])
            mass[a, b] = p * float(LIKELIHOOD[a, b])
    return mass


def exact(run):
    """The expectation, compiled as a whole: run bare, each operation is compiled by itself."""
    return np.asarray(jax.jit(integrate(run), compiler_options=QUICK)())


def indicator(trace):
    return jnp.zeros((2, 3)).at[trace["a"], trace["b"]].set(1.0)


def measure(step):
    """The whole measure <<step(unit)>> over (a, b)."""

    def run():
        s = step(unit())
        if s.log_weight.ndim == 0:
            return jnp.exp(s.log_weight) * indicator(s.value)
        return jnp.mean(jnp.exp(s.log_weight)[:, None, None] * jax.vmap(indicator)(s.value), 0)

    return exact(run)


def trace_of(a, b):
    return target.generate({"a": a, "b": b})[0]


def matrix(kernel):
    """The transition matrix of a kernel on the six states."""

    def row(a, b):
        return integrate(lambda a, b: indicator(kernel(trace_of(a, b))))(a, b).reshape(6)

    states = jnp.arange(6)
    rows = jax.jit(jax.vmap(lambda s: row(s // 3, s % 3)), compiler_options=QUICK)
    return np.asarray(rows(states))


@gen
def flip(latents):
    sample("to", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    sample("a", dist.Bernoulli(jnp.where(latents["b"] == 1, 0.3, 0.6)))


def swap(x, u):
    return {"a": u["a"], "b": u["to"]}, {"to": x["b"], "a": x["a"]}


user = metropolize(Move(flip, swap), target)
KERNELS = {
    "mh a": mh(target, "a"),
    "mh both": cycle(mh(target, "a"), mh(target, "b")),
    "user": user,
    "mixture": mixture([mh(target, "b"), user], [0.3, 0.7]),
    "iterated": iterate(mixture([mh(target, "a"), user]), 2),
}


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_kernels_leave_the_posterior(kernel):
    pi = posterior().reshape(6)
    pi = pi / pi.sum()
    k = matrix(kernel)
    np.testing.assert_allclose(k.sum(1), 1, rtol=EXACT)
    np.testing.assert_allclose(pi @ k, pi, rtol=0, atol=EXACT)


def broken(term):
    """The user's kernel with one term of its ratio left out."""
    from inference.move import accept

    def kernel(trace):
        x = target.choices(trace)
        forward = flip.simulate(x)
        new_x, new_u = swap(x, forward.choices)
        changed, difference, _ = target.update(trace, new_x)
        backward, _ = flip.assess(new_u, new_x)
        ratio = {"model": difference, "backward": backward, "forward": -forward.score}
        return accept(trace, changed, sum(v for name, v in ratio.items() if name != term))

    return kernel


@pytest.mark.slow
@pytest.mark.parametrize("term", ["model", "backward", "forward"])
def test_a_missing_term_is_seen(term):
    pi = posterior().reshape(6)
    pi = pi / pi.sum()
    assert np.abs(pi @ matrix(broken(term)) - pi).max() >= 1e-4
    np.testing.assert_allclose(matrix(broken(None)), matrix(user), rtol=0, atol=EXACT)


STEPS = {
    "start": start(target),
    "importance": importance(target, 3),
    "multinomial": then(importance(target, 2), lambda s: resample(s, multinomial)),
    "collapse": then(importance(target, 3), collapse),
    "importance, resample, mh": then(
        importance(target, 2), lambda s: resample(s, multinomial), each(lift(mh(target, "b")))
    ),
    "smc with a user kernel": then(
        importance(target, 2), lambda s: resample(s, multinomial), each(lift(user)), collapse
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_steps_are_proper(step):
    np.testing.assert_allclose(measure(step), posterior(), rtol=0, atol=EXACT)


def test_dropping_the_weight_is_seen():
    def forgetful(s):
        r = resample(s, multinomial)
        return Weighted(r.value, jnp.zeros_like(r.log_weight))

    assert np.abs(measure(then(importance(target, 2), forgetful)) - posterior()).max() >= 1e-4


def test_systematic_is_unbiased():
    """Offspring counts average n w_i: exact, between the breakpoints of the one uniform."""
    weights = jnp.array([0.1, 0.0, 0.55, 0.35])
    # counts are piecewise constant in u with breakpoints at the fractional parts of 4 cumsum(w)
    cuts = np.unique(np.concatenate([[0, 1], (4 * np.cumsum(np.asarray(weights))) % 1]))
    total = np.zeros(4)
    for low, high in itertools.pairwise(cuts):
        if high - low > 1e-12:
            ancestors = _systematic_at(weights, (low + high) / 2)
            total += (high - low) * np.bincount(np.asarray(ancestors), minlength=4)
    np.testing.assert_allclose(total, 4 * np.asarray(weights), rtol=0, atol=EXACT)


def _systematic_at(weights, u):
    from ppl import replay

    return jax.jit(replay(lambda: systematic(weights), {"#0": jnp.asarray(u)}))()


@pytest.mark.parametrize("u", [0.0, 5e-324, 1 - 2.0**-53])
def test_systematic_at_the_ends(u):
    """A particle of weight zero has no offspring at any uniform; all n slots are filled."""
    for weights in ([0.0, 0.3, 0.7, 0.0], [1.0, 0, 0, 0], [0, 0, 0, 1.0], [1 / 3, 1 / 3, 1 / 3]):
        w = np.asarray(weights)
        ancestors = np.asarray(_systematic_at(jnp.asarray(w), u))
        assert len(ancestors) == len(w)
        assert (w[ancestors] > 0).all()


def test_weights_of_zero_are_evidence_zero():
    s = Weighted(jnp.arange(3), jnp.full(3, -jnp.inf))
    r = jax.jit(seed(lambda: resample(s)))(jax.random.key(0))
    assert float(log_evidence(r)) == -np.inf
    assert not np.isnan(np.asarray(r.log_weight)).any()


@gen
def line():
    slope = sample("slope", dist.Normal(0.0, 1.0))
    scale = sample("scale", dist.Exponential(1.0))
    sample("y", dist.Normal(slope * jnp.array([1.0, 2.0]), scale))


narrow = Target(line, (), {"y": jnp.array([0.5, 1.5])})
wide = Target(line, (), {"y": jnp.array([0.4, 1.0])})


@gen
def stretch(latents):
    sample("s", dist.Normal(latents["slope"], 0.5))
    sample("log", dist.Normal(0.0, 1.0))


def rescale(x, u):
    there = {"slope": u["s"], "scale": x["scale"] * jnp.exp(u["log"])}
    return there, {"s": x["slope"], "log": -u["log"]}


def test_weigh_has_the_jacobian():
    """log w against the densities written by hand; the Jacobian of the move is e^log."""
    old = narrow.generate({"slope": 0.3, "scale": 0.8})[0]
    tape_u = {"s": 0.9, "log": -0.4}
    tape = {"#0": jnp.asarray(tape_u["s"]), "#1": jnp.asarray(tape_u["log"])}
    from ppl import replay

    step = weigh(Move(stretch, rescale), narrow, wide)
    out = jax.jit(replay(lambda: step(Weighted(old, jnp.zeros(()))), tape))()
    n = lambda x, m, s: float(dist.Normal(m, s).log_prob(x))  # noqa: E731

    def joint(slope, scale, y):
        return (n(slope, 0, 1) - scale) + n(y[0], slope, scale) + n(y[1], 2 * slope, scale)

    new = 0.8 * np.exp(-0.4)
    expected = joint(0.9, new, [0.4, 1.0]) - joint(0.3, 0.8, [0.5, 1.5])
    expected += n(0.3, 0.9, 0.5) + n(0.4, 0, 1) - n(0.9, 0.3, 0.5) - n(-0.4, 0, 1) - 0.4
    # d(scale', log')/d(scale, log) has determinant -e^log; slope and s are swapped
    assert float(out.log_weight) == pytest.approx(expected, abs=1e-12)


def test_quadrature_of_a_continuous_target():
    """E[e^w] of generate by Gauss-Hermite, against the closed form."""

    @gen
    def gaussian():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 0.5))

    t = Target(gaussian, (), {"y": 1.2})
    value, error = jax.jit(integrate(lambda: jnp.exp(t.generate()[1]), nodes=(60, 80)))()
    exact = float(jnp.exp(dist.Normal(0.0, jnp.sqrt(1.25)).log_prob(1.2)))
    assert float(value) == pytest.approx(exact, abs=max(10 * float(error), 1e-14))
    assert float(error) < 1e-9


def test_paths_masses_add_up():
    _, masses = jax.jit(paths(lambda: importance(target, 3)(unit()).log_weight))()
    assert float(masses.sum()) == pytest.approx(1.0, abs=EXACT)


@gen
def chain(theta):
    """A hidden chain of two steps; its transition probability is theta's."""
    p = jnp.array([0.3, 0.8])[theta]
    x = 1
    for t in range(2):
        x = sample(f"x{t}", dist.Bernoulli(jnp.where(x == 1, p, 1 - p)))
        sample(f"y{t}", dist.Bernoulli(jnp.array([0.2, 0.7])[x]))


def estimated(theta):
    return log_evidence(importance(Target(chain, (theta,), {"y0": 1, "y1": 0}), 2)(unit()))


@gen
def marginalized():
    theta = sample("theta", dist.Bernoulli(0.4))
    factor(estimated(theta))


@gen
def other(latents):
    sample("to", dist.Bernoulli(0.3))


pseudo = Target(marginalized, (), {})
PSEUDO_MARGINAL = {
    "pmmh": mh(pseudo, "theta"),
    "pmmh, user proposal": metropolize(
        Move(other, lambda x, u: ({"theta": u["to"]}, {"to": x["theta"]})), pseudo
    ),
}


def hidden_mass(theta):
    """p(theta, y) by hand."""
    p, start, emit = [0.3, 0.8][theta], 1, [0.2, 0.7]
    total = 0.0
    for x0 in (0, 1):
        for x1 in (0, 1):
            a = p if start == 1 else 1 - p
            b = p if x0 == 1 else 1 - p
            moves = (a if x0 else 1 - a) * (b if x1 else 1 - b)
            total += moves * emit[x0] * (1 - emit[x1])
    return [0.6, 0.4][theta] * total


def pseudo_measure(kernel):
    def run():
        s = start(pseudo)(unit())
        return jnp.exp(s.log_weight) * jnp.zeros(2).at[kernel(s.value)["theta"]].set(1.0)

    return exact(run)


@pytest.mark.parametrize("kernel", PSEUDO_MARGINAL.values(), ids=PSEUDO_MARGINAL.keys())
def test_pseudo_marginal_kernels_are_exact(kernel):
    """With two particles, the marginal over theta is the posterior, exactly."""
    expected = [hidden_mass(0), hidden_mass(1)]
    np.testing.assert_allclose(pseudo_measure(lambda t: t), expected, rtol=0, atol=EXACT)
    np.testing.assert_allclose(pseudo_measure(kernel), expected, rtol=0, atol=EXACT)


def test_refreshing_the_old_estimate_is_seen():
    """The mutant that estimates the current state anew (not exact) is caught."""

    def fresh(trace):
        again = marginalized.update(trace, {})[0]
        return PSEUDO_MARGINAL["pmmh"](again)

    wrong = pseudo_measure(fresh)
    assert np.abs(wrong - [hidden_mass(0), hidden_mass(1)]).max() >= 1e-4


@pytest.mark.parametrize(
    ("involution", "words"),
    [
        (lambda x, u: ({"slope": u["s"]}, u), "changed the structure"),
        (lambda x, u: ({**x, "slope": u["s"][None]}, u), "changed the shape or dtype"),
        (lambda x, u: ({**x, "slope": 1}, u), "changed the shape or dtype"),
    ],
)
def test_a_map_that_is_no_involution_of_the_space_is_named(involution, words):
    kernel = metropolize(Move(stretch, involution), narrow)
    old = narrow.generate({"slope": 0.3, "scale": 0.8})[0]
    with pytest.raises(InvalidArgument, match=words) as caught:
        seed(kernel)(jax.random.key(0), old)
    assert f"test_inference.py:{involution.__code__.co_firstlineno}" in str(caught.value)


@pytest.mark.parametrize("step", [resample, collapse])
def test_a_step_on_particles_needs_particles(step):
    with pytest.raises(ShapeError, match="population of particles") as caught:
        seed(lambda: step(unit()))(jax.random.key(0))
    assert "test_inference.py" in str(caught.value)


@pytest.mark.parametrize("key", [0, jax.random.split(jax.random.key(0), 2)])
def test_the_driver_takes_one_key(key):
    with pytest.raises(InvalidKey):
        sample_posterior(key, target, mh(target, "a"), draws=1, warmup=1)


WANTS_A_TARGET = {
    "importance": lambda: importance(model, 3),
    "mh": lambda: mh(model, "a"),
    "gibbs": lambda: gibbs(model, "a"),
    "nuts": lambda: nuts(model),
    "annealed": lambda: annealed(model, 3, lambda t: mh(t, "a")),
    "nested": lambda: nested_sampling(model, 3),
    "particle_gibbs": lambda: particle_gibbs(model, "a", 3),
    "marginal": lambda: marginal(model, "a", lambda rest: importance(rest, 3)),
    "sample_posterior": lambda: sample_posterior(jax.random.key(0), model, user),
}


@pytest.mark.parametrize("call", WANTS_A_TARGET.values(), ids=WANTS_A_TARGET.keys())
def test_a_model_where_a_target_is_due_is_told(call):
    with pytest.raises(InvalidArgument, match="A target was expected, not its model") as caught:
        call()
    told = str(caught.value)
    assert f"test_inference.py:{call.__code__.co_firstlineno}" in told
    assert "Target(model, (...), {...})" in told


WANTS_A_FACTORY = {
    "annealed": lambda kernel: annealed(target, 3, kernel)(unit()),
    "nested": lambda kernel: nested_sampling(target, 3, kernel),
    "smc2": lambda kernel: smc2(Target(flips), "x", 2, 2, kernel)(unit()),
}


@gen
def flips():
    p = sample("p", dist.Beta(1.0, 1.0))
    jax.lax.scan(lambda c, _: (sample("x", dist.Bernoulli(p)), None), 0, None, length=3)


@pytest.mark.parametrize("call", WANTS_A_FACTORY.values(), ids=WANTS_A_FACTORY.keys())
def test_a_kernel_where_one_is_to_be_made_is_told(call):
    with pytest.raises(InvalidArgument, match="a function that makes one is due") as caught:
        seed(lambda: call(mh(target, "a")))(jax.random.key(0))
    assert "test_inference.py" in str(caught.value) and "lambda target: mh" in str(caught.value)


def test_what_is_no_algorithm_is_told():
    with pytest.raises(InvalidArgument, match="using is no function"):
        normalize(target, 3)
    with pytest.raises(InvalidArgument, match="no program to run"):
        run_particles(jax.random.key(0), 5)
