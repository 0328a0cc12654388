"""The likelihood of a target as one function of each value of a process, found in its program.

A target is fit for sites if its latent is a draw of a Gaussian process, and each element of all
else that is scored depends on one value of it at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors
from ppl.addresses import as_path, not_found
from ppl.distributions import elementwise, log_density
from ppl.estimates import check_density_exact
from ppl.execute import Given, density_of, some
from ppl.generative import as_given
from ppl.masks import leading
from ppl.missing import check_nothing_depends
from ppl.program import CHOICE, FACTOR, Factor, Path, Program, bodies
from ppl.walk import Result, Rule, walk

from ..gaussian.process import GaussianProcess
from ..validation.objects import check_target
from .owners import MIXED, Owned, owners

Owners = Mapping[Path, Any]
"""Of each scored choice the value of the process that each element depends on; None for its own."""


@dataclass(frozen=True)
class Terms:
    """The log likelihood as a sum over the values of the process, f -> Σ_i l_i(f_i).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.terms import Terms, owners_of
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def counts():
    ...     f = sample("f", gp(Matern12(1.0), [0.0, 1.0]))
    ...     sample("y", dist.Poisson(jnp.exp(f[jnp.array([0, 0, 1])])))
    >>> target = Target(counts, (), {"y": jnp.array([0, 0, 0])})
    >>> terms = Terms(target, ("f",), owners_of(target, ("f",)))
    >>> terms(jnp.zeros(2)).tolist(), terms.slopes(jnp.zeros(2)).tolist()
    ([-2.0, -1.0], [-2.0, -1.0])
    """

    target: Target
    path: Path
    owners: Owners

    def __call__(self, f: jax.Array) -> jax.Array:
        """l_i(f_i), of shape (n,)."""
        return self._both(f)[0]

    def slopes(self, f: jax.Array) -> jax.Array:
        """l_i'(f_i)."""
        return jax.jvp(self, (f,), (jnp.ones_like(f),))[1]

    def curves(self, f: jax.Array) -> jax.Array:
        """l_i''(f_i)."""
        return jax.jvp(self.slopes, (f,), (jnp.ones_like(f),))[1]

    def constant(self, f: jax.Array) -> jax.Array:
        """The log density of what does not depend on f, which f is any."""
        return self._both(f)[1]

    def process(self) -> GaussianProcess:
        """The law of f."""
        n = self.target.sites[self.path].shape
        return _walked(self.target, self.path, jnp.zeros(n, self.target.sites[self.path].dtype))[1]

    def _both(self, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        total, rest = jnp.zeros_like(f), jnp.zeros((), f.dtype)
        for name, each in _walked(self.target, self.path, f)[0].items():
            of, each = self.owners[name], each.astype(f.dtype)
            if of is None:
                total = total + each
                continue
            each, of = jnp.ravel(jnp.where(of == MIXED, jnp.nan, each)), jnp.ravel(of)
            spare = jnp.where(of >= 0, of, f.size)
            summed = jnp.zeros(f.size + 1, f.dtype).at[spare].add(each)
            total, rest = total + summed[:-1], rest + summed[-1]
        return total, rest


def owners_of(target: Target, path: Path) -> Owners:
    """On which value of the process each element of each scored choice depends.

    Where that is known only at run time, what depends on several makes no number.

    Raises:
      InvalidArgument: it is known that some depends on several.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(target)):
        with jax.ensure_compile_time_eval():
            found = _found(target, path)
    else:
        found = {name: Owned(np.asarray(of)) for name, of in _compiled(target, path).items()}
        if any(np.any(each.owners == MIXED) for each in found.values()):
            found = _found(target, path)  # which says why
    return {name: _checked(target, path, name, each) for name, each in found.items()}


def _found(target: Target, path: Path) -> dict[Path, Owned]:
    site, names = target.sites[path], []

    def scored(f: jax.Array) -> list:
        terms = _walked(target, path, f)[0]
        names[:] = terms
        return list(terms.values())

    found = owners(scored, site.shape[0], site.dtype)
    return dict(zip(names, found, strict=True))


@partial(jax.jit, static_argnums=1)
def _compiled(target: Target, path: Path) -> dict[Path, Any]:
    return {name: each.owners for name, each in _found(target, path).items()}


def _checked(target: Target, path: Path, name: Path, found: Owned) -> Any:
    """The owners of one choice; None if element i depends on value i, of all."""
    of = found.owners
    if isinstance(of, jax.core.Tracer):
        return of
    of = np.asarray(of)
    if np.any(of == MIXED):
        index = [int(i) for i in np.argwhere(of == MIXED)[0]]
        shown, place = _place(target, name)
        raise errors.InvalidArgument(
            f"{shown} depends on more than one value of {errors.show(path)}: it is no site.",
            where=(place, f"{errors.show(path)} at {target.sites[path].source}", errors.caller()),
            given=f"element {index}" + (f", which `{found.why}` makes" if found.why else ""),
            expected=f"elements that depend on one of {errors.show(path)} each, such as "
            f"dist.Poisson(jnp.exp({path[-1]}[index]))",
            fix="make data choices of arrays, observed by address; what ties several values has "
            "an exact density for nuts, elliptical_slice or particles",
        )  # fmt: skip
    n = target.sites[path].shape[0]
    return None if of.shape == (n,) and np.array_equal(of, np.arange(n)) else of


def _place(target: Target, name: Path) -> tuple[str, str]:
    site = target.sites.get(name)
    if site is None:
        return "A factor", f"factor at {name[0]}"
    return errors.show(name), f"{errors.show(name)} at {site.source}"


class _Scores(Rule):
    """Every choice is given; puts out the law of one, and each log density of the others."""

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, path: Path, factors: Mapping[Factor, Path]):
        self.path, self.factors = path, factors

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            return [], {"terms": {self.factors[step]: args[0]}}, {}
        given = inputs[step.path]
        if not step.scored:
            return [given.value], {}, {}
        d = step.spec.tree.unflatten(args)
        value = jnp.asarray(given.value, step.spec.dtype)
        if step.path == self.path:
            return [value], {"process": {step.path: d}}, {}
        keep = given.keep
        if keep is not None:
            value = jnp.where(leading(keep, value.ndim), value, some(step, args))
        density = density_of(step, log_density, elementwise(d), value)
        if keep is not None:
            density = jnp.where(leading(keep, density.ndim), density, 0)
        return [value], {"terms": {step.path: density}}, {}


def _walked(target: Target, path: Path, f: Any) -> tuple[dict[Path, Any], Any]:
    """The log densities of all other choices at f, by element, and the law of f."""
    run = target.model._prepare(target.args, {})
    given = {name: as_given(value) for name, value in target.observed.items()}
    rule = _Scores(path, dict(_factors(run.staged.program)))
    _, found, _ = walk(run.staged.program, run.operands, rule, {**given, path: Given(f)})
    return dict(sorted(found.get("terms", {}).items())), found["process"][path]


def _factors(program: Program, before: int = 0) -> list[tuple[Factor, Path]]:
    found: list[tuple[Factor, Path]] = []
    for step in program.steps:
        if isinstance(step, Factor):
            found.append((step, (step.source, f"#{before + len(found)}")))
        for body in bodies(step):
            found += _factors(body, before + len(found))
    return found


def check_fit(target: Target, address: str | Path) -> Path:
    """The path of the process; raise unless the target is fit for sites, but for its owners."""
    check_target(target)
    path = as_path(address)
    if path not in target.sites:
        raise not_found(path, target.sites, "The process", (target.model.name,))
    name, site = errors.show(path), target.sites[path]
    where = f"{name} at {site.source}", errors.caller()

    def refuse(what: str, given: str, expected: str, fix: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(what, where=where, given=given, expected=expected, fix=fix)

    d = site.distribution
    if not isinstance(d, GaussianProcess) or site.axes:
        loops = "".join(f", in a {kind} of {n}" for kind, n in site.axes)
        raise refuse(f"{name} is no draw of a Gaussian process: it has no sites.",
                     site.kind + loops, "one draw of gp(kernel, times)",
                     f'{path[-1]} = sample({name}, gp(Matern32(scale), times))')  # fmt: skip
    if d.noise is not None or d.present is not None:
        part = "noise" if d.noise is not None else "present"
        raise refuse(f"The process {name} has a {part} of its own.", f"gp(..., {part}=...)",
                     "the process itself: all else is said by choices that depend on it",
                     'sample("y", dist.Normal(f, sd)); and observe Masked(y, present)')  # fmt: skip
    others = [p for p in target.latents if p != path]
    if path not in target.latents or others:
        shown = "; ".join(map(errors.show, target.latents))
        raise refuse(f"{name} is not the one latent of this target.", f"latents: {shown or 'none'}",
                     f"all but {name} given",
                     f"observe the others at the values that are asked about: Target(model, args, "
                     f"{{..., {errors.show((others or [('scale',)])[0])}: value}})")  # fmt: skip
    check_density_exact(target, "A site")
    check_nothing_depends(target)
    for other in target.sites.values():
        if other.conditional:
            shown = errors.show(other.path)
            raise errors.InvalidArgument(
                f"{shown} is made in some branches only: it is no site.",
                where=(f"{shown} at {other.source}", errors.caller()),
                expected="choices that are always made",
                fix="leave data out by Masked(value, present)",
            )
    return path
