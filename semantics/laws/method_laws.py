"""The law of each of the six methods: what it computes against what it denotes.

Of a finite case, measures are compared; of others, the two sides of an equation at each point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Masked, errors
from ppl.addresses import flatten, nest
from ppl.masks import leading
from ppl.program import Path

from . import calls
from .cases import POINTS, Case
from .departures import DRAWS, Found, LeftOut
from .integrals import check_integrals
from .stacked import log_of, merged, one_axis, rows_of, take


def simulate_law(case: Case, found: Found) -> None:
    """Traces have probability e^score, and all of them add up to one."""
    try:
        traces, masses = one_axis(case.run(calls.simulate, (), n=1 if case.exact else POINTS))
    except errors.CannotSimulate as error:
        raise LeftOut("it scores with factor or observe") from error
    traces, masses = take((traces, masses), masses > 0)
    if case.exact:
        found.measures("simulate", merged(rows_of(traces), masses), case.masses(case.possible))
        found.equal("the total mass", masses.sum(keepdims=True), np.ones(1))
    if not case.draws:
        found.equal("the score of simulate", traces.score, case.log_p(traces), traces)
    elif not case.exact:
        raise LeftOut(DRAWS)
    check_integrals(case, found, "simulate", {})


def assess_law(case: Case, found: Found) -> None:
    """The score and the return value are those of a trace with the same choices."""
    if case.draws:
        raise LeftOut(DRAWS)
    scores, retvals = take(
        take(case.run(calls.assess, 0.0, case.traces)[0], np.s_[:, 0]), case.real
    )
    found.equal("assess", scores, case.possible.score, case.possible)
    found.equal("the return value", retvals, case.possible.retval, case.possible)


def generate_law(case: Case, found: Found) -> None:
    """E[e^w delta_t] is the measure of the traces that extend the constraint."""
    if case.draws and not case.exact:
        raise LeftOut(DRAWS)
    values, always = flatten(case.points.choices), case.always
    kept = 3 if case.exact else POINTS
    given: list[Any] = [{path: values[path][:kept]} for path in _first_last(always)]
    if case.constraints:
        seen = flatten(case.constraints)
        given.append(jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], seen))
    if case.exact:
        found.measures("generate()", case.started, case.masses(case.possible))
    for constraint in given:
        n = len(jax.tree.leaves(constraint)[0])
        drawn = tuple(path for path in case.sites if path not in constraint)
        what = f"generate({', '.join(errors.show(path) for path in constraint)})"
        if case.exact:
            (traces, weights, _), masses = case.run(calls.generate, None, nest(constraint), n=n)
            for k in range(n):
                extending = take(case.possible, _extends(case.possible, take(constraint, k)))
                mass = np.where(masses[k] > 0, masses[k] * np.exp(weights[k]), 0.0)
                found.measures(what, merged(rows_of(take(traces, k)), mass), case.masses(extending))
        elif not any(
            isinstance(value, Masked) or case.sites[path].conditional
            for path, value in constraint.items()
        ):
            results, _ = case.run(calls.generate, drawn, nest(constraint), n=n)
            traces, weights, own = one_axis(results)
            found.equal(f"the log weight of {what}", weights, case.log_p(traces) - own, traces)
            fixed = {path: flatten(traces.choices)[path] for path in constraint}
            found.equal(f"a choice of {what}", fixed, dict(constraint), traces)
            check_integrals(case, found, "generate", take(constraint, 0))


def _first_last(items: list) -> list:
    return [items[0], items[-1]] if len(items) > 1 else items


def _extends(traces: Any, constraint: Mapping[Path, Any]) -> np.ndarray:
    """Which of the traces have these choices."""
    fits = np.ones(len(traces.score), bool)
    for path, value in constraint.items():
        same = flatten(traces.choices)[path] == np.asarray(getattr(value, "value", value))
        if path in (present := flatten(traces.present)):
            flags = np.asarray(present[path])
            same = same & leading(flags, same.ndim)
        if isinstance(value, Masked):
            same = same | ~leading(np.asarray(value.mask), same.ndim - 1)
        fits &= same.reshape(len(fits), -1).all(1)
    return fits


def update_law(case: Case, found: Found) -> None:
    """w is the difference of the scores, less log P(what was drawn); the discarded undo it."""
    if case.draws:
        raise LeftOut(DRAWS)
    moved, _ = case.names
    (new, score, weight, back, undone), mass = case.run(
        calls.update, moved, case.points, case.others
    )
    start = np.repeat(np.arange(POINTS), mass.shape[1])
    old = take(case.points, start)
    new, score, weight, back, undone, mass = one_axis((new, score, weight, back, undone, mass))
    real, ways = mass > 0, list(zip(start.tolist(), rows_of(new), strict=True))
    fresh = merged(ways, mass)
    with np.errstate(invalid="ignore"):  # of what does not happen
        want = score - old.score - log_of([fresh.get(way, 0.0) for way in ways])
        returns = old.score - score
    known = real if case.exact else ~_appears(old, new)
    found.equal("the new score", new.score[real], score[real], take(new, real))
    found.equal("the log weight of update", weight[known], want[known], take(old, known))
    changed = [(back.choices, old.choices), (back.present, old.present)]
    for got, expected in changed:
        words = "a choice after update with the discarded"
        found.equal(words, take(got, real), take(expected, real), take(old, real))
    real &= score > -np.inf
    found.equal("the log weight back", undone[real], returns[real], take(old, real))


def _appears(old: Any, new: Any) -> np.ndarray:
    """Whether the new trace has choices that the old one has not."""
    found = np.zeros(len(old.score), bool)
    for path, flag in flatten(new.present).items():
        more = np.asarray(flag) & ~np.asarray(flatten(old.present)[path])
        found |= more.reshape(len(found), -1).any(1)
    return found


def regenerate_law(case: Case, found: Found) -> None:
    """w = log p(t') K(t', t) / p(t) K(t, t'), K the law of regenerate, where that is finite."""
    if case.draws:
        raise LeftOut(DRAWS)
    for chosen in dict.fromkeys((case.names[1], tuple(case.sites)[-1:])):
        kernel: dict[tuple, float] = {}
        weights: dict[tuple, float] = {}
        starts = case.points
        for _ in range(2 if case.exact else 1):  # from the points, then from where they went
            results, mass = case.run(calls.regenerate, chosen, starts)
            new, weight, kept = one_axis(results)
            outcomes = mass.shape[1]
            old = take(starts, np.repeat(np.arange(POINTS), outcomes))
            there = take(new, mass.ravel() > 0)
            found.equal("the new score", there.score, case.log_p(there), there)
            if case.exact:
                after = (new.score, weight)
                went = _into(kernel, weights, rows_of(starts), rows_of(new), after, mass)
                starts = take(new, went)
            else:
                known = ~_appears(old, new) & ~_appears(new, old)
                words = "the log weight of regenerate"
                found.equal(words, weight[known], kept[known], take(old, known))
        log_p = {a: case.table.get(a, -np.inf) for way in kernel for a in way}
        for a, b in kernel:
            if (b, a) in kernel or log_p[b] == -np.inf:
                back = log_p[b] + np.log(kernel.get((b, a), 1.0))
                ratio = back - log_p[a] - np.log(kernel[a, b])
                words = f"the log weight of regenerate({chosen}) from {a} to {b}"
                found.equal(words, np.array([weights[a, b]]), np.array([ratio]))


def _into(kernel: dict, weights: dict, starts: list, ends: list, new: Any, mass: Any) -> Any:
    """Put what regenerate did into the tables; for each start, where to go on from: an
    outcome of positive density, another trace if there is one."""
    went, outcomes = [], mass.shape[1]
    (scores, log_weights) = new
    for i, a in enumerate(starts):
        mine = range(i * outcomes, (i + 1) * outcomes)
        kernel.update({(a, b): m for b, m in merged([ends[j] for j in mine], mass[i]).items()})
        possible = [j for j in mine if mass.flat[j] > 0]
        weights.update({(a, ends[j]): float(log_weights[j]) for j in possible})
        dense = [j for j in possible if scores[j] > -np.inf]
        moved = [j for j in dense if ends[j] != a] or dense
        went.append(moved[i % len(moved)])
    return np.array(went)


def project_law(case: Case, found: Found) -> None:
    """The scores of a part and of the rest add up to the score."""
    if case.draws:
        raise LeftOut(DRAWS)
    found_all = take(case.run(calls.project, case.parts, case.traces)[0], np.s_[:, 0])
    parts, others, rest, whole = take(found_all, case.real)
    score = case.possible.score
    for i, path in enumerate(case.parts, 1):
        words = f"project({errors.show(path)}) + project(the rest)"
        found.equal(words, parts[:, i] + others[:, i], score, case.possible)
    found.equal("the sum of project over single choices", parts.sum(1) + rest, score, case.possible)
    found.equal("project(everything)", whole, score, case.possible)
