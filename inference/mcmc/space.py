"""The unconstrained space of some latents of a target, given the rest of a trace.

What kernels that move by gradients, rotations or slices have in common: the selected
continuous latents as one flat vector z of real numbers, the log density of the target
in z (with the log Jacobian of the bijections), and the way back to a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Selection, Target, Trace, errors
from ppl.addresses import flatten, nest
from ppl.estimates import check_density_exact, estimating_draw
from ppl.missing import on_missing


class Space:
    """R^n for the selected latents of `target`; all latents when nothing is selected.

    Args:
      estimates: whether the density may be an estimate, which `log_density` then makes anew.

    Attributes:
      paths: the addresses of the selected latents, in the order of the model.
      size: n, the number of unconstrained coordinates.

    Raises:
      InvalidArgument: a selected latent is discrete, is not always there (it lies in a
        branch), or its support has no bijection; or the density is only estimated.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.mcmc.space import Space
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def model():
    ...     scale = sample("scale", dist.HalfNormal(1.0))
    ...     sample("y", dist.Normal(0.0, scale))
    >>> space = Space(Target(model, (), {"y": 1.0}))
    >>> trace, _ = space.target.generate({"scale": 1.0})
    >>> z = space.position(trace)
    >>> z.tolist(), space.latents(trace, z)["scale"].item()
    ([0.0], 1.0)
    """

    def __init__(
        self,
        target: Target,
        selection: Selection | str | tuple[str, ...] | None = None,
        *,
        estimates: bool = False,
    ):
        self.target = target
        self.estimated = estimates and estimating_draw(target) is not None
        if not estimates:
            check_density_exact(target, "A kernel of this kind")
        chosen = None if selection is None else target.selection(selection)
        self.paths = [p for p in target.latents if chosen is None or chosen(p)]
        # an estimate stays with its trace; so do missing data that something depends on
        whole = len(self.paths) == len(target.latents)
        self.everything = whole and not self.estimated and on_missing(target) is None
        if not self.paths:
            raise errors.InvalidArgument(
                "There is no latent choice to move.", where=errors.caller(),
                given=f"the selection {chosen!r} of {target.model.name}",
                expected="at least one continuous latent", fix="select one, or leave it out",
            )  # fmt: skip
        self.coordinates = target.coordinates(self.paths)
        self.dtype = jnp.result_type(*(target.sites[path].dtype for path in self.paths))
        self.sizes = {path: math.prod(shape) for path, shape in self.coordinates.shapes.items()}
        self.size = sum(self.sizes.values())

    def position(self, trace: Trace) -> jax.Array:
        """z of a trace, of shape (n,)."""
        z = self.coordinates.unconstrain(flatten(trace.choices))
        return jnp.concatenate([jnp.ravel(z[p]).astype(self.dtype) for p in self.paths])

    def constrain(
        self, trace: Trace | None, z: jax.Array
    ) -> tuple[dict[tuple, jax.Array], jax.Array]:
        """The selected latents by path, and log |d latents / dz|, given the rest of `trace`."""
        values, log_det = self.coordinates.constrain(self._parts(z), self._others(trace))
        return {path: values[path] for path in self.paths}, log_det.astype(self.dtype)

    def _parts(self, z: jax.Array) -> dict[tuple, jax.Array]:
        """z by path."""
        shapes = self.coordinates.shapes
        # one equation, whose transpose is one too
        split = jax.lax.split(z, [self.sizes[path] for path in shapes])
        return {p: part.reshape(shapes[p]) for p, part in zip(shapes, split, strict=True)}

    def _others(self, trace: Trace | None) -> dict[tuple, Any]:
        return self.target.observed_values if trace is None else flatten(trace.choices)

    def log_density(self, trace: Trace | None) -> Callable[[jax.Array], jax.Array]:
        """`z -> log density` of the target in z, up to a constant, given the rest of `trace`."""

        def log_density(z: jax.Array) -> jax.Array:
            values, log_det = self.constrain(trace, z)
            more = self.coordinates.rounded_off(self._parts(z), values, self._others(trace))
            log_det = log_det if more is None else log_det + more.astype(self.dtype)
            if trace is None or self.everything:
                return self.target.log_density(nest(values)) + log_det
            return self.target.moved(trace, nest(values))[1] + log_det

        return log_density

    def potential(self, trace: Trace | None) -> Callable[[jax.Array], jax.Array]:
        """The negative of `log_density`."""
        log_density = self.log_density(trace)
        return lambda z: -log_density(z)

    def rest(self, trace: Trace) -> Trace | None:
        """What `log_density` and `trace` need beside z: nothing when z is everything."""
        return None if self.everything else trace

    def trace(self, trace: Trace | None, z: jax.Array) -> Trace:
        """The trace at z, with the rest of `trace`."""
        values = nest(self.constrain(trace, z)[0])
        if trace is None or self.everything:
            return self.target.at(values)[0]
        return self.target.moved(trace, values)[0]

    def latents(self, trace: Trace | None, z: jax.Array) -> dict[str, Any]:
        """All latents at z, without making a trace."""
        values = {} if trace is None else flatten(self.target.choices(trace))
        values.update(self.constrain(trace, z)[0])
        return nest({path: values[path] for path in self.target.latents})
