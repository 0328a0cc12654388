"""Changing a trace: `update` and `regenerate` (laws at the methods in `ppl.generative`)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .addresses import Masked, Selection, nest
from .execute import Execute, Given
from .program import Path


def _now_or_before(path: Path, value: Any, old: dict[Path, Given]) -> Given:
    """A constraint over the old value: kept where either is there."""
    before = old[path]
    if not isinstance(value, Masked):
        return Given(value)
    mask = _like(value.mask, before.value)
    merged = jnp.where(mask, value.value, before.value)
    if before.keep is None:
        return Given(merged, demanded=mask)
    return Given(merged, mask | _like(before.keep, before.value), demanded=mask)


def _like(mask: Any, value: Any) -> Any:
    """A mask over leading axes, spread over all of the value's."""
    return jnp.reshape(mask, jnp.shape(mask) + (1,) * (jnp.ndim(value) - jnp.ndim(mask)))


def update(run, trace, given: dict[Path, Any]) -> tuple[Any, Any, dict]:
    """Rerun on the new arguments and constraints; the weight is against the stored score."""
    old = run.old(trace)
    inputs = {**old, **{path: _now_or_before(path, v, old) for path, v in given.items()}}
    changed, sums, present = run.trace(Execute(constrained=frozenset(given)), inputs)
    weight = sums.get("weight", jnp.zeros_like(changed.score)) - trace.score
    return changed, weight, nest(_discarded(old, given, present))


def _discarded(old: dict[Path, Given], given: dict[Path, Any], present: dict) -> dict:
    discarded: dict[Path, Any] = {}
    for path, before in old.items():
        if path in given:
            value = given[path]
            mask = value.mask if isinstance(value, Masked) else None
            if before.keep is not None:
                mask = before.keep if mask is None else mask & before.keep
            discarded[path] = before.value if mask is None else Masked(before.value, mask)
        elif before.keep is not None:
            discarded[path] = Masked(before.value, before.keep & ~present[path])
    return discarded


def regenerate(run, trace, selection: Selection) -> tuple[Any, Any, dict]:
    """Redraw the selection; the weight compares the choices kept, before and after."""
    old = run.old(trace)
    kept = {path: given for path, given in old.items() if not selection(path)}
    changed, sums, present = run.trace(Execute(), kept)
    before = run.model._prepare((trace.arguments,), {})
    again = {
        path: Given(given.value, counts=None if given.keep is None else present[path])
        for path, given in old.items()
    }
    _, was, _ = before.trace(Execute(weighed=~selection), again)
    zero = jnp.zeros_like(changed.score)
    weight = sums.get("weight", zero) - was.get("weight", zero)
    gone = {p: given for p, given in old.items() if selection(p) or given.keep is not None}
    discarded = {
        path: given.value
        if given.keep is None
        else Masked(given.value, given.keep if selection(path) else given.keep & ~present[path])
        for path, given in gone.items()
    }
    return changed, weight, nest(discarded)
