"""What would be wrong is an error before anything compiles: guides, and arguments of objectives."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import by_importance, elbo, iwelbo, normalize
from inference.vi.auxiliary import hvi
from inference.vi.divergences import forward_kl
from inference.vi.f_divergence import f_divergence
from inference.vi.renyi import renyi
from inference.vi.vimco import vimco
from inference.vi.wake import sleep
from ppl import PPLError, Target, gen, sample, seed
from ppl.errors import AddressNotFound, GuideMismatch, InvalidArgument, NoStrategy
from tests.two_coins import TARGET, guide, wide


@gen
def mean_field(m):
    sample("z", dist.Normal(m, 0.8))


def wrong(fn, target=TARGET):
    with pytest.raises(PPLError) as caught:
        seed(elbo(target, gen(fn)))(jax.random.key(0), 0.4)
    return caught.value


def unit():
    u = sample("u", dist.Uniform(0.0, 1.0))
    sample("y", dist.Bernoulli(u))


def several_heads():
    sample("u", dist.Normal(0.0, 1.0).expand([5]))


WITHIN = Target(gen(unit), (), {"y": 1})
FIVE = Target(gen(several_heads))


@pytest.mark.parametrize(
    "fn, target, words",
    [
        (lambda p: sample("a", dist.Bernoulli(p)), TARGET, 'make "b" in the guide'),
        (lambda p: [sample(x, dist.Bernoulli(p)) for x in "abc"], TARGET, 'leave "c" out'),
        (lambda p: [sample(x, dist.Bernoulli(p)) for x in "aby"], TARGET, "is observed"),
        (
            lambda p: [sample(x, dist.Bernoulli(p).expand([2])) for x in "ab"],
            TARGET,
            "shape (2,)",
        ),
        (lambda p: sample("u", dist.Normal(p, 1.0).expand([5, 1])), FIVE, "shape (5, 1)"),
        (lambda p: [sample(x, dist.Normal(p, 1.0)) for x in "ab"], TARGET, "discrete guide"),
        (lambda p: sample("u", dist.Delta(p)), WITHIN, "a point"),
        (lambda p: sample("u", dist.Normal(p, 1.0)), WITHIN, "a support inside"),
        (lambda p: sample("u", dist.Uniform(0.0, p)), WITHIN, "a support inside"),
        (lambda p: sample("u", dist.Uniform(0.0, 5.0)), WITHIN, "a support inside"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(fn, target, words):
    error = wrong(fn, target)
    assert type(error) is GuideMismatch and words in str(error)
    assert error.given and error.expected and "tests/" in str(error)


@pytest.mark.parametrize(
    "fn", [lambda p: sample("u", dist.Beta(p, 2.0)), lambda p: sample("u", dist.Uniform(0.2, 0.9))]
)
def test_a_support_inside_the_models_fits(fn):
    assert np.isfinite(seed(elbo(WITHIN, gen(fn)))(jax.random.key(0), 0.4))


@gen
def other(x, p):
    sample("c", dist.Bernoulli(p))


@gen
def lacking(p):
    c = sample("c", dist.Bernoulli(p))
    sample("a", dist.Bernoulli(0.2 + 0.6 * c * p))


ESTIMATED = normalize(TARGET, by_importance(2))


@pytest.mark.parametrize(
    "make, kind, words",
    [
        (lambda: elbo(TARGET, guide, landing=True), NoStrategy, '"a" does not move'),
        (lambda: iwelbo(TARGET, guide, 2, doubly=True), NoStrategy, '"a" does not move'),
        (lambda: elbo(TARGET, ESTIMATED, landing=True), InvalidArgument, "the guide's density"),
        (lambda: elbo(TARGET, ESTIMATED, analytic=True), InvalidArgument, "the guide's density"),
        (lambda: vimco(TARGET, ESTIMATED, 2), InvalidArgument, "the guide's density"),
        (lambda: vimco(TARGET, guide, 1), InvalidArgument, "2 or more"),
        (
            lambda: elbo(TARGET, mean_field, landing=True, analytic=True),
            InvalidArgument,
            "not both",
        ),
        (lambda: renyi(TARGET, guide, -0.5, 2), InvalidArgument, "0 <= alpha"),
        (lambda: f_divergence(TARGET, guide, "total variation"), InvalidArgument, "hellinger"),
        (lambda: f_divergence(TARGET, guide, "chi"), InvalidArgument, "chi_square"),
        (lambda: f_divergence(TARGET, guide, lambda r: r), InvalidArgument, "not convex"),
        (lambda: forward_kl(TARGET, guide, mean_field), GuideMismatch, "does not make the latents"),
        (lambda: forward_kl(TARGET, guide, 0), InvalidArgument, "1 or more"),
        (lambda: sleep(TARGET, guide), InvalidArgument, "what the target observes"),
        (lambda: hvi(TARGET, lacking, other), GuideMismatch, 'make "b" in the guide'),
        (
            lambda: hvi(
                TARGET, wide, gen(lambda x, p: [sample(z, dist.Bernoulli(p)) for z in "cd"])
            ),
            AddressNotFound,
            'names "d"',
        ),
        (lambda: hvi(TARGET, wide, gen(lambda x, p: None)), InvalidArgument, "makes no choice"),
    ],
)
def test_what_would_be_wrong_is_refused(make, kind, words):
    with pytest.raises(PPLError) as caught:
        seed(make())(jax.random.key(0), 0.4)
    assert type(caught.value) is kind and words in str(caught.value), str(caught.value)
    assert caught.value.fix and "tests/" in str(caught.value)
