"""Changing a trace: `update` and `regenerate` (laws at the methods in `ppl.generative`).

Both walk the part of the program that the change touches (`ppl.change`), once on
the new values and once on the old; `update` walks the whole program on the new
values alone when the change touches more than half of it, since the trace knows
the old score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from . import errors
from .addresses import At, Masked, Selection, flatten, nest
from .arguments import Arguments
from .change import Cut, cost, cut, depends_on_draws
from .execute import Execute, Given
from .gaps import Gaps
from .masks import leading
from .program import DRAW, Path
from .walk import walk
from .window import update_element


def _now_or_before(path: Path, value: Any, old: dict[Path, Given]) -> Given:
    """A constraint over the old value: kept where either is there."""
    before = old[path]
    if isinstance(value, At):
        return Given(before.value.at[value.index].set(value.value), before.keep)
    if not isinstance(value, Masked):
        return Given(value)
    mask = value.mask
    merged = jnp.where(leading(mask, before.value.ndim), value.value, before.value)
    if before.keep is None:
        return Given(merged, demanded=mask)
    return Given(merged, mask | leading(before.keep, mask.ndim), demanded=mask)


class _Change:
    """One change of one trace: what is touched, and the walks before and after."""

    def __init__(self, run, trace, touched):
        self.run, self.trace = run, trace
        self.before = trace.model._prepare((trace.arguments,), {})
        same_program = self.before.staged is run.staged
        pairs = zip(run.operands, self.before.operands, strict=False)
        moved = frozenset(i for i, (new, old) in enumerate(pairs) if new is not old)
        program = run.staged.program
        self.local = same_program and DRAW not in program.effects
        if self.local:
            self.cut: Cut = cut(program, moved, touched)
            self.part = self.cut.cost / max(1, cost(program))

    def after(self, rule: Execute, inputs: dict[Path, Given]) -> tuple[list, dict, dict]:
        return walk(self.cut.program, self.run.operands, rule, self._mine(inputs))

    def earlier(self, rule: Execute, inputs: dict[Path, Given]) -> dict:
        return walk(self.cut.program, self.before.operands, rule, self._mine(inputs))[2]

    def _mine(self, inputs: dict[Path, Given]) -> dict[Path, Given]:
        paths = self.cut.program.paths
        return {path: given for path, given in inputs.items() if path in paths}

    def new_trace(self, outs: list, found: dict, score: Any) -> tuple[Any, dict]:
        """The trace with what the cut program put out, and everything else as it was."""
        trace, run = self.trace, self.run
        choices = {**flatten(trace.choices), **found.get("choices", {})}
        present = flatten(trace.present)
        here = found.get("present", {})
        present.update({p: jnp.asarray(here[p]) for p in present if p in here})
        leaves = list(Arguments.of((trace.retval,), {}).leaves)
        for position, value in zip(self.cut.outputs, outs, strict=True):
            leaves[position] = value
        made = type(trace)(
            model=run.model,
            arguments=run.arguments,
            choices=nest({path: choices[path] for path in run.sites}),
            score=score,
            retval=run.staged.rebuild(leaves),
            present=nest(present),
        )
        return made, present


def update(run, trace, given: dict[Path, Any], filler: bool = False) -> tuple[Any, Any, dict]:
    """The changed trace, log p(t') - log p(t) - log q(fresh), and what was replaced.

    With `filler`, a given 0 may stand for a choice in a branch not taken.
    """
    old = run.old(trace)
    element = update_element(run, trace, given, old)
    if element is not None:
        return element
    inputs = {**old, **{path: _now_or_before(path, v, old) for path, v in given.items()}}
    rule = run.rule(constrained=frozenset(given), filler=filler)
    change = _Change(run, trace, lambda path: path in given)
    zero = jnp.zeros_like(trace.score)
    if change.local and change.part <= 0.5:
        outs, found, sums = change.after(rule, inputs)
        was = change.earlier(run.rule(sums=("score",)), {p: Given(g.value) for p, g in old.items()})
        lost = was.get("score", zero)
        kept, total = sums.get("weight", zero), sums.get("score", zero)
        weight = kept - lost
        score = trace.score + (weight if kept is total else total - lost)
        changed, present = change.new_trace(outs, found, score)
    else:
        changed, sums, present = run.trace(rule, inputs)
        weight = sums.get("weight", zero) - trace.score
    for path, value in given.items():
        if isinstance(value, At):
            inside = (value.index >= 0) & (value.index < old[path].value.shape[0])
            weight = jnp.where(inside, weight, -jnp.inf)
    return changed, weight, nest(_discarded(old, given, present))


def _discarded(old: dict[Path, Given], given: dict[Path, Any], present: dict) -> dict:
    discarded: dict[Path, Any] = {}
    for path, before in old.items():
        if path in given:
            value = given[path]
            if isinstance(value, At):
                discarded[path] = At(value.index, before.value[value.index])
                continue
            mask = value.mask if isinstance(value, Masked) else None
            if before.keep is not None:
                mask = before.keep if mask is None else mask & leading(before.keep, mask.ndim)
            discarded[path] = before.value if mask is None else Masked(before.value, mask)
        elif before.keep is not None:
            discarded[path] = Masked(before.value, before.keep & ~present[path])
    return discarded


def regenerate(
    run, trace, selection: Selection, gaps: Mapping[Path, Gaps] = {}
) -> tuple[Any, Any, dict]:
    """Redraw the selection; the weight compares the choices kept, before and after.

    Of a selected choice with `gaps` only these are redrawn.

    Raises:
      UnsupportedControlFlow: the model also draws without addresses, and a selected
        choice depends on such a draw, so its density is not known.
    """
    old = run.old(trace)
    # a factor is never made anew, though it is at the address of a call that may be selected
    selection = selection & Selection(lambda path: path in run.sites, (), "choices")
    change = _Change(run, trace, selection)
    if not change.local:
        assert not any(selection(path) for path in gaps)  # the program of a target's own trace
        if DRAW in run.staged.program.effects:
            return _regenerate_estimated(run, change.before, trace, selection, old)
        return _regenerate_whole(run, change.before, trace, selection, old)
    kept = {path: given for path, given in old.items() if not selection(path)}
    parts = {path: gap for path, gap in gaps.items() if selection(path)}
    for path, gap in parts.items():
        kept[path] = Given(old[path].value, jnp.asarray(gap.seen))
    zero = jnp.zeros_like(trace.score)
    outs, found, sums = change.after(run.rule(), kept)
    here = found.get("present", {})
    again = _again(old, here)
    for path, gap in parts.items():
        again[path] = Given(old[path].value, counts=jnp.asarray(gap.seen))
    counted = ~selection | Selection(lambda path: path in parts, (), "gaps")
    was = change.earlier(run.rule(weighed=counted), again)
    weight = sums.get("weight", zero) - was.get("weight", zero)
    score = trace.score + (sums.get("score", zero) - was.get("score", zero))
    changed, present = change.new_trace(outs, found, score)
    return changed, weight, _redrawn(old, selection, present)


def _regenerate_estimated(run, before, trace, selection, old) -> tuple[Any, Any, dict]:
    """The pseudo-marginal ratio: the trace keeps the estimate that it was accepted with.

    The model draws without addresses, so that its score is (the log of) an unbiased
    estimate (Andrieu and Roberts 2009). The old estimate is the trace's score, never
    made again; the densities of the selected choices do not involve the draws.
    """
    for step in depends_on_draws(run.staged.program, selection):
        raise errors.UnsupportedControlFlow(
            "A selected choice depends on a draw without an address, so its density is unknown.",
            where=step.source,
            given=" and ".join(errors.show(p) for p in step.paths if selection(p)),
            expected="selected choices that depend on addressed choices only",
            fix="propose with a Move and metropolize it: its ratio needs only assess",
        )
    kept = {path: given for path, given in old.items() if not selection(path)}
    changed, sums, present = run.trace(run.rule(), kept)
    values = {path: Given(given.value) for path, given in old.items()}
    _, was, _ = before.trace(run.rule(weighed=selection, sums=("weight",)), values)
    zero = jnp.zeros_like(changed.score)
    weight = sums.get("weight", zero) - (trace.score - was.get("weight", zero))
    return changed, weight, _redrawn(old, selection, present)


def _regenerate_whole(run, before, trace, selection, old) -> tuple[Any, Any, dict]:
    """The same when the arguments changed the program itself (their shapes, say)."""
    kept = {path: given for path, given in old.items() if not selection(path)}
    changed, sums, present = run.trace(run.rule(), kept)
    _, was, _ = before.trace(run.rule(weighed=~selection), _again(old, present))
    zero = jnp.zeros_like(trace.score)
    weight = sums.get("weight", zero) - was.get("weight", zero)
    return changed, weight, _redrawn(old, selection, present)


def _again(old: dict[Path, Given], present: dict) -> dict[Path, Given]:
    """The old values, counting only where the choice is still there.

    A choice that the change does not touch is there if it was.
    """
    return {
        path: Given(g.value, counts=None if g.keep is None else present.get(path, g.keep))
        for path, g in old.items()
    }


def _redrawn(old: dict[Path, Given], selection: Selection, present: dict) -> dict[str, Any]:
    gone = {p: given for p, given in old.items() if selection(p) or given.keep is not None}
    return nest(
        {
            path: given.value
            if given.keep is None
            else Masked(given.value, given.keep if selection(path) else given.keep & ~present[path])
            for path, given in gone.items()
        }
    )
