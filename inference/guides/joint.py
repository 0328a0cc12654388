"""Guides that make all latents of a target at once: noise, moved, and constrained.

Noise from standard normals is moved to a point z of the target's unconstrained space, and z to
the latents by the bijections of their supports. Both steps have their log Jacobians, so the
density of the latents is known, as they are drawn and for given ones. A `Family` says how noise
is moved; all guides that are built from a target are one of its kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import GenerativeFunction, Site, Target, draw, errors
from ppl.addresses import flatten, nest
from ppl.missing import check_nothing_depends
from ppl.program import Path

from ..estimated.pseudo_marginal import scored
from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from ..validation.objects import check_target
from ..validation.settings import check_number, shown


class Family(Protocol):
    """Laws on R^n, n the size of a target's unconstrained space; a pytree.

    `drawn(space, parameters)`: a random program, z and log q(z).
    `log_density(space, parameters, z)`: log q(z) of a given z.
    """

    def drawn(self, space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]: ...

    def log_density(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array: ...


def space_of(target: Target) -> Space:
    """The unconstrained space of all latents.

    Raises:
      InvalidArgument: there is no target; there are no latents; or one is discrete, is made in
        some branches only, or has a support without a bijection.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.guides.joint import space_of
    >>> from ppl import Target, gen, sample
    >>> space_of(Target(gen(lambda: sample("p", dist.Dirichlet(jnp.ones(3)))))).size
    2
    """
    check_target(target)
    for path in target.latents:
        _check_latent(target.sites[path])
    space = Space(target, estimates=True)
    check_nothing_depends(target, space.coordinates.moving)
    return space


def _check_latent(site: Site) -> None:
    """Raise where a latent has no normal approximation."""
    name = errors.show(site.path)
    if not jnp.issubdtype(site.dtype, jnp.floating):
        fault, fix = "is discrete", "enumerate_() for that choice"
    elif site.conditional:
        fault, fix = "is made in some branches only", "the same branches"
    else:
        return
    raise errors.InvalidArgument(
        f"The latent {name} {fault}: a guide that is built from the target has no place for it.",
        where=(f"{name} at {site.source}", errors.caller()),
        given=f"{site.kind}, {site.dtype}",
        expected="continuous latents that are always made",
        fix=f"write the guide by hand, with {fix}; or sum the latent out of the model's density",
    )


def start_of(space: Space, latents: Mapping[str, Any] | None) -> jax.Array:
    """The point of `space` at these latents; 0 where none are given."""
    if latents is None:
        return jnp.zeros(space.size, space.dtype)
    if not isinstance(latents, Mapping):
        raise errors.InvalidArgument(
            "A start is a nested dict of latents.",
            where=errors.caller(),
            given=shown(latents),
            expected="; ".join(errors.show(path) for path in space.paths),
            fix="start=trace.choices, or None for 0 in unconstrained space",
        )
    z = joined(space, space.target.unconstrain(latents))
    if not isinstance(z, jax.core.Tracer) and not jnp.all(jnp.isfinite(z)):
        raise errors.InvalidArgument(
            "The start has no finite point of unconstrained space.",
            where=errors.caller(),
            given=shown(latents),
            expected="latents inside of their supports, not on an end",
            fix="leave `start` out, or move it inside",
        )
    return z


def check_scale(scale: Any) -> None:
    """Raise unless the scale of a start is a positive number."""
    check_number("scale", scale, above=0, fix=0.1)


def split(space: Space, z: jax.Array) -> dict[str, Any]:
    """A vector of the space as a nested dict, by address.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.guides.joint import space_of, split
    >>> from ppl import Target, gen, sample
    >>> pair = gen(lambda: [sample(name, dist.Normal(0.0, 1.0)) for name in "ab"])
    >>> {name: x.item() for name, x in split(space_of(Target(pair)), jnp.arange(2.0)).items()}
    {'a': 0.0, 'b': 1.0}
    """
    ends = np.cumsum([space.sizes[path] for path in space.paths])[:-1]
    parts = zip(space.paths, jnp.split(z, ends), strict=True)
    return nest({path: x.reshape(space.coordinates.shapes[path]) for path, x in parts})


def joined(space: Space, parts: Mapping[str, Any]) -> jax.Array:
    """The vector of a nested dict, the inverse of `split`."""
    values = flatten(parts)
    return jnp.concatenate([jnp.ravel(values[p]).astype(space.dtype) for p in space.paths])


def started(space: Space, start: Mapping[str, Any] | None, scale: float) -> dict[str, Any]:
    """`loc` at the start, and `log_scale` of this scale, both by address."""
    log_scale = jnp.full(space.size, jnp.log(scale), space.dtype)
    return {"loc": split(space, start_of(space, start)), "log_scale": split(space, log_scale)}


def noise(space: Space, size: int) -> jax.Array:
    """Independent standard normals; a random program."""
    return draw(dist.Normal(jnp.zeros(size, space.dtype), 1.0))


def standard(x: jax.Array) -> jax.Array:
    """The log density of independent standard normals."""
    return -0.5 * (jnp.sum(x**2, -1) + x.shape[-1] * jnp.log(2 * jnp.pi))


@partial(jax.tree_util.register_dataclass, data_fields=["target", "family"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Joint:
    """The latents of a target by a family; further arguments than the parameters are not used.

    So a target may be a function of a guide's parameters and of others:
    `elbo(lambda q, s: Target(model, (s,), data), guide)`.
    """

    target: Target
    family: Family

    exact = True

    @property
    def moves(self) -> bool:
        """Whether draws move with the parameters."""
        return getattr(self.family, "moves", True)

    def sites(self, parameters: Any, *others: Any) -> dict[Path, Site]:
        del parameters, others
        moving = self.target.coordinates().moving
        known = self.target.sites
        # the ends of a support that moves are the model's own, and are not compared as numbers
        return {
            path: replace(known[path], distribution=None) if path in moving else known[path]
            for path in self.target.latents
        }

    def drawn(self, parameters: Any, *others: Any) -> tuple:
        space = self.space
        z, log_density = self.family.drawn(space, parameters)
        values, log_det = space.constrain(None, z)
        sites = self.target.sites
        choices = nest({path: _held(sites[path], values[path]) for path in self.target.latents})
        return choices, {}, log_density - log_det, choices

    def given(self, choices: Mapping[str, Any], parameters: Any, *others: Any) -> tuple:
        return dict(choices), {}, self.log_density(choices, parameters), dict(choices)

    def log_density(self, choices: Mapping[str, Any], parameters: Any) -> jax.Array:
        """log q of these latents; -inf where they are no point of unconstrained space."""
        space = self.space
        known = {**self.target.observed_values, **flatten(choices)}
        z = joined(space, nest(space.coordinates.unconstrain(known)))
        inside = jnp.all(jnp.isfinite(z))
        z = jnp.where(inside, z, 0.0)
        log_density = self.family.log_density(space, parameters, z)
        return jnp.where(inside, log_density - space.constrain(None, z)[1], -jnp.inf)

    def __call__(self, parameters: Any, *others: Any) -> Any:
        kept = frozenset(self.target.latents)
        return scored(self.target, kept, lambda values: self.log_density(values, parameters))

    @property
    def space(self) -> Space:
        return Space(self.target, estimates=True)


def _held(site: Site, value: jax.Array) -> jax.Array:
    """`value`, not rounded to the ends of an interval, or beyond: so that it is known to be inside.

    Else a check of the support would count as a jump that the value might cross.
    """
    support = site.distribution.support if site.distribution is not None else None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    if not all(isinstance(end, (int, float, np.ndarray, jax.Array)) for end in ends):
        return value  # an end is not there, or depends on other latents
    if any(isinstance(end, jax.core.Tracer) for end in ends):
        return value
    low, high = (np.asarray(end, value.dtype) for end in ends)
    tiny = np.finfo(value.dtype).tiny  # what is smaller may be flushed to 0
    low = np.where(low == 0, tiny, np.nextafter(low, high))
    high = np.where(high == 0, -tiny, np.nextafter(high, low))
    return jnp.clip(value, low, high)


def joint(target: Target, family: Family, name: str) -> Stochastic:
    """The guide of a target's latents by a family; its argument is the family's parameters."""
    law = Joint(target, family)
    return Stochastic(GenerativeFunction(law, name=f"{name}({target.model.name})"))
