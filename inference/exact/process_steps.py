"""How a walk goes on with processes that are summed out: picked value by value, or as a matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw, errors
from ppl.affine import orders
from ppl.effects import sample_p
from ppl.masks import leading
from ppl.program import Choice, Map, Pure, Remat, Step
from ppl.randomness import bind_parameters

from ..gaussian.process import GaussianProcess
from . import picked
from .conditioning import conditioned, grown, tilted
from .gaussian_choices import innermost
from .linear import GaussianLaw, Linear, Picked, order_of, spread
from .processes import MOST, Process, Seen, begun, dense


def is_process(spec: Any) -> bool:
    return type(spec.tree.unflatten(spec.leaves)) is GaussianProcess


def noisy(spec: Any) -> bool:
    """Whether the values of a process are seen with noise of their own."""
    return spec.tree.unflatten(spec.leaves).noise is not None


def seen_moments(spec: Any, *leaves: Any) -> list:
    """The mean of a process that is one choice, and a factor of its covariance."""
    mean, covariance = moments(spec, *leaves)
    return [mean, jnp.linalg.cholesky(covariance)]


def moments(spec: Any, *leaves: Any) -> list:
    """The mean and the covariance of a process that is one choice."""
    process = spec.tree.unflatten(leaves)
    return [process.mean, process.covariance_matrix]


def choice(sums: Any, step: Choice, args: list, law: Any, given: Any) -> tuple[Any, GaussianLaw]:
    """A process that is summed out, and its parameters are known."""
    process = step.spec.tree.unflatten(args)
    simulated = None
    if sums.simulate:
        normals = jnp.zeros((*step.spec.shape, process.kernel.dimension))
        simulated = draw(dist.Normal(normals, 1.0))
        simulated = process.from_normals(simulated) - process.mean
    held = begun(step.path, process, given, simulated)
    return held.picked(), replace(law, processes=(*law.processes, held))


def check(step: Choice) -> None:
    """Raise `InvalidArgument` for a process that is summed out with values that are not there."""
    process = step.spec.tree.unflatten(step.spec.leaves)
    if process.present is None:
        return
    raise errors.InvalidArgument(
        f"{errors.show(step.path)} is summed out, and some of its values are not present.",
        where=(f"{errors.show(step.path)} at {step.source}", errors.caller()),
        given="gp(..., present=)",
        expected="a process of which each value has a law",
        fix="give it the times that there are; of what is seen of it, say missing={...}",
    )


def is_kept(sums: Any, step: Choice, copies: Any, args: list) -> bool:
    """Whether a choice is normal about picked values, with independent noise."""
    if step.path in sums.places or type(_of(step)) is not dist.Normal:
        return False
    f, avals = _laid_out(step, copies)
    kinds = [picked.keeps(partial(_one, f, i), avals, args) for i in (0, 1)]
    return kinds[0] and not orders(f, avals, [order_of(value) for value in args])[1].degree


def kept(
    sums: Any, step: Choice, args: list, law: GaussianLaw, given: Any, copies: Any, shape: tuple
) -> tuple[Any, GaussianLaw]:
    """A choice that is not summed out, normal about picked values."""
    f, avals = _laid_out(step, copies)
    (read,) = picked.through(partial(_one, f, 0), avals, args) or (None,)
    known = [value.at if isinstance(value, Picked) else value for value in args]
    scale = f(*known)[1].astype(law.mean.dtype)
    assert isinstance(read, Picked)
    held = next(each for each in law.processes if each.block == read.block)
    present = None
    if given is not None and given.counts is not None:
        present = jnp.broadcast_to(leading(given.counts, len(shape)), shape).reshape(-1)
    if sums.given:
        assert given is not None
        value = jnp.asarray(given.value, step.spec.dtype)
        flat = value.reshape(-1).astype(law.mean.dtype)
        if sums.simulate:
            own = read.at + read.by * held.simulated[read.rows]
            own = own + scale * draw(dist.Normal(jnp.zeros_like(own), 1.0))
            flat, read = flat - own, replace(read, at=jnp.zeros_like(read.at))
    else:
        seen = Seen(held, read, scale, present, shape)
        leaves, params = bind_parameters(seen, step.source, sums.sites[step.path].kind)
        (value,) = sample_p.bind(*leaves, **params, address=step.path, source=step.source)
        flat = value.reshape(-1).astype(law.mean.dtype)
    after, log = held.given(read, scale, flat, present)
    processes = tuple(after if each is held else each for each in law.processes)
    return value, replace(law, processes=processes, evidence=law.evidence + log)


def _of(step: Choice) -> Any:
    return innermost(step.spec.tree.unflatten(step.spec.leaves))


def _laid_out(step: Choice, copies: Any) -> tuple[Callable, list]:
    """The means and scales of a choice's elements, flat, and what they are made from."""
    spec = step.spec

    def f(*leaves: Any) -> list:
        d = innermost(spec.tree.unflatten(leaves))
        return [jnp.broadcast_to(x, spec.shape).reshape(-1) for x in (d.loc, d.scale)]

    if copies is None:
        return f, list(spec.leaves)
    size, mapped = copies
    each = jax.vmap(f, [0 if m else None for m in mapped], axis_size=size)
    avals = [jax.ShapeDtypeStruct((size, *jnp.shape(x)) if m else jnp.shape(x), jnp.result_type(x))
             for x, m in zip(spec.leaves, mapped, strict=True)]  # fmt: skip
    return lambda *leaves: [x.reshape(-1) for x in each(*leaves)], avals


def _one(f: Callable, i: int, *leaves: Any) -> list:
    return [f(*leaves)[i]]


# -- as a matrix -----------------------------------------------------------------------------


def ready(
    sums: Any, step: Step, avals: Sequence[Any], args: list, law: GaussianLaw
) -> tuple[list, GaussianLaw]:
    """The arguments of a step in a form that it keeps, and the law with what that takes."""
    def fits(args: list) -> bool:
        if isinstance(step, Pure):
            return picked.keeps(step.evaluate, avals, args)
        if isinstance(step, Choice):
            return is_kept(sums, step, None, args)
        if isinstance(step, Map):
            return all(isinstance(s, (Pure, Choice)) for s in step.body.steps)
        return isinstance(step, Remat)

    return fitting(sums, fits, step.source, args, law)


def fitting(
    sums: Any, fits: Callable[[list], bool], place: str, args: list, law: GaussianLaw
) -> tuple[list, GaussianLaw]:
    """Arguments of which some are picked, if those fit; else with matrices instead."""
    args = _again(args, law)
    if not any(isinstance(value, Picked) for value in args) or fits(args):
        return args, law
    return settled(sums, place, args, law)


def settled(sums: Any, place: str, values: list, law: GaussianLaw) -> tuple[list, GaussianLaw]:
    """Values without any that are picked, and the law with matrices of what they are picked from.

    Args:
      place: what reads them, for people.

    Raises:
      InvalidArgument: of too many values.
    """
    values = _again(values, law)
    names = {value.block for value in values if isinstance(value, Picked)}
    for held in law.processes:
        if held.block in names:
            law = _written_out(sums, held, law, place)
    return _again(values, law), law


def _again(values: list, law: GaussianLaw) -> list:
    """Values that were picked from what is a matrix now."""
    def one(value: Any) -> Any:
        if isinstance(value, Picked) and value.block in law.blocks:
            return Linear(value.at, dense(value), (value.block,))
        return value

    return [one(value) for value in values]


def _written_out(sums: Any, held: Process, law: GaussianLaw, place: str) -> GaussianLaw:
    n, path = held.block.size, held.block.name
    if n > MOST:
        site = sums.sites.get(path)
        raise errors.InvalidArgument(
            f"{errors.show(path)} is summed out, and read in a way that takes all its covariances.",
            where=(f"{errors.show(path)} at {site.source}" if site else "", errors.caller()),
            given=f"{n} values, {n}^2 covariances, for what reads them at {place}",
            expected=f"at most {MOST} values; or that each number reads one value of it, as "
            "dist.Normal(f[index], scale) does",
            fix="let each number that is seen depend on one value, or leave it to a kernel",
        )
    rest = tuple(each for each in law.processes if each is not held)
    law = grown(replace(law, processes=rest), held.block, held.covariance(), held.simulated)
    eye = spread(jnp.eye(n, dtype=law.mean.dtype), (held.block,), law.blocks)
    if held.tilt is not None:
        law = tilted(law, held.level, eye, held.tilt)
    if held.values.size:
        before, noise = law.evidence, jnp.diag(jnp.sqrt(held.variance))
        law = conditioned(law, eye[held.rows], noise, held.values, held.present)
        # what was seen has been counted, but for what the tilt adds to it
        more = 0.0 if held.tilt is None else law.evidence - held.evidence - before
        law = replace(law, evidence=before + more)
    return law


def ended(law: GaussianLaw, live: frozenset) -> GaussianLaw:
    """The law without processes that nothing reads any more."""
    gone = [held for held in law.processes if held.block not in live]
    if not gone:
        return law
    kept = tuple(held for held in law.processes if held.block in live)
    return replace(law, processes=kept, evidence=law.evidence + sum(p.tilted() for p in gone))
