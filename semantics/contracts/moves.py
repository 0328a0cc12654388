"""Metropolis-Hastings-Green as an executable theorem: its hypotheses, and its conclusion.

With mu(dx du) = g(dx) q(du|x), f a map of (x, u) to (x', u'), and r a density ratio:

1. round trip: f is its own inverse;
2. supports swapped: where mu and g(x') are positive, so is q(u'|x');
3. Jacobian: log |det df| is what the library takes it to be;
4. skew symmetry: log r(x', u') = -log r(x, u);
5. Radon-Nikodym identity: r(x, u) mu(dx du) = (f_* mu)(dx du), on the support of mu;
6. invariance: then accepting f with probability min(1, r) leaves g invariant.

1, 4 and 5 imply 6 (Green 1995; Ścibior et al. 2018, theorem 5). Without 2 the accepted
kernel may still be right, since what cannot come back is refused, but weighing by r loses
mass. A change of dimension is a map of the padded space, absent choices being zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis.strategies import SearchStrategy

from inference.move import Move, _moved, accept, metropolize, propose
from ppl import Target, Trace, errors, paths, seed

from ..compiling import QUICK
from ..measures.denote import hashable, merged
from ..measures.measure import Measure
from ..report import Verdict
from .differences import continuous, difference, extrapolated, slopes
from .proper import EXACT, _over, check_kernel

IDENTITY = 1e-8
"""Departure of equations between log densities: sums of a dozen numbers below 1e3 in
float64 are off by 1e-12, and the rounding of f's values counts as often as their slope."""

JACOBIAN = 1e-6
"""Departure from finite differences; points where these are off by a tenth do not count."""

CHECKS = (
    "round trip",
    "supports swapped",
    "Jacobian",
    "skew symmetry",
    "Radon-Nikodym identity",
)
"""The hypotheses; the conclusion's verdict is that of `check_kernel`."""

Ratio = Callable[[Target, Trace, dict], Any]
Making = Callable[[Target], Move]


def check_move(
    make_move: Making,
    target: Target | SearchStrategy,
    *,
    ratio: Ratio | None = None,
    make_kernel: Callable[[Target], Callable[[Trace], Trace]] | None = None,
    points: int = 64,
    max_examples: int = 100,
) -> list[Verdict]:
    """Each hypothesis of the Metropolis-Hastings-Green theorem, and its conclusion.

    Where latents and u are finite, at every (x, u) of positive mass, and the conclusion on
    the whole measure; else the hypotheses at seeded points, x and u drawn from the model and
    the proposal, which must have different coordinates for the Jacobian to be seen.

    Args:
      make_move: from a target to an `inference.Move`, or anything with a `proposal` (a
        generative function of the latents) and an `involution` of (latents, u).
      target: a `Target`, or a strategy of programs; failures are then shrunk.
      ratio: `ratio(target, trace, u)`, a log ratio of one's own; by default the library's.
      make_kernel: from a target to the kernel of the conclusion; by default the one that
        accepts by the ratio.
      points: how many (x, u) are looked at when they are not finitely many.

    Returns:
      The verdicts that apply, of `CHECKS` and "invariant": "Jacobian" for continuous
      coordinates and the library's ratio, "invariant" for finite targets. They need float64.

    Source: Green, Reversible jump Markov chain Monte Carlo (Biometrika 1995); Ścibior et
    al., Denotational validation (POPL 2018), theorem 5; Cusumano-Towner, Lew and Mansinghka,
    Automating involutive MCMC (2020).

    >>> import numpyro.distributions as dist
    >>> from inference import Move
    >>> from ppl import Target, gen, sample
    >>> from semantics import check_move
    >>> three = Target(gen(lambda: sample("x", dist.Binomial(2, 0.25))))
    >>> up = gen(lambda x: sample("by", dist.Binomial(2, 0.75)))
    >>> def walk(involution):
    ...     return lambda target: Move(up, involution)
    >>> there = lambda x, u: ({"x": (x["x"] + u["by"]) % 3}, {"by": -u["by"] % 3})
    >>> [bool(verdict) for verdict in check_move(walk(there), three)]
    [True, True, True, True, True]
    >>> lost = lambda x, u: ({"x": (x["x"] + u["by"]) % 3}, u)
    >>> print(check_move(walk(lost), three)[0])
    round trip: FAILED (exact, error 2 of at most 1e-08, n = 9)
    at x = 0, by = 1: it maps to x = 1, by = 1, and that to x = 2, by = 1
    """
    seen: dict[str, dict[str, Verdict]] = {}  # every hypothesis visits the same programs

    def judge(case: Any, check: str) -> Verdict:
        name = repr(case)
        if name not in seen:
            t = case if isinstance(case, Target) else case.target
            seen[name] = {v.check: v for v in _hypotheses(make_move, ratio, points, t)}
        return seen[name].get(check, Verdict(check, True, "identity", 0.0, IDENTITY, 0))

    verdicts = [_over(target, partial(judge, check=c), max_examples) for c in CHECKS]
    found = [verdict for verdict in verdicts if verdict.n]
    if len(found) > 1 and any(verdict.method == "exact" for verdict in found):
        library = lambda t: metropolize(make_move(t), t)  # noqa: E731
        kernel = make_kernel or (_accepting(make_move, ratio) if ratio else library)
        found.append(check_kernel(kernel, target, max_examples=max_examples))
    return found or verdicts[:1]


def _accepting(make_move: Making, ratio: Ratio) -> Callable[[Target], Any]:
    """The kernel that accepts by a ratio of the user's."""

    def make_kernel(target: Target) -> Callable[[Trace], Trace]:
        move = make_move(target)

        def kernel(trace: Trace) -> Trace:
            x = target.choices(trace)
            u = move.proposal.simulate(x).choices
            new = _trace_at(target, trace, move.involution(x, u)[0])
            return accept(trace, new, ratio(target, trace, u))

        return kernel

    return make_kernel


# -- points and what is computed at them ----------------------------------------------------


class _At(NamedTuple):
    """What the hypotheses say something about, at (x, u); stacked over the points."""

    before: Any
    after: Any
    back: Any
    log_target: Any
    log_target_after: Any
    forward: Any
    backward: Any
    slopes: Any
    ratio: Any = None
    ratio_after: Any = None
    taken: Any = None


def _start(move: Move, target: Target) -> tuple[Trace, dict, Any]:
    trace, log_weight = target.generate()
    return trace, move.proposal.simulate(target.choices(trace)).choices, log_weight


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _enumerated(make_move: Making, target: Target) -> tuple[Any, jax.Array]:
    """Every (trace, u), with its mass under mu."""
    move = make_move(target)
    (trace, u, log_weight), masses = paths(lambda: _start(move, target))()
    real = (masses > 0) & (log_weight > -jnp.inf)
    return (trace, u), jnp.where(real, masses * jnp.exp(jnp.where(real, log_weight, 0.0)), 0.0)


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _sampled(make_move: Making, points: int, target: Target) -> tuple[Any, jax.Array]:
    """Seeded (trace, u), of equal masses where possible."""
    move = make_move(target)
    keys = jax.random.split(jax.random.key(0), points)
    trace, u, log_weight = jax.vmap(seed(lambda: _start(move, target)))(keys)
    return (trace, u), (log_weight > -jnp.inf) / points


def _trace_at(target: Target, trace: Trace, x: dict) -> Trace:
    """The trace with latents x. Its score is scored anew: zeros stand for absent choices."""
    moved = target.update(trace, x)[0]
    return replace(moved, score=target.model.assess(moved.choices, *target.args)[0])


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _ratios(make_move: Making, ratio: Ratio | None, target: Target, traces: Trace, us: dict) -> Any:
    """The log ratio at (x, u) and at its image, and the library's log |det| if it is in it."""
    move = make_move(target)

    def log_ratio(trace: Trace, u: dict) -> Any:
        if ratio is not None:
            return ratio(target, trace, u)
        assess = move.proposal.assess
        run = lambda x: SimpleNamespace(choices=u, score=assess(u, x)[0])  # noqa: E731
        given = SimpleNamespace(simulate=run, assess=assess)  # a proposal that "draws" u
        log_det = getattr(move, "log_det", None)
        return propose(Move(cast(Any, given), move.involution, log_det), target, trace)[1]

    def one(trace: Trace, u: dict) -> Any:
        x = target.choices(trace)
        after = jax.tree.map(jnp.asarray, move.involution(x, u))
        there = _trace_at(target, trace, after[0]), after[1]
        both = jax.tree.map(lambda *two: jnp.stack(two), (trace, u), there)  # compiles once
        here, back = jax.vmap(log_ratio)(*both)
        return here, back, 0.0 if ratio is not None else _moved(move, x, u)[2]

    return jax.vmap(one)(traces, us)


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _evaluated(make_move: Making, target: Target, traces: Trace, us: dict) -> _At:
    """All but the ratio, so that a move with several ratios compiles it once."""
    move = make_move(target)

    def one(trace: Trace, u: dict) -> _At:
        x = target.choices(trace)
        after = jax.tree.map(jnp.asarray, move.involution(x, u))
        back = jax.tree.map(jnp.asarray, move.involution(*after))
        return _At(
            (x, u),
            after,
            back,
            target.log_density(x),
            target.log_density(after[0]),
            move.proposal.assess(u, x)[0],
            move.proposal.assess(after[1], after[0])[0],
            slopes(move, x, u),
        )

    return jax.vmap(one)(traces, us)


# -- judging ---------------------------------------------------------------------------------


def _hypotheses(
    make_move: Making, ratio: Ratio | None, points: int, target: Target
) -> list[Verdict]:
    try:
        method, ((traces, us), masses) = "exact", _enumerated(make_move, target)
    except errors.CannotIntegrate:
        method, ((traces, us), masses) = "identity", _sampled(make_move, points, target)
    exact = method == "exact"
    kept = np.flatnonzero(np.asarray(masses) > 0)
    if not len(kept):
        return [Verdict(CHECKS[0], True, method, 0.0, IDENTITY, 0)]
    shape = _shape_kept(make_move(target), target, traces, us)
    if shape:
        return [Verdict(CHECKS[0], False, method, 1.0, IDENTITY, len(kept), witness=shape)]
    log_r, after, taken = _ratios(make_move, ratio, target, traces, us)
    every = _evaluated(make_move, target, traces, us)
    every = every._replace(ratio=log_r, ratio_after=after, taken=taken)
    at: _At = jax.tree.map(lambda leaf: np.asarray(leaf)[kept], every)
    masses = np.asarray(masses)[kept]

    def verdict(check: str, departures: np.ndarray, most: float, why: Any) -> Verdict:
        departures = np.where(np.isnan(departures), np.inf, departures)
        i = int(np.argmax(departures))
        error, passed = float(departures[i]), bool(departures[i] <= most)
        witness = "" if passed else f"at {_shown(at.before, i)}: {why(i)}"
        return Verdict(check, passed, method, error, most, len(kept), most, witness=witness)

    image = partial(_shown, at.after)
    round_trip = verdict(
        "round trip",
        _apart(at.before, at.back),
        IDENTITY,
        lambda i: f"it maps to {image(i)}, and that to {_shown(at.back, i)}",
    )
    possible = (at.log_target_after > -np.inf) & (at.backward > -np.inf)
    lost = np.where((at.log_target_after > -np.inf) & ~possible, masses, 0.0)
    never = lambda i: f"it maps to {image(i)}, where the proposal never draws this u"  # noqa: E731
    swapped = verdict("supports swapped", lost, 0.5 * float(masses.min()), never)
    log_det, spread = extrapolated(at.slopes)
    known = spread <= JACOBIAN / 10  # elsewhere the differences say nothing
    unknown = np.full(len(kept), 0.0 if known.any() else np.inf)
    singular = np.isneginf(log_det)  # often the zero of an absent choice that is lost
    jacobian = verdict(
        "Jacobian",
        np.where(singular, np.inf, np.where(known, difference(at.taken, log_det), unknown)),
        JACOBIAN,
        lambda i: (
            f"log |det| is {log_det[i]:.6g}, the library's {at.taken[i]:.6g}"
            + (": not one to one on the padded space" if singular[i] else "")
        ),
    )
    uneven = np.where(possible, difference(at.ratio, -at.ratio_after), 0.0)
    both = lambda i: f"log r = {at.ratio[i]:.6g}, {at.ratio_after[i]:.6g} at {image(i)}"  # noqa: E731
    skew = verdict("skew symmetry", uneven, IDENTITY, both)
    with np.errstate(invalid="ignore"):
        expected = at.log_target_after + at.backward + log_det - at.log_target - at.forward
    expected = np.where(possible, expected, -np.inf)
    lacking = _lacking(at, log_det, expected, possible & known)
    of_logs = np.where(known | ~possible, difference(at.ratio, expected), unknown)
    identity = verdict(
        "Radon-Nikodym identity",
        _finite_departures(at, masses) if exact else of_logs,
        EXACT if exact else JACOBIAN,
        lambda i: f"log r = {at.ratio[i]:.6g}, not {expected[i]:.6g}{lacking}",
    )
    judged = ratio is None and any(map(continuous, jax.tree.leaves(at.before)))
    return [round_trip, swapped, *([jacobian] if judged else []), skew, identity]


def _finite_departures(at: _At, masses: np.ndarray) -> np.ndarray:
    """|r(x, u) mu(x, u) - mu(f(x, u))| over the mass of mu, value by value."""
    mu: Measure = merged(at.before, masses)
    before, after = hashable(at.before, len(masses)), hashable(at.after, len(masses))
    ratios = dict(zip(before, np.exp(at.ratio).tolist(), strict=True))
    if not all(np.isfinite(r) for r in ratios.values()):
        return np.where(np.isfinite(np.exp(at.ratio)), 0.0, np.inf)
    moved = mu.scale(ratios)
    gaps = [abs(float(moved[p]) - float(mu[q])) for p, q in zip(before, after, strict=True)]
    return np.array(gaps) / float(mu.mass)


def _lacking(at: _At, log_det: np.ndarray, expected: np.ndarray, where: np.ndarray) -> str:
    """The term, if there is one, that accounts for what is wrong with the ratio."""
    with np.errstate(invalid="ignore"):
        wrong = (at.ratio - expected)[where]
    terms = {
        "the Jacobian": log_det,
        "the density of u (forward)": -at.forward,
        "the density of u' (reverse)": at.backward,
        "the density of the old latents": -at.log_target,
        "the density of the new latents": at.log_target_after,
    }
    if not len(wrong) or not np.all(np.isfinite(wrong)) or np.abs(wrong).max() <= JACOBIAN:
        return ""
    for name, term in terms.items():
        for times, what in ((1, "is missing"), (2, "has the wrong sign"), (-1, "counts twice")):
            if np.abs(wrong + times * term[where]).max() <= JACOBIAN:
                return f": {name} {what}"
    return ""


def _apart(a: Any, b: Any) -> np.ndarray:
    """The largest difference of two trees at each point, relative above one."""
    total = np.zeros(len(jax.tree.leaves(b)[0])) if jax.tree.leaves(b) else np.zeros(1)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        left, right = np.asarray(left, float), np.asarray(right, float)
        gap = difference(left, right) / np.maximum(1.0, np.abs(left))
        total = np.maximum(total, gap.reshape(len(total), -1).max(1, initial=0.0))
    return total


def _shape_kept(move: Move, target: Target, traces: Trace, us: dict) -> str:
    """What the involution changes of the structure, shapes or dtypes of (latents, u)."""
    given = jax.eval_shape(jax.vmap(lambda t, u: (target.choices(t), u)), traces, us)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), given)
    made = jax.eval_shape(move.involution, *one)
    if jax.tree.structure(made) != jax.tree.structure(one):
        return f"it maps {jax.tree.structure(one)} to {jax.tree.structure(made)}"
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(made), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            name = jax.tree_util.keystr(path[1:])
            return f"{name} is {a.dtype}{list(a.shape)}, and {b.dtype}{list(b.shape)} after it"
    return ""


def _shown(point: Any, i: int) -> str:
    rows = jax.tree.leaves_with_path(jax.tree.map(lambda leaf: np.asarray(leaf)[i], point))
    names = ["/".join(str(key.key) for key in path[1:]) for path, _ in rows]
    values = [f"{v:.6g}" if v.ndim == 0 else str(v.tolist()) for _, v in rows]
    return ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
