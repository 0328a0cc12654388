"""Values that move with the parameters of their law: by location and scale, by an inverse
distribution function, made of gamma variables, or implicitly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .. import arithmetic, distributions, errors
from ..keys import abstract_base, base_dtype, sizes, with_levels
from ..randomness import draw
from .implicit import at_level, moving_gamma
from .lanes import along
from .nodes import DrawNode
from .strategies import Made, Site

_NOISE = {"normal": dist.Normal, "uniform": dist.Uniform}


@dataclass(frozen=True)
class Reparam:
    """See `ppl.reparam`."""

    allow_jump: bool = False
    several = False
    scored = False
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        return Made(along(lambda *leaves: _moving(site.node, list(leaves)), *site.parameters))


def _moving(node: DrawNode, leaves: list) -> Any:
    """A value of the draw as a differentiable function of `leaves`."""
    spec = node.spec
    found = abstract_base(spec)
    if found is not None and jnp.issubdtype(spec.dtype, jnp.floating):
        kind, shape = found
        noise = draw(_NOISE[kind](0.0, 1.0).expand(sizes(spec) + shape)).astype(base_dtype(spec))

        def placed(leaves: list, noise: Any) -> Any:
            base = distributions.base(spec.tree.unflatten(leaves))
            assert base is not None
            return arithmetic.shaped(base[2](noise), spec.shape, spec.dtype)

        return with_levels(placed, spec)(leaves, noise)

    def one(leaves: list, _: Any) -> Any:
        d = spec.tree.unflatten(leaves)
        how = maker(d)
        if how is None:
            raise no_reparam(node)
        return arithmetic.shaped(how(d), spec.shape, spec.dtype)

    return with_levels(one, spec)(leaves, jnp.zeros(sizes(spec)))


def can_move(node: DrawNode) -> bool:
    """Whether the draw's values can move with its parameters."""
    spec = node.spec
    d = spec.tree.unflatten(list(spec.leaves))
    return jnp.issubdtype(spec.dtype, jnp.floating) and maker(d) is not None


def no_reparam(node: DrawNode) -> errors.NoStrategy:
    discrete = not jnp.issubdtype(node.spec.dtype, jnp.floating)
    return errors.NoStrategy(
        f"A choice from {node.spec.kind} cannot be reparametrised.",
        where=node.place,
        given="reparam()" + (", of a discrete choice" if discrete else ""),
        expected="measure_valued(), enumerate_(), reinforce(), ..."
        if discrete
        else "a distribution with a location and scale, an inverse distribution function, or "
        "made of gamma variables",
        fix="reinforce()" if not discrete else "enumerate_() or reinforce()",
    )


def _stopped(x: Any) -> Any:
    return jax.lax.stop_gradient(x)


def _gamma(a: Any) -> Any:
    """A value of Gamma(a, 1) for each element of `a`."""
    return moving_gamma(a, draw(dist.Gamma(_stopped(a), 1.0)))


def _wide(parameter: Any, d: Any) -> Any:
    return jnp.broadcast_to(parameter, d.batch_shape)


def _normal(shape: tuple[int, ...]) -> Any:
    return draw(dist.Normal(0.0, 1.0).expand(shape))


def _uniform(shape: tuple[int, ...]) -> Any:
    u = draw(dist.Uniform(0.0, 1.0).expand(shape))
    return jnp.maximum(u, 2.0**-32)  # logarithms stay finite


def _beta(d: Any) -> Any:
    one = _gamma(_wide(d.concentration1, d))
    return one / (one + _gamma(_wide(d.concentration0, d)))


def _dirichlet(d: Any) -> Any:
    parts = _gamma(jnp.broadcast_to(d.concentration, d.batch_shape + d.event_shape))
    return parts / jnp.sum(parts, -1, keepdims=True)


def _student(d: Any) -> Any:
    spread = _gamma(_wide(d.df / 2, d)) / (d.df / 2)
    return d.loc + d.scale * _normal(d.batch_shape) / jnp.sqrt(spread)


def _multivariate_normal(d: Any) -> Any:
    shape = d.batch_shape + d.event_shape
    return d.loc + jnp.einsum("...ij,...j->...i", d.scale_tril, _normal(shape))


def _low_rank(d: Any) -> Any:
    shape = d.batch_shape + d.event_shape
    factors = _normal(d.batch_shape + d.cov_factor.shape[-1:])
    shared = jnp.einsum("...ij,...j->...i", d.cov_factor, factors)
    return d.loc + shared + jnp.sqrt(d.cov_diag) * _normal(shape)


def _kumaraswamy(d: Any) -> Any:
    u = _uniform(d.batch_shape)
    return (-jnp.expm1(jnp.log(u) / d.concentration0)) ** (1 / d.concentration1)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def _von_mises(d: Any) -> Any:
    """An angle: its distance from the middle moves with the concentration."""

    def level(d: Any, z: Any) -> Any:
        # new arrays, as in `quadrature.gauss`
        nodes, weights = (x.astype(jnp.result_type(z)) for x in (_NODES, _WEIGHTS))
        t = z[..., None] * (nodes + 1) / 2
        inside = jnp.exp(d.concentration[..., None] * (jnp.cos(t) - 1))
        return z / 2 * jnp.sum(weights * inside, -1) * jnp.exp(log_height(d))

    def log_density(d: Any, z: Any) -> Any:
        return d.concentration * (jnp.cos(z) - 1) + log_height(d)

    def log_height(d: Any) -> Any:
        return -jnp.log(2 * jnp.pi * jax.scipy.special.i0e(d.concentration))

    middle = dist.VonMises(0.0, _wide(d.concentration, d))
    z = at_level(_drawn(middle), middle, level, log_density)
    turned = z + d.loc
    return turned - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(turned / (2 * jnp.pi)))


def _quantile(d: Any) -> Any:
    return d.icdf(_uniform(d.batch_shape))


def _mixture(d: Any) -> Any:
    """A value of a mixture of one family: its distribution function stays."""

    def level(d: Any, x: Any) -> Any:
        parts = d.component_distribution.cdf(x[..., None])
        return jnp.sum(d.mixing_distribution.probs * parts, -1)

    return at_level(_drawn(d), d, level, distributions.log_density)


def _by_level(d: Any) -> Any:
    return at_level(_drawn(d), d, lambda d, x: d.cdf(x), distributions.log_density)


def _drawn(d: Any) -> Any:
    """A value, without derivative."""
    return draw(jax.tree.map(_stopped, d))


def _transformed(d: Any) -> Any:
    how = maker(d.base_dist)
    assert how is not None
    value = how(d.base_dist)
    for transform in d.transforms:
        value = transform(value)
    return value


_MADE: dict[type, Callable[[Any], Any]] = {
    dist.Gamma: lambda d: _gamma(_wide(d.concentration, d)) / d.rate,
    dist.Chi2: lambda d: 2 * _gamma(_wide(d.df / 2, d)),
    dist.InverseGamma: lambda d: d.rate / _gamma(_wide(d.concentration, d)),
    dist.Beta: _beta,
    dist.Dirichlet: _dirichlet,
    dist.StudentT: _student,
    dist.MultivariateNormal: _multivariate_normal,
    dist.LowRankMultivariateNormal: _low_rank,
    dist.Kumaraswamy: _kumaraswamy,
    dist.VonMises: _von_mises,
    dist.Delta: lambda d: d.v,
}


def maker(d: Any) -> Callable[[Any], Any] | None:
    """What makes a differentiable value of a distribution; None if nothing does."""
    first: Any = d
    while isinstance(first, dist.TransformedDistribution):  # whose ends are computed of numbers
        first = first.base_dist
    if first.support.is_discrete:
        return None
    if isinstance(d, dist.Independent):
        inner = maker(d.base_dist)
        return None if inner is None else lambda d: inner(d.base_dist)
    if type(d) is dist.ExpandedDistribution:
        return _expanded(d)
    if distributions.base(d) is not None:
        return _based
    if type(d) in _MADE:
        return _MADE[type(d)]
    if isinstance(d, dist.MixtureSameFamily):
        parts = d.component_distribution
        return _mixture if not parts.event_shape and _has(parts, "cdf") else None
    if isinstance(d, dist.TransformedDistribution):
        return _transformed if maker(d.base_dist) is not None else None
    if d.event_shape:
        return None
    if _has(d, "icdf"):
        return _quantile
    return _by_level if _has(d, "cdf") else None


def _based(d: Any) -> Any:
    found = distributions.base(d)
    assert found is not None
    kind, shape, transform = found
    return transform(draw(_NOISE[kind](0.0, 1.0).expand(shape)))


def _expanded(d: Any) -> Callable[[Any], Any] | None:
    """Of independent copies: one for each place of the axes in front."""
    inner = maker(d.base_dist)
    more = len(d.batch_shape) - len(d.base_dist.batch_shape)
    if inner is None or tuple(d.batch_shape[more:]) != tuple(d.base_dist.batch_shape):
        return None

    def copies(d: Any) -> Any:
        def one(_: Any) -> Any:
            return inner(d.base_dist)

        fn = one
        for _ in range(more):
            fn = jax.vmap(fn)
        return fn(jnp.zeros(d.batch_shape[:more]))

    return copies


def _has(d: Any, name: str) -> bool:
    """Whether a distribution has a function of its own, and not only the name of one."""
    leaves, tree = jax.tree.flatten(d)
    known = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    at = jax.ShapeDtypeStruct(tuple(d.batch_shape), jnp.result_type(float))

    def applied(leaves: list, x: Any) -> Any:
        return getattr(tree.unflatten(leaves), name)(x)

    try:
        jax.eval_shape(applied, known, at)
    except Exception:  # numpyro raises anything where it has none
        return False
    return True
