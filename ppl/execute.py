"""The rule of generative functions: what each method does at one choice.

At every choice a method either keeps a given value or makes a fresh one, and adds
its log density to the *score* (all of it) and to the *weight* (the kept part).
That one rule, walked over a program, is all six methods; see `ppl.generative`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import arithmetic, distributions, errors, part_of_normal
from .addresses import Selection
from .distributions import elementwise, log_density, total_log_density
from .effects import draw_p
from .errors import show
from .keys import base_dtype
from .masks import leading
from .mistakes import of_distribution
from .part_of_normal import are_of_parts
from .program import CHOICE, DRAW, FACTOR, Choice, Factor, Map, Path, Spec
from .supports import check_parameters
from .walk import Result, Rule, scalar


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Given:
    """A value for a choice; `keep` is None (kept) or a mask (fresh where false).

    `counts`, if not None, is a mask: what counts in the weight (a flag: all of it or none);
    `demanded`, if not None, a mask: which part the caller constrains. Masks are as in
    `ppl.masks`.
    """

    value: Any
    keep: Any = None
    counts: Any = None
    demanded: Any = None


class Execute(Rule):
    """Keep what is given, draw the rest. Sums: `score` and `weight`.

    Args:
      constrained: paths whose given values are the caller's (not old ones): in a
        branch not taken they make the weight -inf, or, with `filler`, unless zero.
      weighed: which paths count in the weight (None: all).
      conditional: paths whose presence is reported.
      sums: what to add up, of `"score"` and `"weight"`.
      blank: whether what is not kept is not drawn, since no value of it counts.
    """

    handles = frozenset({CHOICE, FACTOR})

    def __init__(
        self,
        constrained: frozenset[Path] = frozenset(),
        filler: bool = False,
        weighed: Selection | None = None,
        conditional: frozenset[Path] = frozenset(),
        sums: tuple[str, ...] = ("score", "weight"),
        blank: bool = False,
    ):
        self.sums = sums
        self.conditional = conditional
        self.constrained = constrained
        self.filler = filler
        self.weighed = weighed
        self.made = some if blank else fresh

    def visit(self, step, args, inputs) -> Result:
        if isinstance(step, Factor):
            amount = scalar(args[0])
            counts = self.weighed is None or self.weighed(step.path)
            named = {"score": amount, **({"weight": amount} if counts else {})}
            return [], {}, {name: named[name] for name in self.sums if name in named}
        assert isinstance(step, Choice)
        given = inputs.get(step.path)
        if not step.scored:
            return [jnp.asarray(given.value, step.spec.dtype)], {}, {}
        d = step.spec.tree.unflatten(args)
        keep = None if given is None else given.keep
        if given is None:
            value = fresh(step, args)
        else:
            value = jnp.asarray(given.value, step.spec.dtype)
            if keep is not None and are_of_parts(d, keep):
                value = part_of_normal.completed(d, value, keep, self.made(step, args))
            elif keep is not None:
                value = jnp.where(leading(keep, value.ndim), value, self.made(step, args))
        outputs: dict[str, Any] = {"choices": {step.path: value}}
        if step.path in self.conditional:
            outputs["present"] = {step.path: True}
        counts = given is not None and (self.weighed is None or self.weighed(step.path))
        if not ("score" in self.sums or (counts and "weight" in self.sums)):
            return [value], outputs, {}
        sums = {}
        if not any(isinstance(x, jax.core.Tracer) for x in args):
            check_parameters(d, step.source, f"sample({show(step.path)}, ...)")
        if keep is None:
            sums["score"] = scalar(density_of(step, total_log_density, d, value))
        else:
            inner = elementwise(d) if jnp.ndim(keep) > 0 else d
            density = density_of(step, log_density, inner, value)
            if "score" in self.sums:
                sums["score"] = scalar(density)
        if counts and "weight" in self.sums:
            flags = given.counts if keep is None and given is not None else keep
            if flags is None:
                sums["weight"] = sums["score"]
            elif are_of_parts(d, flags):
                part = lambda d, value: part_of_normal.log_density(d, value, flags)  # noqa: E731
                sums["weight"] = scalar(density_of(step, part, d, value))
            elif keep is not None or jnp.ndim(flags) > 0:
                if keep is None:
                    density = density_of(step, log_density, elementwise(d), value)
                sums["weight"] = scalar(jnp.where(leading(flags, density.ndim), density, 0))
            else:
                sums["weight"] = jnp.where(flags, sums["score"], 0)
        return [value], outputs, {name: sums[name] for name in self.sums if name in sums}

    def waits(self, step, inputs) -> bool:
        if not self.sums or not step.effects & self.handles:
            return False
        if isinstance(step, Factor):
            return True
        if isinstance(step, Choice):
            given = inputs.get(step.path)
            return step.scored and given is not None and given.keep is None
        # a map whose choices all wait; a draw would need its place in the loop
        steps = step.body.steps if isinstance(step, Map) and DRAW not in step.effects else ()
        scored = [each for each in steps if each.effects]
        return bool(scored) and all(self.waits(each, inputs) for each in scored)

    def absent(self, step, i, inner):
        missing = (step.paths - step.branches[i].paths) & self.constrained & set(inner)
        total = {}
        for path in missing:
            given = inner[path]
            demanded, ok = given.demanded, jnp.asarray(False)
            if self.filler:
                zero = given.value == 0
                if demanded is not None:
                    zero = zero | ~leading(demanded, zero.ndim)
                ok = jnp.all(zero)
            elif demanded is not None:
                ok = ~jnp.any(demanded)
            amount = scalar(jnp.where(ok, 0.0, -jnp.inf))
            for name in self.sums:
                total[name] = total.get(name, 0) + amount
        return total


def density_of(step: Choice, log: Callable, d: Any, value: Any) -> Any:
    """`log(d, value)`, with the choice named where that fails, or is known to be no number.

    Raises:
      InvalidDistribution: numpyro's density raised something.
      SupportError: it is NaN.
    """
    place = f"{show(step.path)} at {step.source}"
    try:
        density = log(d, value)
    except errors.PPLError:
        raise
    except Exception as error:  # numpyro's densities raise anything
        ours = of_distribution(error, step.spec.kind, place)
        if ours is None:
            raise
        raise ours from error
    if not isinstance(density, jax.core.Tracer) and np.isnan(np.asarray(density)).any():
        raise errors.SupportError(
            f"The log density of {show(step.path)} is not a number.",
            where=(place, errors.caller()),
            given=f"{value} under {step.spec.kind}",
            expected="a number, or -inf",
            fix="look for parameters that overflow, or so far from the value that their "
            "density has no number in this precision",
        )
    return density


def fresh(step: Choice, args: list, strategy: Any = None) -> jax.Array:
    """A draw of a choice's value, left to the surrounding random program."""
    spec = step.spec
    how = {} if strategy is None else {"strategy": strategy}
    return draw_p.bind(
        *args,
        tree=spec.tree,
        shape=spec.shape,
        dtype=spec.dtype,
        kind=spec.kind,
        support=spec.support,
        levels=(),
        source=f"{show(step.path)} at {step.source}",
        address=step.path,
        **how,
    )


def some(step: Choice, args: list) -> jax.Array:
    """A value of a choice where none counts: its median, or one that its support has.

    Its density and the slope of that are finite, so that both can be left out by a `where`.
    """
    spec = step.spec
    d = spec.tree.unflatten([jax.lax.stop_gradient(arg) for arg in args])
    found = distributions.base(d)
    if found is None:
        value = _feasible(d, spec)
    else:
        kind, shape, transform = found
        middle = 0.0 if kind == "normal" else 0.5
        value = transform(jnp.full(shape, middle, base_dtype(spec)))
    return arithmetic.shaped(value, spec.shape, spec.dtype)


def _feasible(d: Any, spec: Spec) -> jax.Array:
    try:
        return d.support.feasible_like(jnp.zeros(spec.shape, spec.dtype))
    except Exception:  # numpyro knows no point of the support, and says so in many ways
        return d.sample(jax.random.key(0))
