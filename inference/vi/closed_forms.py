"""Kullback-Leibler divergences in closed form, between distributions of one family.

A distribution is taken apart into arrays that have its whole batch in front, so that what is one
array in a guide may be a loop in a model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.kl import kl_divergence

from ppl import Site


def family(site: Site) -> str | None:
    """The family of a choice's distribution; None where no divergence is known.

    >>> import numpyro.distributions as dist
    >>> from inference.vi.closed_forms import family
    >>> from ppl import gen, sample
    >>> model = gen(lambda: [sample("a", dist.Exponential(2.0)), sample("b", dist.Cauchy())])
    >>> [family(site) for site in model.sites().values()]
    ['gamma', None]
    """
    d = site.spec.tree.unflatten(list(site.spec.leaves))
    if site.conditional or site.others:  # not one distribution
        return None
    d = _innermost(d)
    found = _PARTS.get(type(d))
    if found is None:
        return None
    return f"{found[0]} of {_outcomes(d)}" if found[0] == "finite" else found[0]


def known(q: str | None, p: str | None) -> bool:
    """Whether the divergence of these families is known."""
    joint = q == "multivariate normal" and p == "normal"
    return q is not None and (q == p or joint)


def divergence(q: Site, q_leaves: list, p: Site, p_leaves: list) -> Any:
    """KL(q || p) of the whole of a choice, given the parameters along the loops around it.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.vi.closed_forms import divergence
    >>> from ppl import gen, sample
    >>> def normal(scale):
    ...     site = gen(lambda: sample("x", dist.Normal(0.0, scale))).sites()[("x",)]
    ...     return site, [jnp.asarray(leaf) for leaf in site.distribution.tree_flatten()[0]]
    >>> print(f"{divergence(*normal(1.0), *normal(2.0)):.4f}")  # log 2 - 3/8
    0.3181
    """
    name = family(q)
    assert name is not None
    q_parts, p_parts = _parts(q, q_leaves), _parts(p, p_leaves)
    if name == "multivariate normal" and family(p) == "normal":
        loc, scale = p_parts
        p_parts = (loc, jnp.eye(loc.shape[-1], dtype=loc.dtype) * scale[..., None])
    return jnp.sum(_DIVERGENCES[name.split(" of ")[0]](q_parts, p_parts))


def _parts(site: Site, leaves: list) -> tuple:
    """The parameters of a choice, with the loops around it and its batch in front."""

    def one(leaves: list) -> tuple:
        whole = site.spec.tree.unflatten(leaves)
        d = _innermost(whole)
        shape = tuple(whole.batch_shape) + tuple(whole.event_shape)
        shape = shape[: len(shape) - len(d.event_shape)]
        _, parts, trailing = _PARTS[type(d)]
        return tuple(
            jnp.broadcast_to(part, shape + jnp.shape(part)[jnp.ndim(part) - own :])
            for part, own in zip(parts(d), trailing, strict=True)
        )

    run = one
    for _ in site.axes:
        run = jax.vmap(run)
    return run(leaves)


def _innermost(d: Any) -> Any:
    while isinstance(d, dist.Independent | dist.ExpandedDistribution):
        d = d.base_dist
    return d


def _outcomes(d: Any) -> int:
    for name in ("probs", "logits"):
        if name in d.__dict__:
            weights = d.__dict__[name]
            return 2 if isinstance(d, dist.BernoulliProbs | dist.BernoulliLogits) else (
                weights.shape[-1]
            )  # fmt: skip
    return 0


def _log(p: Any) -> Any:
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -jnp.inf)


def _named(*names: str) -> Callable[[Any], tuple]:
    return lambda d: tuple(getattr(d, name) for name in names)


_PARTS: dict[type, tuple[str, Callable[[Any], tuple], tuple[int, ...]]] = {
    # the family, the parameters, and how many axes each has of its own
    dist.Normal: ("normal", _named("loc", "scale"), (0, 0)),
    dist.LogNormal: ("log normal", _named("loc", "scale"), (0, 0)),
    dist.HalfNormal: ("half normal", _named("scale"), (0,)),
    dist.Laplace: ("laplace", _named("loc", "scale"), (0, 0)),
    dist.Gamma: ("gamma", _named("concentration", "rate"), (0, 0)),
    dist.Exponential: ("gamma", lambda d: (jnp.ones_like(d.rate), d.rate), (0, 0)),
    dist.InverseGamma: ("inverse gamma", _named("concentration", "rate"), (0, 0)),
    dist.Beta: ("beta", _named("concentration1", "concentration0"), (0, 0)),
    dist.Poisson: ("poisson", _named("rate"), (0,)),
    dist.Dirichlet: ("dirichlet", _named("concentration"), (1,)),
    dist.MultivariateNormal: ("multivariate normal", _named("loc", "scale_tril"), (1, 2)),
    dist.BernoulliProbs: (
        "finite",
        lambda d: (jnp.stack([_log(1 - d.probs), _log(d.probs)], -1),),
        (1,),
    ),
    dist.BernoulliLogits: (
        "finite",
        lambda d: (jax.nn.log_sigmoid(jnp.stack([-d.logits, d.logits], -1)),),
        (1,),
    ),
    dist.CategoricalProbs: ("finite", lambda d: (_log(d.probs),), (1,)),
    dist.CategoricalLogits: ("finite", lambda d: (jax.nn.log_softmax(d.logits, -1),), (1,)),
}


def _by_numpyro(make: Callable[..., Any]) -> Callable[[tuple, tuple], Any]:
    return lambda q, p: kl_divergence(make(*q), make(*p))


def _finite(q: tuple, p: tuple) -> Any:
    log_q, log_p = q[0], p[0]
    possible = log_q > -jnp.inf
    ratio = jnp.where(possible, log_q, 0) - jnp.where(possible, log_p, 0)
    return jnp.sum(jnp.exp(log_q) * ratio, -1)


def _laplace(q: tuple, p: tuple) -> Any:
    far = jnp.abs(q[0] - p[0])
    return jnp.log(p[1] / q[1]) + (q[1] * jnp.exp(-far / q[1]) + far) / p[1] - 1


def _half_normal(q: tuple, p: tuple) -> Any:
    ratio = q[0] / p[0]
    return (ratio**2 - 1) / 2 - jnp.log(ratio)


def _poisson(q: tuple, p: tuple) -> Any:
    return jax.scipy.special.xlogy(q[0], q[0] / p[0]) - q[0] + p[0]


_normal = _by_numpyro(dist.Normal)
_gamma = _by_numpyro(dist.Gamma)

_DIVERGENCES: dict[str, Callable[[tuple, tuple], Any]] = {
    "normal": _normal,
    "log normal": _normal,  # a bijection changes no divergence
    "half normal": _half_normal,
    "laplace": _laplace,
    "gamma": _gamma,
    "inverse gamma": _gamma,
    "beta": _by_numpyro(dist.Beta),
    "poisson": _poisson,
    "dirichlet": _by_numpyro(dist.Dirichlet),
    "multivariate normal": _by_numpyro(
        lambda loc, tril: dist.MultivariateNormal(loc, scale_tril=tril)
    ),
    "finite": _finite,
}
