"""Each hypothesis of the Metropolis-Hastings-Green theorem, and the moves that break just it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Move
from ppl import Target, errors, gen, sample
from semantics import programs
from semantics.contracts.moves import CHECKS, check_move

SMOOTH = (*CHECKS[:2], "Jacobian", *CHECKS[3:])
FINITE = (*CHECKS[:2], *CHECKS[3:], "invariant")
HAND = (*CHECKS[:2], *CHECKS[3:])


def failing(verdicts):
    return {verdict.check for verdict in verdicts if not verdict.passed}


def names(verdicts):
    return tuple(verdict.check for verdict in verdicts)


def named(verdicts, check):
    (found,) = [verdict for verdict in verdicts if verdict.check == check]
    return found


# -- a finite target ---------------------------------------------------------------------------

TABLE = jnp.array([[0.9, 0.2, 0.4], [0.3, 0.7, 0.1]])


@gen
def coins():
    a = sample("a", dist.Bernoulli(0.3))
    b = sample("b", dist.Categorical(jnp.array([0.5, 0.2, 0.3])))
    sample("y", dist.Bernoulli(TABLE[a, b]))


FLIP = jnp.array([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]])


@gen
def flip(latents):
    sample("to", dist.Categorical(FLIP[latents["b"]]))
    sample("a", dist.Bernoulli(jnp.where(latents["b"] == 1, 0.3, 0.6)))


@gen
def one_way(latents):
    """From b = 1 it never proposes b = 0, though from b = 0 it proposes b = 1."""
    forth = FLIP[latents["b"]] * jnp.where(latents["b"] == 1, jnp.array([0.0, 1.0, 1.0]), 1.0)
    sample("to", dist.Categorical(forth / forth.sum()))
    sample("a", dist.Bernoulli(0.5))


def swap(x, u):
    return {"a": u["a"], "b": u["to"]}, {"to": x["b"], "a": x["a"]}


def keep(x, u):
    return {"a": u["a"], "b": u["to"]}, {"to": x["b"], "a": u["a"]}


def ratio_of(move, log_det=None, but=(), times=1):
    """The log ratio written by hand, with the terms in `but` taken `1 - times` times."""

    def ratio(target, trace, u):
        x = target.choices(trace)
        new_x, new_u = move.involution(x, u)
        terms = {
            "new": target.log_density(new_x),
            "old": -target.log_density(x),
            "reverse": move.proposal.assess(new_u, new_x)[0],
            "forward": -move.proposal.assess(u, x)[0],
            "Jacobian": 0.0 if log_det is None else log_det(x, u),
        }
        return sum((1 - times * (name in but)) * term for name, term in terms.items())

    return ratio


flips = Target(coins, (), {"y": 1})
flipping = Move(flip, swap)


@pytest.mark.slow
def test_a_correct_move_passes_everything_on_every_point():
    verdicts = check_move(lambda t: flipping, flips)
    assert names(verdicts) == FINITE and not failing(verdicts)
    # 6 latents and 6 proposals, all of positive mass
    assert {v.method for v in verdicts} == {"exact"} and named(verdicts, "round trip").n == 36
    verdicts = check_move(lambda t: flipping, flips, ratio=ratio_of(flipping))
    assert names(verdicts) == FINITE and not failing(verdicts)


def test_a_map_that_is_not_its_own_inverse():
    verdicts = check_move(lambda t: Move(flip, keep), flips)
    assert {"round trip", "invariant"} <= failing(verdicts)
    assert "it maps to" in named(verdicts, "round trip").witness


def test_a_support_that_is_not_swapped_is_refused_but_invariant():
    """Where the way back is impossible the ratio is zero, so the accepted kernel is right."""
    verdicts = check_move(lambda t: Move(one_way, swap), flips)
    assert failing(verdicts) == {"supports swapped"}
    assert "b = 0, a = 0, to = 1: it maps" in named(verdicts, "supports swapped").witness


@pytest.mark.slow
@pytest.mark.parametrize(
    "but, what",
    [
        ("forward", "the density of u (forward) is missing"),
        ("reverse", "the density of u' (reverse) is missing"),
        ("new", "the density of the new latents is missing"),
    ],
)
def test_a_missing_density_is_named(but, what):
    verdicts = check_move(lambda t: flipping, flips, ratio=ratio_of(flipping, but=(but,)))
    assert failing(verdicts) == {"skew symmetry", "Radon-Nikodym identity", "invariant"}
    assert what in named(verdicts, "Radon-Nikodym identity").witness


def test_both_auxiliary_densities_missing_keeps_the_skew_symmetry():
    ratio = ratio_of(flipping, but=("forward", "reverse"))
    verdicts = check_move(lambda t: flipping, flips, ratio=ratio)
    assert failing(verdicts) == {"Radon-Nikodym identity", "invariant"}


def test_the_conclusion_is_that_of_the_users_kernel():
    """All hypotheses hold, and a kernel that always accepts is not invariant."""

    def careless(target):
        def kernel(trace):
            x = target.choices(trace)
            u = flip.simulate(x).choices
            return target.update(trace, swap(x, u)[0])[0]

        return kernel

    assert failing(check_move(lambda t: flipping, flips, make_kernel=careless)) == {"invariant"}


@pytest.mark.parametrize(
    "involution, what",
    [
        (lambda x, u: ({"b": u["to"], "a": x["a"] * 1.0}, {"to": x["b"], "a": u["a"]}), "['a']"),
        (lambda x, u: ({"b": u["to"]}, {"to": x["b"], "a": u["a"]}), "it maps PyTreeDef"),
    ],
)
def test_what_changes_shape_is_no_involution(involution, what):
    (verdict,) = check_move(lambda t: Move(flip, involution), flips)
    assert verdict.check == "round trip" and not verdict.passed and what in verdict.witness


# -- generated programs ------------------------------------------------------------------------


FROM_TO = np.arange(1.0, 10.0).reshape(3, 3) / np.arange(1.0, 10.0).reshape(3, 3).sum(1)[:, None]


@functools.cache
def exchange(path):
    """A proposal for a choice of three values, given the old one, and the swap of the two."""
    propose = gen(
        lambda latents: sample("to", dist.Categorical(jnp.asarray(FROM_TO)[latents[path]]))
    )
    return Move(propose, lambda x, u: ({**x, path: u["to"]}, {"to": x[path]}))


def make_last(target):
    """Moves the last latent, which has three values in the shapes below."""
    return exchange(target.latents[-1][0])


POSITIVE = programs.discrete(shapes=("one", "chain"), rows="positive")


@pytest.mark.slow
def test_moves_of_generated_programs():
    verdicts = check_move(make_last, POSITIVE, max_examples=20)
    assert names(verdicts) == FINITE and not failing(verdicts)
    assert {verdict.programs for verdict in verdicts} == {20}


def test_a_broken_move_comes_with_its_program():
    ratio = lambda t, trace, u: ratio_of(make_last(t), but=("reverse",))(t, trace, u)  # noqa: E731
    verdicts = check_move(make_last, POSITIVE, ratio=ratio, max_examples=20)
    assert failing(verdicts) == {"skew symmetry", "Radon-Nikodym identity", "invariant"}
    for check in ("skew symmetry", "Radon-Nikodym identity", "invariant"):
        witness = named(verdicts, check).witness  # shrunk to the first shape, which has no b
        assert 'sample("a"' in witness and 'sample("b"' not in witness
    assert "(reverse) is missing" in named(verdicts, "Radon-Nikodym identity").witness


# -- continuous latents ------------------------------------------------------------------------


@gen
def rates():
    rate = sample("rate", dist.Gamma(2.0, 1.0))
    sample("y", dist.Normal(rate, 1.0))


rate = Target(rates, (), {"y": 1.5})
steps = gen(lambda latents: sample("by", dist.Normal(0.1 * latents["rate"], 0.7)))


def multiply(x, u):
    return {"rate": x["rate"] * jnp.exp(u["by"])}, {"by": -u["by"]}


multiplying = Move(steps, multiply)
stretch = lambda x, u: u["by"]  # noqa: E731  log |det| of `multiply`


def test_a_walk_on_the_log_scale():
    verdicts = check_move(lambda t: multiplying, rate)
    assert names(verdicts) == SMOOTH and not failing(verdicts)
    assert {v.method for v in verdicts} == {"identity"} and {v.n for v in verdicts} == {64}
    verdicts = check_move(lambda t: multiplying, rate, ratio=ratio_of(multiplying, stretch))
    assert names(verdicts) == HAND and not failing(verdicts)


@pytest.mark.parametrize("times, what", [(1, "is missing"), (2, "has the wrong sign")])
def test_the_jacobian_is_antisymmetric_and_only_the_identity_sees_it(times, what):
    ratio = ratio_of(multiplying, stretch, but=("Jacobian",), times=times)
    verdicts = check_move(lambda t: multiplying, rate, ratio=ratio)
    assert failing(verdicts) == {"Radon-Nikodym identity"}
    assert f"the Jacobian {what}" in named(verdicts, "Radon-Nikodym identity").witness


def half_hidden(x, u):
    """The same map, of which automatic differentiation sees half."""
    seen = jnp.sqrt(x["rate"]) * jnp.sqrt(jax.lax.stop_gradient(x["rate"]))
    return {"rate": seen * jnp.exp(u["by"])}, {"by": -u["by"]}


def test_a_derivative_that_is_hidden_from_the_library():
    verdicts = check_move(lambda t: Move(steps, half_hidden), rate)
    # the library's log |det| is off by log 1/2 at either end
    assert failing(verdicts) == {"Jacobian", "skew symmetry", "Radon-Nikodym identity"}
    error = named(verdicts, "Jacobian").error
    np.testing.assert_allclose(error, np.log(2), atol=1e-6)  # the error of differences


def test_a_step_that_cannot_come_back():
    one_sided = gen(lambda latents: sample("by", dist.Uniform(0.0, 1.0)))
    verdicts = check_move(lambda t: Move(one_sided, multiply), rate)
    assert failing(verdicts) == {"supports swapped"}
    assert "never draws this u" in named(verdicts, "supports swapped").witness


def test_a_step_that_does_not_turn_around():
    onwards = lambda x, u: ({"rate": x["rate"] * jnp.exp(u["by"])}, u)  # noqa: E731
    assert "round trip" in failing(check_move(lambda t: Move(steps, onwards), rate))


# -- across dimensions -------------------------------------------------------------------------


@gen
def one_or_two():
    k = sample("k", dist.Bernoulli(0.4))
    x = sample("x", dist.Normal(0.0, 1.0))
    more = jax.lax.cond(k == 1, lambda: sample("z", dist.Normal(x, 2.0)), lambda: 0.0)
    sample("y", dist.Normal(x + more, 1.0))


@gen
def born(latents):
    absent = latents["k"] == 0
    jax.lax.cond(absent, lambda: sample("v", dist.Normal(0.5, 1.5)), lambda: 0.0)


def birth_or_death(x, u):
    """z = x + 2 v; the zero that stands for the absent one of z and v is passed through."""
    born = x["k"] == 0
    z = jnp.where(born, x["x"] + 2 * u["v"], u["v"])
    v = jnp.where(born, x["z"], (x["z"] - x["x"]) / 2)
    return {"k": 1 - x["k"], "x": x["x"], "z": z}, {"v": v}


def forgetful(x, u):
    """The same values, but the zeros are written anew: not one to one on the padded space."""
    born = x["k"] == 0
    z = jnp.where(born, x["x"] + 2 * u["v"], 0.0)
    v = jnp.where(born, 0.0, (x["z"] - x["x"]) / 2)
    return {"k": 1 - x["k"], "x": x["x"], "z": z}, {"v": v}


branching = Target(one_or_two, (), {"y": 1.5})
jump = Move(born, birth_or_death)
doubling = lambda x, u: jnp.where(x["k"] == 0, 1.0, -1.0) * jnp.log(2.0)  # noqa: E731


def test_birth_and_death():
    verdicts = check_move(lambda t: jump, branching, ratio=ratio_of(jump, doubling))
    assert names(verdicts) == HAND and not failing(verdicts)


@pytest.mark.parametrize(
    "but, times, what, skewed",
    [
        ("Jacobian", 1, "the Jacobian is missing", False),
        ("Jacobian", 2, "the Jacobian has the wrong sign", False),
        ("forward", 1, "the density of u (forward) is missing", True),
        ("reverse", 1, "the density of u' (reverse) is missing", True),
    ],
)
def test_wrong_jumps(but, times, what, skewed):
    ratio = ratio_of(jump, doubling, but=(but,), times=times)
    verdicts = check_move(lambda t: jump, branching, ratio=ratio)
    assert failing(verdicts) == {"Radon-Nikodym identity"} | (
        {"skew symmetry"} if skewed else set()
    )
    assert what in named(verdicts, "Radon-Nikodym identity").witness


def test_fillers_that_are_not_passed_through():
    verdicts = check_move(lambda t: Move(born, forgetful), branching)
    assert "Jacobian" in failing(verdicts)
    assert "not one to one" in named(verdicts, "Jacobian").witness


def test_the_librarys_ratio_across_dimensions():
    verdicts = check_move(lambda t: jump, branching)
    assert names(verdicts) == SMOOTH and not failing(verdicts)


def test_something_else_than_programs_is_an_error():
    with pytest.raises(errors.InvalidArgument, match=r"test_semantics_moves\.py"):
        check_move(lambda t: flipping, programs.discrete)  # pyright: ignore
