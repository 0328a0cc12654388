"""What `sum_out` commutes with, and that its results are models like any other.

Densities are of small programs, with sums of at most some hundred products in float64: 1e-10
leaves room, and 1e-12 for laws, which are normalised.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from summed_models import FINITE, GIVEN, MODELS, MOVE, YS, chain, same, value_and_slopes

from inference import (
    restore,
    sum_out,
)
from inference.exact import finite_recovery, tables
from ppl import (
    Target,
    draw,
    gen,
    paths,
    sample,
    select,
)
from ppl import vmap as vmapped
from ppl.addresses import flatten
from ppl.causal import do
from semantics.compiling import QUICK

EXACT, LAW = 1e-10, 1e-12


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


# -- nothing, twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_nothing_summed_is_the_model(name):
    model, given = MODELS[name], GIVEN[name]
    quiet = sum_out(model, select())
    assert sites(quiet) == sites(model)
    whole = {**given, "k": jnp.array(1), "z": jnp.array([1, 0, 1])}
    same(value_and_slopes(quiet, whole), value_and_slopes(model, whole))


def sites(model, *without):
    """Addresses, dtypes, shapes and supports, in order."""
    found = model.sites(1.2)
    return [(p, s.dtype, s.shape, s.support) for p, s in found.items() if p not in without]


@pytest.mark.parametrize("name", ["arrays", *map(slow, ("chain", "copies"))])
def test_twice_is_once_and_other_choices_stay(name):
    model, given = MODELS[name], GIVEN[name]
    both = sum_out(model, select("k", "z"))
    expected = value_and_slopes(both, given)
    assert sites(both) == sites(model, ("k",), ("z",))
    for first, second in (("k", "z"), ("z", "k")):
        once = sum_out(model, first)
        assert sites(once) == sites(model, (first,))
        same(value_and_slopes(sum_out(once, second), given), expected)
        # and by one after the other, not by one selection for both
        other = "k" if first == "z" else "z"
        each = jax.jit(
            jax.vmap(lambda v: once.assess({**given, other: v}, 1.2)[0]),  # noqa: B023
            compiler_options=QUICK,
        )(jnp.array(VALUES[name][other]))
        assert abs(jax.nn.logsumexp(each) - expected[0]) < EXACT


TRIPLES = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
PATHS = np.stack(np.meshgrid(*[[0, 1, 2]] * 3, indexing="ij"), -1).reshape(-1, 3)
VALUES = {
    "chain": {"k": [0, 1], "z": PATHS},
    "arrays": {"k": [0, 1, 2], "z": TRIPLES},
    "copies": {"k": [0, 1], "z": TRIPLES},
}


@pytest.mark.slow
def test_a_summed_model_within_a_model_is_summed_again():
    """Its choices have laws that are sums, and are themselves summed out."""

    @gen
    def inner(p):
        z = sample("z", dist.Bernoulli(p))
        return sample("w", dist.Categorical(MOVE[z]))

    @gen
    def outer(p):
        w = sample("sub", sum_out(inner, "z")(p))
        sample("x", dist.Normal(1.0 * w, 1.0))

    quiet = sum_out(outer, ("sub", "w"))
    assert list(quiet.sites(0.3)) == [("x",)]
    p, x = 0.3, 0.7
    masses = (1 - p) * MOVE[0] + p * MOVE[1]
    expected = jnp.log(jnp.sum(masses * jnp.exp(dist.Normal(jnp.arange(3.0), 1.0).log_prob(x))))
    assert abs(quiet.assess({"x": x}, p)[0] - expected) < EXACT


# -- conditioning, interventions, transformations -----------------------------------------------


@pytest.mark.slow
def test_conditioning_and_interventions_elsewhere():
    """A target of the summed model is the sum of the target's; `do` before or after is alike."""
    given = GIVEN["chain"]
    quiet = sum_out(chain, select("k", "z"))
    expected = value_and_slopes(quiet, given)[0]
    seen = {"y": YS, "end": 1}
    assert abs(Target(quiet, (1.2,), seen).log_density({"mu": 0.4}) - expected) < EXACT
    fixed = {"mu": 0.4}
    rest = {a: v for a, v in given.items() if a != "mu"}
    after = do(quiet, fixed).assess(rest, 1.2)[0]
    before = sum_out(do(chain, fixed), select("k", "z")).assess(rest, 1.2)[0]
    prior = dist.Normal(0.0, 1.0).log_prob(0.4)
    assert abs(before - after) < EXACT and abs(before + prior - expected) < EXACT


@pytest.mark.slow
def test_copies_of_a_summed_model_are_a_model_of_copies_summed():
    """`vmap` of the generative function, before and after; and of the density."""
    thetas = jnp.array([0.5, 1.2])
    two = {a: jnp.stack([v, v + 0.1 if v.dtype == float else v]) for a, v in GIVEN["chain"].items()}
    quiet = sum_out(chain, select("k", "z"))
    before = gen(lambda t: sample("all", vmapped(quiet)(t)))
    after = sum_out(
        gen(lambda t: sample("all", vmapped(chain)(t))), select(("all", "k"), ("all", "z"))
    )
    each = jax.vmap(lambda given, t: quiet.assess(given, t)[0])(two, thetas)
    one_by_one = [quiet.assess(jax.tree.map(lambda v: v[i], two), thetas[i])[0] for i in range(2)]  # noqa: B023
    same(each, jnp.stack(one_by_one))
    for model in (before, after):
        assert abs(model.assess({"all": two}, thetas)[0] - each.sum()) < EXACT


# -- the law of what is left, and of all of it ----------------------------------------------------


def masses_of(program, keep):
    """The law of choices, as a dict."""
    choices, weights = jax.jit(lambda: paths(program)(), compiler_options=QUICK)()
    found = {}
    columns = [
        np.asarray(v).reshape(len(weights), -1)
        for p, v in sorted(flatten(choices).items())
        if keep(p)
    ]
    for row, weight in zip(np.concatenate(columns, 1).tolist(), np.asarray(weights), strict=True):
        if weight > 0:
            found[tuple(row)] = found.get(tuple(row), 0.0) + float(weight)
    return found


def by_outcomes(_):
    """`tables.drawn`, by a choice of finitely many outcomes in place of noise.

    So that a joint draw is a random program of finitely many paths. A draw of one outcome of
    each row is what the noise makes, too: that is tested on its own.
    """

    def reduce(logs, chances, axis):
        whole = jax.lax.stop_gradient(tables._whole(logs, chances))
        rows = jnp.moveaxis(whole, axis, -1)
        rows = jnp.where(jnp.isfinite(rows.max(-1, keepdims=True)), rows, 0.0)
        at = jnp.expand_dims(draw(dist.CategoricalLogits(rows)), axis)
        mark = at == jax.lax.broadcasted_iota(int, logs.shape, axis % logs.ndim)
        return tables.log_sum(whole, None, axis) + tables._followed(logs, mark, axis), None

    return reduce


@pytest.mark.parametrize("name", ["pairs", *map(slow, ("steps", "family"))])
def test_what_is_left_has_its_law_and_all_of_it_when_restored(name, monkeypatch):
    """Exactly: `simulate` has the marginal law, and `restore` of it the model's."""
    model, summed = FINITE[name]
    quiet = sum_out(model, summed)
    left = set(quiet.sites(0.6))
    expected = masses_of(lambda: model.simulate(0.6).choices, left.__contains__)
    found = masses_of(lambda: quiet.simulate(0.6).choices, left.__contains__)
    assert found == pytest.approx(expected, abs=LAW)
    monkeypatch.setattr(finite_recovery, "drawn", by_outcomes)
    whole = masses_of(lambda: model.simulate(0.6).choices, lambda p: True)
    again = masses_of(lambda: restore(quiet, quiet.simulate(0.6)).choices, lambda p: True)
    assert again == pytest.approx(whole, abs=LAW)


def test_noise_draws_an_outcome_by_the_weights():
    """The largest of log weights plus Gumbel noise, by the event that each is the largest.

    P(a wins over b) = integral of exp(-x - e^-x) exp(-e^-(x + log a - log b)), by the trapezoid
    rule with steps of 0.01 from -5 to 45: exact to 1e-13 for an analytic integrand that vanishes.
    """
    x = jnp.arange(-5.0, 45.0, 0.01)
    density = jnp.exp(-x - jnp.exp(-x))
    logs, chances = jnp.log(jnp.array([0.5, 2.0])), jnp.array([0.8, 0.3])

    def first(noise, other):
        reduce = tables.drawn(lambda shape, dtype: jnp.stack([noise, other]))
        return jax.grad(lambda logs: reduce(logs, chances, 0)[0])(logs)

    # for each noise of the first: up to which noise of the second does it win?
    low, high = x - 50.0, x + 50.0
    for _ in range(60):
        middle = (low + high) / 2
        wins = jax.vmap(first)(x, middle)[:, 0] == 1.0
        low, high = jnp.where(wins, middle, low), jnp.where(wins, high, middle)
    below = jnp.exp(-jnp.exp(-low))
    assert abs(jnp.sum(density * below) * 0.01 - 0.4 / (0.4 + 0.6)) < 1e-9
