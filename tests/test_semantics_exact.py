"""Exact checks of kernels and steps: correct ones pass, and a failure says where and why."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Move,
    Weighted,
    collapse,
    cycle,
    each,
    importance,
    lift,
    mh,
    mixture,
    multinomial,
    resample,
    then,
)
from inference.move import accept
from ppl import Target, draw, gen, sample
from semantics import (
    CheckFailed,
    Measure,
    check_kernel,
    check_kernel_quadrature,
    check_kernel_sampled,
    check_move,
    check_proper,
    check_pure_kernel,
    kernel_matrix,
    programs,
    target_measure,
)
from semantics.report import Verdict, joined

SHAPES = programs.discrete(shapes=("one", "chain", "branch"))


def sweep(target):
    return cycle(*[mh(target, address) for address in target.latents])


def two_kernels(target):
    if not target.latents:
        return lambda trace: trace
    first, last = target.latents[0], target.latents[-1]
    return mixture([mh(target, first), mh(target, last)], [0.25, 0.75])


def resampled(target):
    return then(importance(target, 2), partial(resample, scheme=multinomial))


def moved(target):
    return then(resampled(target), each(lift(sweep(target))))


KERNELS = pytest.mark.parametrize("make", [sweep, two_kernels])


@KERNELS
def test_correct_kernels_pass(make):
    verdict = check_kernel(make, SHAPES).require()
    assert verdict.programs == 100 and verdict.method == "exact"


@pytest.mark.slow
@KERNELS
def test_correct_kernels_pass_on_every_shape(make):
    check_kernel(make, programs.discrete(), max_examples=300).require()


@pytest.mark.slow
def test_importance_resampling_and_moves_are_proper():
    check_proper(resampled, SHAPES).require()
    check_proper(moved, programs.discrete(shapes=("one", "pair"))).require()
    check_proper(lambda t: then(importance(t, 3), collapse), SHAPES).require()


@pytest.mark.slow
def test_importance_and_resampling_are_proper_on_every_shape():
    check_proper(resampled, programs.discrete(), max_examples=300).require()


def accept_always(target):
    def kernel(trace):
        for address in target.latents:
            trace = target.regenerate(trace, address)[0]
        return trace

    return kernel


def stale_score(target):
    def kernel(trace):
        new = sweep(target)(trace)
        return type(trace)(**{**vars(new), "score": trace.score})

    return kernel


def moves_data(target):
    """Proposes from the model the data too."""

    def kernel(trace):
        changed, log_ratio, _ = target.model.regenerate(trace, "seen")
        return accept(trace, changed, log_ratio)

    return kernel


@gen
def seen():
    a = sample("a", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    sample("seen", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[a]))


@pytest.mark.slow
def test_a_failure_is_shrunk_and_runs_as_code():
    """The witness is a program on which the same kernel fails again."""
    verdict = check_kernel(accept_always, SHAPES)
    assert not verdict and verdict.method == "exact"
    code = verdict.witness[verdict.witness.index("import jax") :]
    names: dict = {}
    exec(code, names)
    assert not check_kernel(accept_always, names["target"])
    assert check_kernel(sweep, names["target"])
    assert len(names["target"].sites) <= 3
    with pytest.raises(CheckFailed, match="FAILED"):
        verdict.require()


def test_what_a_kernel_may_not_touch():
    target = Target(seen, (), {"seen": 1})
    assert check_kernel(partial(mh, selection="a"), target)
    assert check_kernel(stale_score, target).check == "fresh score"
    assert not check_kernel(moves_data, target)


def forgets_mass(target):
    def step(s):
        r = resample(s, multinomial)
        return Weighted(r.value, jnp.zeros_like(r.log_weight))

    return then(importance(target, 2), step)


def test_a_forgotten_weight_is_seen():
    verdict = check_proper(forgets_mass, SHAPES)
    assert not verdict and "mass" in verdict.witness


def test_a_step_between_targets():
    """From a tempered target to the target, by weighing with the ratio of densities."""

    def tempered(target):
        @gen
        def flat():
            sample("a", dist.Categorical(jnp.array([0.5, 0.25, 0.25])))

        return Target(flat)

    def reweigh(target):
        def step(s):
            choices = {"a": s.value["a"]}
            new = target.generate(choices)[0]
            return Weighted(new, s.log_weight + target.log_density(choices) - s.value.score)

        return step

    target = Target(seen, (), {"seen": 1})
    assert check_proper(reweigh, target, source=tempered)
    assert not check_proper(lambda t: lambda s: s, target, source=tempered)


def test_measures_and_matrices_by_hand():
    target = Target(seen, (), {"seen": 1})
    masses = {((("a",), 0),): 0.02, ((("a",), 1),): 0.15, ((("a",), 2),): 0.45}
    found = target_measure(target)
    for value, mass in masses.items():
        assert found[value] == pytest.approx(mass, rel=1e-15 * 8)
    pi, k = kernel_matrix(lambda t: mh(t, "a"), target)
    p, like = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.5, 0.9])
    by_hand = p * np.minimum(1, like / like[:, None])
    by_hand += np.diag(1 - by_hand.sum(1))
    np.testing.assert_allclose(np.asarray(k.rows, float), by_hand, rtol=0, atol=1e-15)
    assert k.is_irreducible() and k.is_aperiodic()
    assert k.reversibility_error(pi) < 1e-15
    assert float(pi.total_variation(Measure.of(masses).normalized())) < 1e-15


def test_joining_verdicts_keeps_the_failure():
    good = Verdict("a", True, "exact", 1e-16, 1e-12, 3)
    bad = Verdict("b", False, "exact", 1e-3, 1e-12, 4, witness="here")
    both = joined("both", [good, bad])
    assert not both and both.n == 7 and both.witness == "here"
    assert joined("one", [good]).passed


def test_equal_shapes_compile_once():
    """A second program of the same shape, or a second call, traces nothing anew."""

    def make(target):
        make.traced += 1
        return sweep(target)

    make.traced = 0
    for p in (0.2, 0.7):
        assert check_kernel(make, Target(_coin, (jnp.array(p),), {"y": 1}))
    assert make.traced == 1


@gen
def _coin(p):
    x = sample("x", dist.Bernoulli(p))
    sample("y", dist.Bernoulli(jnp.where(x == 1, 0.9, 0.3)))


# R6: a target's static arguments were traced where it crossed `jit`; every check of a target
@gen(static_argnames="n")
def several(n):
    x = sample("x", dist.Bernoulli(0.3))
    sample("z", dist.Bernoulli(0.2 + 0.5 * x).expand([n]))


@gen(static_argnames="n")
def several_normals(n):
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("z", dist.Normal(x, 1.0).expand([n]))


STATIC = Target(several, (2,), {"z": jnp.array([0, 1])})
STATIC_NORMAL = Target(several_normals, (2,), {"z": jnp.array([0.3, 1.0])})


def walks(target):
    def kernel(trace):
        moved = {"x": trace["x"] + draw(dist.Normal(0.0, 1.0))}
        return accept(trace, *target.update(trace, moved)[:2])

    return kernel


def flip(target):
    coin = gen(lambda latents: sample("by", dist.Bernoulli(0.5)))
    return Move(coin, lambda latents, u: ({"x": (latents["x"] + u["by"]) % 2}, u))


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        lambda: check_proper(lambda t: importance(t, 2), STATIC),
        lambda: check_kernel(lambda t: mh(t, "x"), STATIC),
        lambda: check_pure_kernel(lambda t: mh(t, "x"), STATIC, jax.random.key(0)),
        lambda: check_kernel_quadrature(walks, STATIC_NORMAL, nodes=(80, 120)),
        lambda: joined("move", check_move(flip, STATIC)),
    ],
)
def test_checks_of_a_target_with_static_arguments(check):
    check().require()


def test_measures_of_a_target_with_static_arguments():
    """p(x, z = (0, 1)) = .7 * .8 * .2 and .3 * .3 * .7."""
    zero, one = 0.7 * 0.8 * 0.2, 0.3 * 0.3 * 0.7
    measure = target_measure(STATIC)
    assert measure[((("x",), 0),)] == pytest.approx(zero, rel=1e-14)
    assert measure[((("x",), 1),)] == pytest.approx(one, rel=1e-14)
    pi, _ = kernel_matrix(lambda t: mh(t, "x"), STATIC)
    assert pi[((("x",), 1),)] == pytest.approx(one / (zero + one), rel=1e-14)
    crossed = jax.jit(lambda t: t.log_density({"x": 1}))(STATIC)
    np.testing.assert_allclose(crossed, np.log(one), rtol=1e-14)
    assert jax.tree.map(lambda leaf: leaf, STATIC).args == (2,)


def test_sampled_checks_of_a_target_with_static_arguments():
    """It runs; its verdict has a false alarm, which other tests pay for."""
    found = check_kernel_sampled(lambda t: mh(t, "x"), STATIC, jax.random.key(0))
    assert found.method == "e-value" and found.n > 0
