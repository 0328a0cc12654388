"""Proposals by generative functions, and mixtures of moves: exact laws and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Move, cycle, iterate, metropolize, mh
from inference.choose import choose
from inference.mcmc.proposals import propose
from ppl import Target, draw, errors, factor, gen, sample
from semantics import (
    check_kernel,
    check_kernel_quadrature,
    check_move,
    kernel_matrix,
    target_measure,
)
from tests.mutants.continuous import OPTIONAL_MEAN
from tests.mutants.proposals import (
    MARGINAL,
    MOVES,
    PAIR,
    PRIOR,
    STEPS,
    Marginal,
    skewed,
    weights,
)

EXACT = 1e-12


# -- propose ----------------------------------------------------------------------------------


def test_the_transition_matrix_is_that_of_hastings():
    """K(b, b') = q(b'|b) min(1, p(b') q(b|b') / (p(b) q(b'|b))), entry by entry."""

    @gen
    def model():
        b = sample("b", dist.Categorical(PRIOR))
        sample("y", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]))

    pi, kernel = kernel_matrix(lambda t: propose(t, skewed), Target(model, (), {"y": 1}))
    p, q = np.asarray(PRIOR) * np.array([0.1, 0.5, 0.9]), np.asarray(STEPS)
    flow = np.minimum(p[:, None] * q, (p[:, None] * q).T)
    expected = flow / p[:, None]
    np.fill_diagonal(expected, 0.0)
    np.fill_diagonal(expected, 1.0 - expected.sum(1))
    states = [((("b",), b),) for b in range(3)]
    found = [[float(kernel(x)[y]) for y in states] for x in states]
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)
    assert kernel.is_reversible(pi, EXACT)


def test_the_measure_of_an_estimated_density_is_its_mean():
    case = Marginal()
    found, expected = target_measure(case.target), case.posterior()
    for b in range(3):
        outcome = ((("b",), b),)
        assert float(found[outcome]) == pytest.approx(float(expected[outcome]), abs=EXACT)


def test_it_composes_on_estimated_densities():
    """With `mh`, on a target whose density is estimated: each keeps the other's estimate."""
    check_kernel(lambda t: iterate(cycle(propose(t, skewed), mh(t, "b")), 1), MARGINAL).require()


@gen
def optional():
    a = sample("a", dist.Bernoulli(0.3))
    k = jax.lax.cond(a == 1, lambda: sample("k", dist.Categorical(PRIOR)), lambda: 1)
    sample("y", dist.Bernoulli(0.2 + 0.3 * k))


OPTIONAL = Target(optional, (), {"y": 1})


@gen
def in_branch(latents):
    a = sample("a", dist.Bernoulli(0.6 - 0.2 * latents["a"]))
    new = lambda: sample("k", dist.Categorical(STEPS[latents["k"]]))  # noqa: E731
    jax.lax.cond(a == 1, new, lambda: 0)


@gen
def always(latents):
    """Makes `k` even where the target has none: then it is refused."""
    sample("a", dist.Bernoulli(0.6 - 0.2 * latents["a"]))
    sample("k", dist.Categorical(STEPS[latents["k"]]))


@gen
def only_births(latents):
    """Makes `k` only from where there was none, so that it can never come back by itself."""
    sample("a", dist.Bernoulli(0.5))
    jax.lax.cond(
        latents["a"] == 0, lambda: sample("k", dist.Categorical(PRIOR)), lambda: latents["k"]
    )


@pytest.mark.parametrize("proposal", [in_branch, always, only_births], ids=lambda p: p.name)
def test_choices_that_come_and_go(proposal):
    check_kernel(lambda t: propose(t, proposal), OPTIONAL).require()


@gen
def birth_or_death(latents):
    k = sample("k", dist.Bernoulli(0.7 - 0.3 * latents["k"]))
    near = lambda: sample("mu", dist.Normal(0.5 + 0.5 * latents["mu"], 1.0))  # noqa: E731
    jax.lax.cond(k == 1, near, lambda: 0.0)


@gen
def mean_stays(latents):
    """Never makes `mu`: going to k = 1 would put a point mass where there is a density."""
    k = sample("k", dist.Bernoulli(0.5))
    jax.lax.cond(k == 2, lambda: sample("mu", dist.Normal(0.0, 1.0)), lambda: 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("proposal", [birth_or_death, mean_stays], ids=lambda p: p.name)
def test_dimensions_agree_or_it_is_refused(proposal):
    """A continuous choice that comes and goes, by quadrature."""

    def statistics(latents):
        k, mu = latents["k"], latents["mu"]
        return {"k": 1.0 * k, "wave": k * jnp.sin(mu), "at zero": 1.0 * (mu == 0)}

    make = lambda t: propose(t, proposal)  # noqa: E731
    check_kernel_quadrature(make, OPTIONAL_MEAN, statistics=statistics, nodes=(100, 150)).require()


WEIGHED = gen(lambda x: [sample("b", dist.Categorical(PRIOR)), factor(1.0)])

MISTAKES = {
    "unknown": (
        PAIR, lambda x: sample("bb", dist.Categorical(PRIOR)),
        errors.AddressNotFound, 'The proposal names "bb", which is no choice of the model.',
    ),
    "observed": (
        PAIR, lambda x: sample("y", dist.Bernoulli(0.1)),
        errors.InvalidArgument, 'The proposal makes "y", which is observed.',
    ),
    "dtype": (
        PAIR, lambda x: sample("a", dist.Normal(0.0, 1.0)),
        errors.DtypeError, 'The proposal makes "a" with another dtype than the target.',
    ),
    "shape": (
        PAIR, lambda x: sample("a", dist.Bernoulli(0.1).expand([2])),
        errors.ShapeError, 'The proposal makes "a" with another shape than the target.',
    ),
    "scores": (
        PAIR, WEIGHED.fn, errors.InvalidArgument, "The proposal <lambda> scores with factor",
    ),
    "nothing": (
        PAIR, lambda x: None, errors.InvalidArgument, "The proposal <lambda> makes no choice.",
    ),
    "left out": (
        OPTIONAL, lambda x: sample("a", dist.Bernoulli(0.4)),
        errors.InvalidArgument, "The proposal may change which choices there are, but",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    target, proposal, kind, says = MISTAKES[name]
    with pytest.raises(kind) as caught:
        propose(target, gen(proposal))
    text = str(caught.value)
    assert text.startswith(says) and "test_mcmc_discrete.py" in text and "fix:" in text
    assert len(text.splitlines()) <= 12


def test_a_choice_that_cannot_come_and_go_need_not_be_made():
    """`b` is absent or not whatever the proposal does."""

    @gen
    def model():
        a = sample("a", dist.Bernoulli(0.3))
        c = sample("c", dist.Bernoulli(0.4))
        jax.lax.cond(a == 1, lambda: sample("b", dist.Bernoulli(0.2 + 0.5 * c)), lambda: 0)

    proposal = gen(lambda x: sample("c", dist.Bernoulli(0.3 + 0.4 * x["a"])))
    check_kernel(lambda t: propose(t, proposal), Target(model)).require()


# -- choose -----------------------------------------------------------------------------------


def test_the_hypotheses_of_green_hold():
    """On a finite target every hypothesis, and the conclusion on the whole measure."""
    verdicts = check_move(lambda t: choose(MOVES, weights), PAIR)
    assert [v.check for v in verdicts if not v.require()] == []
    assert verdicts[-1].check == "invariant"


@gen
def mixed():
    x = sample("x", dist.Normal(0.0, 1.0))
    k = sample("k", dist.Bernoulli(0.4))
    y = sample("y", dist.Normal(x, 1.0 + k))
    sample("seen", dist.Normal(y, 1.0))


BY = gen(lambda x: sample("by", dist.Normal(0.2 * x["k"], 1.0)))
LOG = gen(lambda x: sample("log", dist.Normal(0.0, 0.5)))
CONTINUOUS = (
    Move(BY, lambda x, u: ({**x, "x": x["x"] + u["by"]}, {"by": -u["by"]})),
    Move(LOG, lambda x, u: ({**x, "y": x["y"] * jnp.exp(u["log"])}, {"log": -u["log"]})),
    Move(gen(lambda x: None), lambda x, u: ({**x, "k": 1 - x["k"]}, u)),
)


def by_state(x):
    return jnp.stack([1.0 + x["x"] ** 2, 1.0 + x["k"], jnp.exp(-(x["y"] ** 2))])


def test_jacobians_are_those_of_the_chosen_move():
    verdicts = check_move(lambda t: choose(CONTINUOUS, by_state), Target(mixed, (), {"seen": 1.0}))
    assert {"Jacobian", "Radon-Nikodym identity"} <= {v.require().check for v in verdicts}


def test_only_the_chosen_move_moves():
    """And the u of the others stay where they are."""
    x = {"x": jnp.ones(()), "k": jnp.ones((), int), "y": jnp.ones(())}
    u = {"which": jnp.zeros((), int), "0": {"by": jnp.ones(())}, "1": {"log": jnp.zeros(())}}
    there, back = choose(CONTINUOUS, by_state).involution(x, u)
    assert {name: float(value) for name, value in there.items()} == {"x": 2.0, "k": 1.0, "y": 1.0}
    assert float(back["0"]["by"]) == -1.0 and float(back["1"]["log"]) == 0.0
    assert int(back["which"]) == 0


def test_moves_without_randomness_of_their_own():
    flip = Move(gen(lambda x: None), lambda x, u: ({**x, "a": 1 - x["a"]}, u))
    turn = Move(gen(lambda x: None), lambda x, u: ({**x, "b": 2 - x["b"]}, u))
    check_kernel(lambda t: metropolize(choose([flip, turn], weights), t), PAIR).require()


def test_weights_that_vanish_stay_put():
    """Where no move has a weight nothing moves, and nothing comes there."""
    only_low = lambda x: jnp.where(x["b"] == 2, jnp.zeros(2), jnp.ones(2))  # noqa: E731
    pi, kernel = kernel_matrix(lambda t: metropolize(choose(MOVES, only_low), t), PAIR)
    assert kernel.is_invariant(pi, EXACT)
    high = [state for state in pi.support if dict(state)[("b",)] == 2]
    assert all(abs(float(kernel(state)[state]) - 1) < EXACT for state in high)


def test_mistakes_of_choose_are_named():
    with pytest.raises(errors.InvalidArgument, match="There is no move to choose"):
        choose([], weights)
    with pytest.raises(errors.InvalidArgument, match="do not have one number for each move"):
        check_kernel(lambda t: metropolize(choose(MOVES[:1], weights), t), PAIR)
    lost = Move(gen(lambda x: None), lambda x, u: ({"a": x["a"]}, u))
    with pytest.raises(errors.InvalidArgument, match="changed the structure of"):
        check_kernel(lambda t: metropolize(choose([lost, MOVES[1]], weights), t), PAIR)


def test_a_branch_that_draws_makes_no_choice_come_and_go():
    @gen
    def model():
        k = sample("k", dist.Bernoulli(0.4))
        rough = lambda: factor(jnp.log(0.2 + 0.6 * draw(dist.Bernoulli(0.5))))  # noqa: E731
        jax.lax.cond(k == 1, rough, lambda: factor(jnp.log(0.3)))

    other = gen(lambda x: sample("k", dist.Bernoulli(0.7)))
    check_kernel(lambda t: propose(t, other), Target(model)).require()
