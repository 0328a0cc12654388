"""Loops in two: what carries on, and after it, for all iterations at once, what is only scored.

A log density in a loop is computed number by number, and so is its derivative. What a loop scores
but does not carry on needs no order: the loop puts out what it is computed from, and the rest is
one mapped program, which compilers make vectors of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from .program import Choice, Map, Program, Pure, Step

MOST_ELEMENTS = 256
"""Of one iteration. Larger arrays are vectors already, and would only take memory."""

MOST_STACKED = 1 << 24
"""Of all iterations, and all copies side by side as far as they are known."""


@dataclass(frozen=True, eq=False)
class Halves:
    """A loop's body in two.

    Attributes:
      first: with the body's outputs, and then those in `stacked`.
      second: what is left to be scored, of the slots in its `inputs`.
      stacked: slots that the second half reads and the loop puts out for it.
      ordered: whether the first half must be run in order; if not, it only hands values on.
    """

    first: Program
    second: Program
    stacked: tuple[int, ...]
    ordered: bool


def halves(
    body: Program, length: int, fixed: frozenset[int], given: frozenset[int],
    waits: Callable[[Step], bool],
) -> Halves | None:  # fmt: skip
    """The body of a loop in two; None where nothing is left to the second half, or too much.

    Args:
      length: the number of iterations, times that of copies of the loop.
      fixed: slots that all iterations share; `given`: those that have an axis of them already.
      waits: whether a step may be visited after the loop. Its values, if it has any, are known.
    """
    needed, first, late, handed = set(body.outputs), [], [], 0
    for step in reversed(body.steps):
        if waits(step) and not (isinstance(step, Map) and needed & set(step.outputs)):
            late.append(step)
            if isinstance(step, Choice) and needed & set(step.outputs):
                first.append(replace(step, inputs=(), scored=False))
                handed += 1
            continue
        kept = _narrowed(step, needed) if isinstance(step, Pure) else step
        if kept is not None:
            first.append(kept)
            needed |= set(kept.inputs)
    made = {slot for step in first for slot in step.outputs}
    reads, second = set(), []
    for step in reversed(body.steps):
        if step in late:
            second.append(step)
            reads |= set(step.inputs)
        elif isinstance(step, Pure):
            kept = _narrowed(step, reads - made)
            if kept is not None:
                second.append(kept)
                reads |= set(kept.inputs)
    reads -= {slot for step in second for slot in step.outputs} - made
    here = reads - set(body.constants)
    stacked = tuple(sorted(here - fixed - given))
    sizes = [_size(body, slot) for slot in stacked]
    sizes += [_size(body, slot) for step in late for slot in (*step.inputs, *step.outputs)]
    if not late or sum(sizes) > MOST_ELEMENTS or sum(sizes) * length > MOST_STACKED:
        return None
    return Halves(
        replace(body, steps=tuple(reversed(first)), outputs=(*body.outputs, *stacked)),
        replace(body, steps=tuple(reversed(second)), inputs=tuple(sorted(here)), outputs=()),
        stacked,
        len(first) > handed or _goes_round(body, fixed, given),
    )


def _goes_round(body: Program, fixed: frozenset[int], given: frozenset[int]) -> bool:
    """Whether what is carried trades places, so that no iteration of its own has it."""
    carried = [slot for slot in body.inputs if slot not in fixed | given]
    after = dict(zip(carried, body.outputs, strict=False))
    for slot in carried:
        steps = 0
        while after[slot] != slot and after[slot] in after:
            slot, steps = after[slot], steps + 1
            if steps > len(carried):
                return True
    return False


def copies(values: Any) -> int:
    """How many copies of the loop `jax.vmap` makes side by side, where these values tell.

    A map around a `jit` around the loop is not seen.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.after_loops import copies
    >>> seen = []
    >>> _ = jax.vmap(lambda x: seen.append(copies([x])), out_axes=None)(jnp.ones((5, 2)))
    >>> seen
    [5]
    """
    most = 1
    for value in values:
        size = value.size
        while hasattr(value, "batch_dim") and hasattr(value, "val"):  # it is mapped
            value = value.val
        most = max(most, value.size // max(1, size))
    return most


def _narrowed(step: Pure, needed: set[int]) -> Pure | None:
    wanted = tuple(slot in needed for slot in step.outputs)
    assert step.narrow is not None
    return step.narrow(wanted) if any(wanted) else None


def _size(body: Program, slot: Any) -> int:
    return prod(body.avals[slot].shape)
