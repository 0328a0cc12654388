"""Metropolis-Hastings with any generative function as the proposal."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, Trace, errors
from ppl.addresses import flatten, nest, not_found
from ppl.program import FACTOR, Path

from ..kernel import Kernel, Stats
from ..move import accepted
from ..recipe import made_again
from ..targets.presence import presence_varies
from ..targets.stochastic import Stochastic
from ..validation.objects import check_proposal, check_target


@made_again
def propose(target: Target, proposal: GenerativeFunction | Stochastic) -> Kernel:
    """Metropolis-Hastings: `proposal(latents)` makes new values at addresses of the target.

    Leaves `target` invariant. With S the addresses that the proposal makes, the ratio is
    p(x') q(x_S | x') / (p(x) q(x'_S | x)), x' being x with the new values at S (Hastings
    1970).

    The densities may be estimates. If the proposal also draws without addresses, v say, then
    q(x'_S | x, v) at the v with which x'_S was made stays in the ratio as it is, and the way
    back is assessed with a fresh v': the same ratio on the space of (x, v, v') (stochastic
    densities: Lew, Ghavamizadeh, Rinard and Mansinghka, PLDI 2023). If the target does, the
    trace keeps the estimate with which it was accepted (Andrieu and Roberts 2009).

    Choices in branches: the proposal must make what the target has there. A proposal that
    makes another set of choices than the target has at x' is refused, and one that cannot
    come back likewise, so that the dimensions agree.

    Statistics: `accept`.

    Args:
      proposal: a generative function of the nested dict of latents, of total mass one, or a
        `Stochastic` one.

    Raises:
      AddressNotFound: the proposal makes a choice that the target does not have.
      InvalidArgument: such a choice is observed; the proposal scores by `factor` or
        `observe`, so that its density is not known; it makes no choice; or its choices decide
        that others, which it does not make, are there or not.
      ShapeError, DtypeError: a choice of the proposal is of another kind than the target's.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.mcmc.proposals import propose
    >>> from ppl import Target, gen, sample
    >>> from semantics import kernel_matrix
    >>> @gen
    ... def coin():
    ...     bias = sample("bias", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    ...     sample("heads", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[bias]))
    >>> target = Target(coin, (), {"heads": 1})
    >>> steps = jnp.array([[0.0, 0.7, 0.3], [0.4, 0.0, 0.6], [0.5, 0.5, 0.0]])
    >>> other = gen(lambda x: sample("bias", dist.Categorical(steps[x["bias"]])))
    >>> pi, kernel = kernel_matrix(lambda t: propose(t, other), target)
    >>> kernel.is_reversible(pi, 1e-6)
    True
    """
    check_target(target)
    check_proposal(proposal)
    _check(target, proposal)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        trace, probability = accepted(trace, *proposed(target, proposal, trace))
        return trace, {"accept": probability}

    return Kernel(f"propose {proposal.name}", step, target=target)


def proposed(
    target: Target, proposal: GenerativeFunction | Stochastic, trace: Trace
) -> tuple[Trace, Any]:
    """The proposed trace, and the log ratio with which it is accepted."""
    x = target.choices(trace)
    forward = proposal.simulate(x)
    values, old = flatten(forward.choices), flatten(x)
    new_x = nest({path: values.get(path, value) for path, value in old.items()})
    changed, difference = target.moved(trace, new_x)
    back = _at(proposal, new_x, nest({path: old[path] for path in values}))
    fits = _agree(forward, changed, values) & _agree(back, trace, values)
    ratio = difference + back.score - forward.score
    return changed, jnp.where(fits, ratio, -jnp.inf)


def _at(proposal: GenerativeFunction | Stochastic, x: dict, values: dict) -> Trace:
    """The proposal's trace with these values, 0 standing for a choice that it does not make."""
    if isinstance(proposal, Stochastic):
        return proposal.at(values, x)
    return Target(proposal, (x,)).at(values)[0]


def _agree(made: Trace, there: Trace, paths: Any) -> jax.Array:
    """Whether the proposal made exactly those of its choices that the trace has."""
    ours, theirs = flatten(made.present), flatten(there.present)
    same = [
        jnp.all(jnp.asarray(ours.get(path, True)) == jnp.asarray(theirs.get(path, True)))
        for path in paths
        if path in ours or path in theirs
    ]
    return jnp.all(jnp.array(same, bool))


def _check(target: Target, proposal: GenerativeFunction | Stochastic) -> None:
    sites = target.sites
    blank = nest({path: jnp.zeros(sites[path].shape, sites[path].dtype) for path in target.latents})
    made = proposal.sites(blank)
    place = errors.defined(proposal.fn)
    stochastic = isinstance(proposal, Stochastic)
    if not stochastic and FACTOR in proposal._prepare((blank,), {}).staged.program.effects:
        raise errors.InvalidArgument(
            f"The proposal {proposal.name} scores with factor/observe.",
            where=place,
            given="a measure that is not normalised, and cannot be drawn from",
            expected="a generative function of total mass one",
            fix="leave the factors to the target",
        )
    if not made:
        raise errors.InvalidArgument(
            f"The proposal {proposal.name} makes no choice.",
            where=place,
            expected="choices at latents: " + "; ".join(errors.show(p) for p in target.latents),
            fix='name what it moves: sample("address", distribution)',
        )
    for path, site in made.items():
        if path not in sites:
            raise not_found(path, target.latents, "The proposal", (f"{site.source}",))
        _check_like(target, path, site)
    program = target.model._prepare(target.args, {}).staged.program
    vary = presence_varies(program, lambda path: path in made) - made.keys()
    if vary:
        first, *_ = missing = [path for path in target.latents if path in vary]
        raise errors.InvalidArgument(
            "The proposal may change which choices there are, but does not make all of them.",
            where=(f"{errors.show(first)} at {sites[first].source}", place),
            given="a proposal for " + "; ".join(errors.show(p) for p in made),
            expected="also " + "; ".join(errors.show(p) for p in missing),
            fix="make them in the same branch as the model does (jax.lax.cond)",
        )


def _check_like(target: Target, path: Path, made: Any) -> None:
    """Raise unless a choice of the proposal is of the kind of the target's latent."""
    site = target.sites[path]
    where = (f"{errors.show(path)} at {made.source}", f"{errors.show(path)} at {site.source}")
    if path in target.observed:
        raise errors.InvalidArgument(
            f"The proposal makes {errors.show(path)}, which is observed.",
            where=where,
            expected="latents: " + "; ".join(errors.show(p) for p in target.latents),
            fix="propose latent choices only",
        )
    if made.shape != site.shape:
        raise errors.ShapeError(
            f"The proposal makes {errors.show(path)} with another shape than the target.",
            where=where, given=f"shape {made.shape}", expected=f"shape {site.shape}",
            fix="propose the whole choice, with the axes of the loops around it in front",
        )  # fmt: skip
    if made.dtype != site.dtype:
        raise errors.DtypeError(
            f"The proposal makes {errors.show(path)} with another dtype than the target.",
            where=where, given=f"{made.kind} of {made.dtype}",
            expected=f"{site.kind} of {site.dtype}",
            fix="propose from a distribution with values of that dtype",
        )  # fmt: skip
