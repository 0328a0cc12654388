"""Metropolis-Hastings on every element of a plate at once, each accepted on its own."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Selection, Target, Trace, draw, errors, select
from ppl.addresses import flatten, nest
from ppl.masks import leading
from ppl.program import Path

from ..kernel import Kernel, Stats
from ..recipe import made_again
from ..targets.plates import Plate
from ..targets.single_choice import check_density_known, latent
from ..validation.objects import check_model, check_no_gaps


@made_again
def mh_each(
    target: Target,
    address: str | tuple[str, ...],
    proposal: GenerativeFunction | None = None,
) -> Kernel:
    """Metropolis-Hastings on every element of a `vmap`ped choice, each accepted on its own.

    Leaves `target` invariant: given the rest, the elements are independent, and element i is
    accepted with the ratio of iteration i alone (Hastings 1970, on each factor of the product).

    Statistics: `accept`, the mean acceptance probability of the elements.

    Args:
      address: a latent in a `ppl.vmap` (or `repeat`) whose iterations hold all that depends
        on it. Its elements are the iterations.
      proposal: `proposal(value, i)` of one element's value and its index, with one choice, the
        new value. Left out, elements are drawn from the model. Draws without addresses are
        allowed: the estimate with which a value was proposed is kept.

    Raises:
      AddressNotFound: there is no such choice.
      InvalidArgument: the choice is observed; its elements are not conditionally independent;
        it decides which other choices there are; the model draws without addresses; or the
        proposal does not make one choice like an element.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.mcmc.mh_each import mh_each
    >>> from ppl import Target, gen, sample, vmap
    >>> from semantics import kernel_matrix
    >>> @gen
    ... def toss(p):
    ...     fair = sample("fair", dist.Bernoulli(p))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> coins = gen(lambda: sample("coins", vmap(toss)(jnp.array([0.5, 0.25]))))
    >>> target = Target(coins, (), {"coins": {"heads": jnp.array([1, 0])}})
    >>> pi, kernel = kernel_matrix(lambda t: mh_each(t, ("coins", "fair")), target)
    >>> kernel.is_reversible(pi, 1e-6)
    True
    """
    if proposal is not None:
        check_model(proposal)
    path = latent(target, address)
    check_density_known(target, path)
    plate = Plate.of(target, path)
    if path in target.gaps and math.prod(target.sites[path].shape[1:]) > 1:
        check_no_gaps(target, "A step that accepts several elements together", "mh")
    name = () if proposal is None else _proposed(target, path, proposal)

    def redrawn(trace: Trace) -> tuple[Any, Any]:
        """New values from the model, and the log ratio of all else in each iteration."""
        new = flatten(target.regenerate(trace, path)[0].choices)[path]
        return new, _change(plate, trace, new, ~select(path))

    def proposed(trace: Trace, proposal: GenerativeFunction) -> tuple[Any, Any]:
        """New values from the proposal, and the log ratio of each iteration."""
        old, index = flatten(trace.choices)[path], jnp.arange(plate.size)
        forward = jax.vmap(proposal.simulate)(old, index)
        new = flatten(forward.choices)[name]
        assess = lambda to, x, i: proposal.assess(nest({name: to}), x, i)[0]  # noqa: E731
        ratio = _change(plate, trace, new, None)
        return new, ratio + jax.vmap(assess)(old, new, index) - forward.score

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        old = flatten(trace.choices)[path]
        new, log_ratio = redrawn(trace) if proposal is None else proposed(trace, proposal)
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        probability = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, 0.0)))
        taken = draw(dist.Bernoulli(probability)) == 1
        kept = jnp.where(leading(taken, old.ndim), new, old)
        return target.moved(trace, nest({path: kept}))[0], {"accept": probability.mean()}

    return Kernel(f"mh_each {errors.show(path)}", step, target=target)


def _change(plate: Plate, trace: Trace, new: Any, counted: Selection | None) -> jax.Array:
    """The change of each iteration's log density."""
    old = flatten(trace.choices)[plate.path]
    return plate.log_densities(trace, new, counted) - plate.log_densities(trace, old, counted)


def _proposed(target: Target, path: Path, proposal: GenerativeFunction) -> Path:
    """The address of the one choice of a per-element proposal."""
    site = target.sites[path]
    element = jnp.zeros(site.shape[1:], site.dtype)
    found = proposal.sites(element, jnp.zeros((), int))
    made = list(found.values())
    fits = len(made) == 1 and (made[0].shape, made[0].dtype) == (element.shape, element.dtype)
    if not fits or made[0].conditional or site.conditional:
        raise errors.InvalidArgument(
            f"The proposal for an element of {errors.show(path)} does not make one like it.",
            where=(f"{errors.show(path)} at {site.source}", errors.defined(proposal.fn)),
            given="; ".join(str(each) for each in made) or "no choice",
            expected=f"one choice that is always made, {element.dtype}{list(element.shape)}, "
            "for an element that is always there",
            fix='gen(lambda value, i: sample("to", distribution))',
        )
    return made[0].path
