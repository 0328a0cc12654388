"""What a target's likelihood is, one value of a process at a time; and what has no sites."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from inference.gaussian.matern import Matern12
from inference.gaussian.process import gp
from inference.sites import conjugate_vi, laplace, power_ep
from inference.sites.owners import MIXED, NONE, owners
from inference.sites.terms import Terms, check_fit, owners_of
from ppl import Masked, PPLError, Target, factor, gen, observe, sample

TIMES = np.array([0.0, 1.0, 2.0, 4.0])
INDEX = np.array([3, 0, 0, 1, 2])
COUNTS = np.array([1, 0, 2, 1])


def made(body, observations, *args, law=None):
    @gen
    def model(*args):
        body(sample("f", law or gp(Matern12(1.0), TIMES)), *args)

    return Target(model, args, observations)


def plates(f):
    jax.vmap(lambda x: sample("y", dist.Poisson(jnp.exp(x))))(f)


def loops(f):
    lax.map(lambda x: sample("y", dist.Poisson(jnp.exp(x))), f)


def several(f, index):
    sample("y", dist.Poisson(jnp.exp(f)).to_event(1))
    sample("s", dist.HalfNormal(1.0))
    sample("z", dist.Normal(f[index], jnp.exp(f[index] / 2)))


FIT = {
    "itself": (lambda f: sample("y", dist.Poisson(jnp.exp(f))), {"y": COUNTS}, {("y",): None}),
    "a plate": (plates, {"y": COUNTS}, {("y",): None}),
    "a loop": (loops, {"y": COUNTS}, {("y",): None}),
    "categories": (
        lambda f: sample("y", dist.Categorical(logits=jnp.stack([f, 0 * f, -f], -1))),
        {"y": COUNTS},
        {("y",): None},
    ),
    "in part": (
        lambda f: sample("y", dist.Normal(f[::-1], 1.0)),
        {"y": Masked(np.ones(4), np.array([True, False, True, True]))},
        {("y",): [3, 2, 1, 0]},
    ),
    "factors": (lambda f: jax.vmap(lambda x: factor(-(x**4)))(f), {}, None),
}


def check_terms(target, due):
    """The terms add up to the density, and each owns its slope; so does each curvature."""
    path = check_fit(target, "f")
    found = owners_of(target, path)
    if due is not None:
        assert {k: None if v is None else v.tolist() for k, v in found.items()} == due
    terms = Terms(target, path, found)

    def rest(f):
        return target.log_density({"f": f}) - gp(Matern12(1.0), TIMES).log_prob(f)

    @jax.jit
    def numbers(f):
        total = terms(f).sum() + terms.constant(f)
        pairs = [(total, rest(f)), (terms.slopes(f), jax.grad(rest)(f))]
        return [*pairs, (jnp.diag(terms.curves(f)), jax.hessian(rest)(f))]

    for one, other in numbers(jnp.array([0.1, -0.2, 0.3, 0.4])):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIT)
def test_terms_add_up_to_the_density(name):
    body, observations, due = FIT[name]
    check_terms(made(body, observations), due)


@pytest.mark.slow
def test_an_index_that_is_an_argument():
    """Several choices, one scored without the process; the index is data, known or traced."""
    observations = {"y": COUNTS, "s": 0.3, "z": np.ones(5)}
    target = made(several, observations, INDEX)
    check_terms(target, {("s",): NONE, ("y",): None, ("z",): INDEX.tolist()})

    @jax.jit
    def of(index):
        found = laplace(made(several, observations, index), "f")
        return found.log_evidence, found.mean

    right = laplace(target, "f")
    np.testing.assert_allclose(of(INDEX)[0], right.log_evidence, rtol=1e-12)
    np.testing.assert_allclose(of(INDEX)[1], right.mean, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_an_index_that_mixes_at_run_time_gives_no_number():
    """What cannot be refused while it is traced is NaN, and has not converged."""

    def body(f, index):
        sample("y", dist.Poisson(jnp.exp(f + f[index])))

    def of(index):
        found = laplace(made(body, {"y": COUNTS}, index), "f", most=3)
        return found.log_evidence, found.status.converged

    evidence, converged = jax.jit(of)(np.array([0, 1, 2, 2]))
    assert np.isnan(evidence) and not converged
    assert np.isfinite(jax.jit(of)(np.arange(4))[0])
    with pytest.raises(PPLError, match="more than one value"):
        of(np.array([0, 1, 2, 2]))


OWNED = {
    "a product of matrices": (lambda x: jnp.ones((2, 3)) @ x, [MIXED, MIXED]),
    "a branch": (lambda x: lax.cond(x[0] > 0, lambda x: x, lambda x: x + 1, x), [0, MIXED, MIXED]),
    "a known branch": (lambda x: lax.cond(True, lambda x: x, lambda x: 2 * x, x), [0, 1, 2]),
    "a carry": (lambda x: lax.scan(lambda c, x: (c + x, c), 0.0, x)[1], [MIXED] * 3),
    "a pick": (lambda x: jnp.take_along_axis(jnp.stack([x, 2 * x]), jnp.array([[0, 1, 1]]), 0)[0],
               [0, 1, 2]),
    "a sum of copies": (lambda x: jnp.stack([x, x**2]).sum(0), [0, 1, 2]),
    "a sum of all": (lambda x: jnp.sum(x)[None], [MIXED]),
    "padding": (lambda x: jnp.pad(x[1:], 1), [NONE, 1, 2, NONE]),
    "a place that depends": (lambda x: jnp.arange(3.0)[(x[:1] > 0).astype(int)], [MIXED]),
    "an update": (lambda x: x.at[1].set(0.0), [0, NONE, 2]),
    "order": (jnp.sort, [MIXED] * 3),
}  # fmt: skip


@pytest.mark.parametrize("name", OWNED)
def test_owners(name):
    f, due = OWNED[name]
    (found,) = owners(lambda x: [f(x)], 3, float)
    assert np.asarray(found.owners).tolist() == due
    assert bool(found.why) == (MIXED in due)


REFUSED = {
    "two values": (lambda f: sample("y", dist.Poisson(jnp.exp(f + f[::-1]))), {"y": COUNTS},
                   ("more than one value", '"y" at', "element [0], which `add` makes")),
    "their sum": (lambda f: sample("y", dist.Normal(jnp.cumsum(f), 1.0)), {"y": np.ones(4)},
                  ("more than one value", "`cumsum`")),
    "an observation": (lambda f: observe(dist.Normal(f, 1.0), jnp.ones(4)), {},
                       ("A factor depends", "factor at", "`reduce_sum`")),
    "a branch": (lambda f: lax.cond(True, lambda: sample("y", dist.Normal(f, 1.0)), lambda: f),
                 {"y": np.ones(4)}, ("some branches only", '"y" at')),
    "another latent": (lambda f: sample("y", dist.Normal(f, sample("s", dist.HalfNormal(1.0)))),
                       {"y": np.ones(4)}, ("not the one latent", '"s": value')),
    "its own value": (lambda f: None, {"f": np.ones(4)}, ("not the one latent", "none")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_sites_is_named(name):
    body, observations, parts = REFUSED[name]
    with pytest.raises(PPLError) as caught:
        laplace(made(body, observations), "f")
    for part in (*parts, "test_sites_terms.py"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("law", "part"),
    [
        (dist.Normal(jnp.zeros(4), 1.0), "no draw of a Gaussian process"),
        (gp(Matern12(1.0), TIMES, noise=0.1), "noise of its own"),
        (gp(Matern12(1.0), TIMES, present=np.ones(4, bool)), "present of its own"),
    ],
)
def test_other_laws_of_f(law, part):
    target = made(lambda f: sample("y", dist.Normal(f, 1.0)), {"y": np.ones(4)}, law=law)
    with pytest.raises(PPLError, match=part):
        laplace(target, "f")


@pytest.mark.parametrize(
    ("setting", "value"), [("damping", 0.0), ("damping", 1.5), ("tolerance", 0), ("most", 0)]
)
def test_settings_out_of_range(setting, value):
    target = made(lambda f: sample("y", dist.Normal(f, 1.0)), {"y": np.ones(4)})
    with pytest.raises(PPLError, match=setting):
        laplace(target, "f", **{setting: value})
    with pytest.raises(PPLError, match="no choice"):
        laplace(target, "g")


@pytest.mark.slow
@pytest.mark.parametrize("method", [laplace, power_ep, conjugate_vi])
def test_impossible_data_have_no_evidence(method):
    """Minus infinity, and not converged; what is possible is 1 here, whatever the process is."""

    def of(y):
        target = made(lambda f: sample("y", dist.Uniform(5 + 0 * f, 6 + 0 * f)), {"y": y})
        found = method(target, "f", most=5)
        return found.log_evidence, found.status.converged

    of = jax.jit(of)
    evidence, converged = of(np.array([5.5, 5.1, 5.9, 5.5]))
    assert abs(evidence) < 1e-12 and converged
    evidence, converged = of(np.array([5.5, 4.0, 5.9, 5.5]))
    assert evidence == -np.inf and not converged
