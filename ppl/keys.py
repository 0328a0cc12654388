"""How the randomness of a program is spent: which draws are made together, with which keys.

Compiling costs by the number of separate draws, so a block derives all of its keys
in one split and draws the base randomness of one kind (standard normals, uniforms)
at once, that of short-lived loops included; each draw takes its slice.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import distributions, errors
from .program import DRAW, Branch, Draw, Loop, Map, Path, Program, Spec, While, bodies

# Keys of a loop are derived in the caller's one split while they are few; longer
# loops get one key a step and split it there, so that memory stays bounded.
_FLAT_KEYS = 1 << 16

MANY_DRAWS = 200
"""More draws than this in one block, written out one by one, are warned about."""


def with_levels(one: Callable, spec: Spec) -> Callable:
    """`one(leaves, extra)` under the `vmap`s around a draw; `extra` is mapped in front."""
    for size, in_axes in spec.levels:
        one = jax.vmap(one, in_axes=(list(in_axes), 0), axis_size=size)
    return one


def sizes(spec: Spec) -> tuple[int, ...]:
    return tuple(size for size, _ in reversed(spec.levels))


@lru_cache(maxsize=4096)
def abstract_base(spec: Spec) -> tuple[str, tuple[int, ...]] | None:
    found = distributions.base(spec.tree.unflatten(spec.leaves))
    return None if found is None else found[:2]


def base_dtype(spec: Spec) -> Any:
    return spec.dtype if jnp.issubdtype(spec.dtype, jnp.floating) else jnp.result_type(float)


class Member(NamedTuple):
    """One part of the base randomness that a block draws at once.

    `name` is a draw's, or with `inner` a loop's whose iterations need this group.
    """

    name: Path
    shape: tuple[int, ...]
    inner: Any = None


class Plan(NamedTuple):
    """How the keys of one execution of a block are spent: one for each group, one for
    each single draw, and for each construct as many as it needs."""

    groups: dict[tuple[str, Any], list[Member]]
    singles: list[Draw]
    constructs: list[tuple[Any, int]]

    @property
    def need(self) -> int:
        counts = sum(count for _, count in self.constructs)
        return len(self.groups) + len(self.singles) + counts


@lru_cache(maxsize=4096)
def plan_of(program: Program) -> Plan:
    plan = Plan({}, [], [])
    _warn_of_many(program)
    for step in program.steps:
        if DRAW not in step.effects:
            continue
        if isinstance(step, Draw):
            found = abstract_base(step.spec)
            if found is None:
                plan.singles.append(step)
            else:
                member = Member(step.name, sizes(step.spec) + found[1])
                plan.groups.setdefault((found[0], base_dtype(step.spec)), []).append(member)
        elif predrawn(step):
            for group, members in plan_of(bodies(step)[0]).groups.items():
                member = Member(step.name, (copies(step), *shared(members)), group)
                plan.groups.setdefault(group, []).append(member)
        else:
            plan.constructs.append((step, keys_of(step)))
    return plan


def copies(step: Any) -> int:
    return step.length if isinstance(step, Loop) else step.size


def predrawn(step: Any) -> bool:
    """Whether a loop's base randomness is drawn outside, with that of its block: when it
    takes no more memory than the keys would, and is not too much altogether."""
    if not isinstance(step, (Loop, Map)):
        return False
    plan = plan_of(step.body)
    if plan.singles or plan.constructs or not plan.groups:
        return False
    each = sum(total(members) for members in plan.groups.values())
    return each <= 4 and each * copies(step) <= _FLAT_KEYS


def keys_of(step: Any) -> int:
    if isinstance(step, While):
        return 1
    if isinstance(step, Branch):
        return max(plan_of(b).need for b in step.branches)
    inner = plan_of(bodies(step)[0]).need
    if isinstance(step, (Loop, Map)):
        flat = copies(step) * inner
        return flat if flat <= _FLAT_KEYS else copies(step)
    return inner


def total(members: list[Member]) -> int:
    """How many scalars of base randomness a group needs."""
    return sum(math.prod(member.shape) for member in members)


def shared(members: list[Member]) -> tuple[int, ...]:
    """Shape of the base randomness of a group."""
    return members[0].shape if len(members) == 1 else (total(members),)


def slices(groups: dict, everything: dict) -> dict:
    """The base randomness of each draw and loop, cut from that of its group."""
    given: dict = {}
    for group, members in groups.items():
        parts = [everything[group]]
        if len(members) > 1:
            parts = lax.split(parts[0], [math.prod(member.shape) for member in members])
        for member, part in zip(members, parts, strict=True):
            mine = part if part.shape == member.shape else lax.reshape(part, member.shape)
            if member.inner is None:
                given[member.name] = mine
            else:
                given.setdefault(member.name, {})[member.inner] = mine
    return given


def _warn_of_many(program: Program) -> None:
    draws = [step for step in program.steps if isinstance(step, Draw)]
    if len(draws) > MANY_DRAWS:
        warnings.warn(
            errors.UnrolledDraws(
                f"A program makes {len(draws)} draws one by one, which takes long to compile.",
                where=(draws[0].source, draws[-1].source),
                expected=f"at most about {MANY_DRAWS} in one block",
                fix="keep the loop a loop: jax.lax.scan, jax.vmap, or one distribution with "
                ".expand([n])",
            ),
            stacklevel=2,
        )
