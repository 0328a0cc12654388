"""Unconstrained coordinates of choices: each through the bijection of its own support.

A support may depend on other choices (`Uniform(0.0, x)`) or on arguments. Its bijection is
then taken where its distribution is: walking the program on the values of the other choices,
in loops and branches too. Where the supports are known without running the model, nothing
is walked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from . import errors
from .beta_tails import rounded_off
from .distributions import elementwise
from .execute import fresh
from .gaps import Gaps
from .masks import leading
from .program import CHOICE, FACTOR, Factor, Path
from .sites import Site
from .walk import Result, Rule, scalar, walk


class Coordinates:
    """A bijection of the latents at `paths`, given the other choices, with real arrays.

    Args:
      run: a model with its arguments, prepared.
      paths: continuous choices.
      gaps: where only a part of a choice is latent: coordinates are of that part alone.

    Attributes:
      shapes: of the coordinates, by path.

    Raises:
      InvalidArgument: a choice is discrete, or its support has no bijection.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> from ppl.coordinates import Coordinates
    >>> @gen
    ... def model():
    ...     x = sample("x", dist.Exponential(1.0))
    ...     sample("y", dist.Uniform(0.0, x))
    >>> both = Target(model).coordinates()
    >>> isinstance(both, Coordinates), both.shapes
    (True, {('x',): (), ('y',): ()})
    >>> z = both.unconstrain({("x",): jnp.array(2.0), ("y",): jnp.array(1.0)})
    >>> round(float(z["x",]), 3), float(z["y",])  # log 2, and half of the way from 0 to x
    (0.693, 0.0)
    """

    def __init__(self, run: Any, paths: Iterable[Path], gaps: Mapping[Path, Gaps] = {}):
        self.run, paths = run, list(paths)
        self.gaps = {path: gaps[path] for path in paths if path in gaps}
        self.fixed: dict[Path, Any] = {}
        self.shapes: dict[Path, tuple[int, ...]] = {}
        for path in paths:
            site = run.sites[path]
            _check_continuous(site)
            bijection = known_bijection(site, path in self.gaps)
            if bijection is not None:
                self.fixed[path] = bijection
                self.shapes[path] = tuple(bijection.inverse_shape(site.shape))
            else:
                inner = site.spec.shape
                self.shapes[path] = (*(n for _, n in site.axes), *_moving_shape(site, inner))
            if path in self.gaps:
                self.shapes[path] = self.gaps[path].shape(self.shapes[path])
        self.moving = frozenset(self.shapes) - frozenset(self.fixed)

    def constrain(
        self, z: Mapping[Path, Any], rest: Mapping[Path, Any]
    ) -> tuple[dict[Path, jax.Array], jax.Array]:
        """`(values, log |d values / dz|)` at coordinates `z`.

        Args:
          rest: values of other choices. Read only when a support moves; those it lacks
            are then drawn from the model, and put out among the values.
        """
        values, total = {}, jnp.zeros((), float)
        z = {path: self._spread(path, part) for path, part in z.items()}
        for path, bijection in self.fixed.items():
            part = jnp.asarray(z[path], self.run.sites[path].dtype)
            values[path] = bijection(part)
            log_det = bijection.log_abs_det_jacobian(part, values[path])
            if path in self.gaps:
                log_det = _of_gaps(log_det, self.gaps[path].seen)
                values[path] = self.gaps[path].filled(values[path])
            total = total + jnp.sum(log_det).astype(total.dtype)
        if self.moving:
            given: dict[Path, Any] = {p: v for p, v in rest.items() if p not in self.shapes}
            given.update(values)
            given.update({path: _Coordinate(z[path], *self._data(path)) for path in self.moving})
            _, found, sums = walk(self.run.staged.program, self.run.operands, _Constrain(), given)
            values.update(found["values"])
            total = total + sums["log_det"]
        return values, total

    def rounded_off(
        self, z: Mapping[Path, Any], values: Mapping[Path, Any], rest: Mapping[Path, Any]
    ) -> jax.Array | None:
        """log p at `z` less log p at its `values`, of what floats cannot come near enough to.

        Args:
          values: what `constrain` gives; `rest`: of the other choices.

        Returns:
          A scalar, or None where floats come near enough.
        """
        known = {path: part for path, part in z.items() if path not in self.gaps}
        return rounded_off(self.run, known, {**rest, **values})

    def unconstrain(self, values: Mapping[Path, Any]) -> dict[Path, jax.Array]:
        """The coordinates of `values`, the inverse of `constrain`.

        Args:
          values: of all choices when a support moves, else of those at the paths.
        """
        z = {path: bijection.inv(values[path]) for path, bijection in self.fixed.items()}
        if self.moving:
            rule = _Unconstrain(self.moving)
            _, found, _ = walk(self.run.staged.program, self.run.operands, rule, dict(values))
            z.update(found["z"])
        gaps = self.gaps
        return {p: gaps[p].gathered(z[p]) if p in gaps else z[p] for p in self.shapes}

    def _spread(self, path: Path, z: Any) -> Any:
        """Coordinates of a choice with gaps as an array with a place for each element."""
        if path not in self.gaps:
            return z
        gap, site = self.gaps[path], self.run.sites[path]
        shape = (*gap.seen.shape, *self.shapes[path][1:])
        return gap.spread(jnp.asarray(z, site.dtype), shape)

    def _data(self, path: Path) -> tuple[Any, Any]:
        """Which elements are seen, and the data, of a choice with gaps."""
        gap = self.gaps.get(path)
        return (None, None) if gap is None else (jnp.asarray(gap.seen), jnp.asarray(gap.value))


def _of_gaps(log_det: jax.Array, seen: Any) -> jax.Array:
    """The terms of what is missing; of parts of normal vectors all of them are 0."""
    if seen.ndim > log_det.ndim:
        return log_det
    return jnp.where(leading(seen, log_det.ndim), 0.0, log_det)


def _check_continuous(site: Site) -> None:
    if not jnp.issubdtype(site.dtype, jnp.floating):
        raise errors.InvalidArgument(
            f"{errors.show(site.path)} is discrete and has no unconstrained space.",
            where=f"{errors.show(site.path)} at {site.source}",
            expected="continuous latents",
            fix="sum it out, or move it by a kernel for discrete choices",
        )


def known_bijection(site: Site, of_elements: bool = False) -> Any:
    """numpyro's bijection onto the support if no traced value decides it; else None.

    With `of_elements`, that of each independent element: its log determinants are not added up.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from ppl.coordinates import known_bijection
    >>> model = gen(lambda: sample("p", dist.Dirichlet(jnp.ones(3))))
    >>> known_bijection(model.sites()["p",]).inverse_shape((3,))
    (2,)
    """
    if 0 in site.shape:  # no number to constrain
        return dist.transforms.IdentityTransform()
    if site.others and not site.conditional:  # each branch has a support of its own
        return None
    try:
        d = elementwise(site.distribution) if of_elements else site.distribution
        bijection = dist.biject_to(d.support)
        jax.eval_shape(bijection.inv, jax.ShapeDtypeStruct(site.spec.shape, site.dtype))
    except Exception:  # bounds without values fail in as many ways as there are transforms
        return None
    return bijection


def _moving_shape(site: Site, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the coordinates of one value whose support depends on traced values."""

    def inverse(leaves: list, value: jax.Array) -> jax.Array:
        return dist.biject_to(site.spec.tree.unflatten(leaves).support).inv(value)

    try:
        value = jax.ShapeDtypeStruct(shape, site.dtype)
        return jax.eval_shape(inverse, list(site.spec.leaves), value).shape
    except Exception as error:  # whatever numpyro raises where it knows no bijection
        raise errors.InvalidArgument(
            f"{errors.show(site.path)} has no bijection to unconstrained space.",
            where=f"{errors.show(site.path)} at {site.source}",
            given=site.support,
            expected="a support that numpyro's biject_to knows",
            fix="sample a standard variable and transform it in the model",
        ) from error


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Coordinate:
    """An unconstrained value for a choice; of one with gaps, where it is `seen`, the data."""

    z: Any
    seen: Any = None
    data: Any = None


class _Constrain(Rule):
    """Choices get values from their coordinates. Sum: `log_det`, the log Jacobian."""

    handles = frozenset({CHOICE, FACTOR})
    sums = ("log_det",)

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {}, {}
        given = inputs.get(step.path)
        if given is None:
            value = fresh(step, args)
            return [value], {"values": {step.path: value}}, {}
        if not isinstance(given, _Coordinate):
            return [jnp.asarray(given, step.spec.dtype)], {}, {}
        d = step.spec.tree.unflatten(args)
        bijection = dist.biject_to((d if given.seen is None else elementwise(d)).support)
        z = jnp.asarray(given.z, step.spec.dtype)
        value = jnp.asarray(bijection(z), step.spec.dtype)
        log_det = jnp.asarray(bijection.log_abs_det_jacobian(z, value))
        if given.seen is not None:
            log_det = _of_gaps(log_det, given.seen)
            value = jnp.where(leading(given.seen, value.ndim), given.data, value)
        return [value], {"values": {step.path: value}}, {"log_det": scalar(log_det)}


class _Unconstrain(Rule):
    """All choices have values; those at `paths` put out their coordinates."""

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, paths: frozenset[Path]):
        self.paths = paths

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {}, {}
        value = jnp.asarray(inputs[step.path], step.spec.dtype)
        if step.path not in self.paths:
            return [value], {}, {}
        bijection = dist.biject_to(step.spec.tree.unflatten(args).support)
        return [value], {"z": {step.path: bijection.inv(value)}}, {}
