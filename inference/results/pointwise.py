"""The likelihood of each observation by itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl import Masked, Target, errors, part_of_normal
from ppl.addresses import flatten, nest
from ppl.distributions import elementwise, log_density
from ppl.labels import Labels
from ppl.masks import leading
from ppl.missing import check_nothing_depends
from ppl.part_of_normal import are_of_parts
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Factor, Path
from ppl.walk import Result, Rule, walk

from .draws import Draws
from .each_draw import Room, over_draws
from .predictive import observed_of, target_of
from .streamed import run_into


class Pointwise(Rule):
    """Puts out, for each observed choice, the log density of its independent elements.

    The inputs are `(value, mask)` by path: where the mask is false the density is NaN.
    """

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, observed: frozenset[Path]):
        self.observed = observed

    def visit(self, step, args, inputs) -> Result:
        if isinstance(step, Factor):  # of no element
            return [], {}, {}
        assert isinstance(step, Choice)
        value, mask = inputs[step.path]
        value = jnp.asarray(value, step.spec.dtype)
        if step.path not in self.observed:
            return [value], {}, {}
        d = step.spec.tree.unflatten(args)
        if mask is not None and are_of_parts(d, mask):
            density = part_of_normal.log_density(d, value, mask)
            return [value], {"log_likelihood": {step.path: density}}, {}
        density = log_density(elementwise(d), value)
        if mask is not None:
            density = jnp.where(leading(mask, density.ndim), density, jnp.nan)
        return [value], {"log_likelihood": {step.path: density}}, {}


def log_likelihood(
    draws: Draws, target: Target | None = None, *, batch: int | None = None,
    to: str | os.PathLike | None = None,
) -> Any:  # fmt: skip
    """log p(y_i | latents) of each observed element, for each draw.

    Over the elements that are observed it adds up to `project`; those that a mask leaves out are
    NaN, so that nothing takes them for data (`np.nansum` adds up the others). An element is
    independent of the others given the latents (and given earlier elements, where the
    model makes it depend on them): `to_event` is undone, the axes of loops are kept, and
    an event such as a vector of a multivariate normal is one element. Those in branches not
    taken are 0. What `factor` and `observe`
    add inside the model has no address, and is left out.

    Args:
      target: the target of the draws, where they do not carry it (`draws.target`).
      batch: how many draws are computed at once; the result does not depend on it.
      to: a netCDF file that they go to as they are made, in the group `log_likelihood`, with the
        labels of the draws: they are never whole in memory.

    Returns:
      nested dict of numpy arrays (chains, draws, *elements); with `to`, its path.

    Raises:
      InvalidArgument: nothing is observed, there is no target, the model draws without
        addresses, or something observed depends on elements that a mask leaves out.
      AddressNotFound, MissingChoice: the draws are not of the target's latents.
      BranchMismatch: branches split one observed address into other elements.

    >>> import jax.numpy as jnp, numpy as np, numpyro.distributions as dist
    >>> from inference import Draws
    >>> from inference.results.pointwise import log_likelihood
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coins():
    ...     p = sample("p", dist.Uniform(0.0, 1.0))
    ...     sample("heads", dist.Bernoulli(p).expand([2]).to_event(1))
    >>> target = Target(coins, (), {"heads": jnp.array([1, 0])})
    >>> draws = Draws({"p": np.array([[0.5, 0.25]])}, target=target)
    >>> np.exp(log_likelihood(draws)["heads"]).round(4).tolist()
    [[[0.5, 0.5], [0.25, 0.75]]]
    """
    target = target_of(draws, target)
    observed = observed_of(target)
    _check_exact(target, observed)
    size = sum(math.prod(site.shape) for site in target.sites.values())
    dims, known = draws.labels.dims, draws.labels.coords
    used = {name for path in observed for name in dims.get(path, ())}
    labels = Labels(dims, {name: x for name, x in known.items() if name in used})

    def run(room: Room | None) -> dict[str, Any]:
        return over_draws(_pointwise, target, target.args, draws, size, batch, None, room)

    return run_into(to, "log_likelihood", draws.shape, labels, run)


def _pointwise(target: Target, args: tuple) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    observed = observed_of(target)
    run = target.model._prepare(args, {})
    data = {path: _split(target.observed[path]) for path in observed}
    rule = Pointwise(frozenset(observed))

    def pointwise(latents: Mapping[str, Any]) -> dict[str, Any]:
        given = {path: (value, None) for path, value in flatten(latents).items()}
        for path, gap in target.gaps.items():  # what is missing has a value, and is no datum
            data[path] = gap.filled(given[path][0]), jnp.asarray(gap.seen)
        _, found, _ = walk(run.staged.program, run.operands, rule, {**given, **data})
        return nest(found["log_likelihood"])

    return pointwise


def there(shape: tuple[int, ...], observation: Any) -> np.ndarray:
    """Which elements, of a likelihood of this shape, are observed.

    >>> import numpy as np
    >>> from inference.results.pointwise import there
    >>> from ppl import Masked
    >>> there((2,), Masked(np.zeros(2), np.array([True, False]))).tolist()
    [True, False]
    """
    if not isinstance(observation, Masked):
        return np.ones(shape, bool)
    mask = np.asarray(observation.mask)
    if mask.ndim > len(shape):  # of parts of vectors, each of which is one observation
        return np.asarray(mask.any(-1))
    return np.broadcast_to(leading(mask, len(shape)), shape)


def _split(observation: Any) -> tuple[Any, Any]:
    if isinstance(observation, Masked):
        return observation.value, observation.mask
    return observation, None


def _check_exact(target: Target, observed: list[Path]) -> None:
    """Raise unless the density of each observed element is known and of one shape."""
    program = target.model._prepare(target.args, {}).staged.program
    if DRAW in program.effects:
        raise errors.InvalidArgument(
            f"{target.model.name} draws without addresses: its likelihood is only estimated.",
            where=(errors.defined(target.model.fn), errors.caller()),
            expected="a model whose choices all have addresses",
            fix='name the draw: sample("address", distribution)',
        )
    for path in observed:
        site = target.sites[path]
        here = f"{errors.show(path)} at {site.source}"
        shapes = {tuple(elementwise(d).batch_shape) for d in (site.distribution, *site.others)}
        if len(shapes) > 1:
            raise errors.BranchMismatch(
                f"Branches split {errors.show(path)} into other independent elements.",
                where=(here, errors.caller()),
                given="elements of shape " + " and ".join(str(s) for s in sorted(shapes)),
                expected="the same elements in each branch",
                fix="give them different addresses",
            )
    check_nothing_depends(target)
