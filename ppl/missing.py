"""Missing data: elements that a mask leaves out, and what depends on them.

Where nothing depends on them, they are integrated out by leaving them out: each has a density
of its own, whose mass is one. Where something does, they are latent, and the density of what
is observed is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from . import errors
from .addresses import Masked, flatten, nest
from .graph import found_in
from .masks import leading
from .program import Path

if TYPE_CHECKING:
    from .generative import GenerativeFunction
    from .target import Target


def partly_observed(target: Target) -> list[Path]:
    """The addresses of which a mask leaves elements out that are not latent.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Masked, Target, gen, sample
    >>> from ppl.missing import partly_observed
    >>> coins = gen(lambda: sample("x", dist.Bernoulli(0.25).expand([2])))
    >>> seen = Masked(jnp.ones(2, int), jnp.array([True, False]))
    >>> partly_observed(Target(coins, (), {"x": seen}))
    [('x',)]
    """
    observed = target.observed.items()
    return [p for p, value in observed if isinstance(value, Masked) and not value.impute]


def leaving_out(
    model: GenerativeFunction, observations: Any
) -> tuple[GenerativeFunction, Any]:
    """The model that leaves out what `Masked` observations lack, if its function knows how to.

    It is then given whole arrays; what they hold in place of what is missing has no influence,
    and is a value that is seen elsewhere.

    >>> from ppl import gen
    >>> from ppl.missing import leaving_out
    >>> leaving_out(gen(lambda: None), {})[1]
    {}
    """
    leave = getattr(model.fn, "leaving_out", None)
    if leave is None or not isinstance(observations, Mapping):
        return model, observations
    found = flatten(observations)
    partial = {p: x for p, x in found.items() if isinstance(x, Masked) and not x.impute}
    if not partial:
        return model, observations
    fn = leave({path: x.mask for path, x in partial.items()})
    for path, x in partial.items():
        value, seen = jnp.asarray(x.value), leading(jnp.asarray(x.mask), jnp.ndim(x.value))
        seen = jnp.broadcast_to(seen, value.shape)
        known = value.ravel()[jnp.argmax(seen)] if value.size else 0
        found[path] = jnp.where(seen, value, jnp.where(jnp.any(seen), known, 0))
    return type(model)(fn, model.fixed, model.name), nest(found)


def on_missing(
    target: Target, among: frozenset[Path] | None = None
) -> tuple[Path, str, str] | None:
    """A choice with missing elements, something that depends on them, and where that is.

    What depends on them is looked for `among` these choices; by default, among all that is
    scored.
    """
    partial = partly_observed(target)
    if not partial:
        return None
    found, _ = found_in(target.model._prepare(target.args, {}).staged.program)
    for path in partial:
        for below, site in target.sites.items():
            if path in found.parents[below] and (among is None or below in among):
                return path, errors.show(below), f"{errors.show(below)} at {site.source}"
        for factor, above in found.factors.items():
            if path in above and among is None:
                return path, "A factor", f"factor at {factor.source}"
    return None


def check_nothing_depends(target: Target, among: frozenset[Path] | None = None) -> None:
    """Raise `InvalidArgument` if something (of these choices) depends on missing elements."""
    found = on_missing(target, among)
    if found is None:
        return
    path, below, place = found
    name = errors.show(path)
    raise errors.InvalidArgument(
        f"{below} depends on elements of {name} that are not observed: they are latent, and "
        "the density without them is not known.",
        where=(*dict.fromkeys((f"{name} at {target.sites[path].source}", place)), errors.caller()),
        given=f"a mask on {name}",
        expected="missing elements that nothing depends on",
        fix=f"make them latent: observe {name} as Masked(value, mask, impute=True)",
    )
