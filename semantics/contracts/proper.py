"""Steps are proper and kernels invariant: the whole measure, by integrating the algorithm.

A step is proper from g to g' if <<s>> = g implies <<step(s)>> = g'. Here s starts from
the target itself: each of its traces with its weight, so that one enumeration of "start,
then the algorithm" gives the sum over x of g(x) K(x, .), which is compared with the oracle
for every value. What is enumerated is the algorithm's own code, accept steps included.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis.strategies import SearchStrategy

from inference import Weighted
from ppl import Masked, Target, Trace, errors, paths
from ppl.masks import leading
from ppl.program import DRAW

from ..compiling import QUICK
from ..measures.denote import merged, target_measure
from ..measures.matrix import Kernel
from ..measures.measure import Measure
from ..report import Verdict, over

EXACT = 1e-12
"""Largest rounding error of the sums here: 1e5 products of a dozen float64 probabilities."""

Making = Callable[[Target], Callable]


def check_proper(
    make_step: Making,
    target: Target | SearchStrategy,
    *,
    source: Callable[[Target], Target] | None = None,
    max_examples: int = 100,
) -> Verdict:
    """<<step(s)>> is the target when <<s>> is the source, value by value, exactly.

    Args:
      make_step: from a target to a step (a random program between objects with `value` and
        `log_weight`, particles stacked in front). Its values are traces, or the latents.
      target: a `Target` with finite latents, or a strategy of programs such as
        `programs.discrete()`; a failure is then shrunk to a minimal program.
      source: from a target to the `Target` that the step starts from; without it, the step
        starts from the unit measure.

    The departure is relative to the mass of the target. Departures of 1e-12 are seen.

    Raises:
      CannotIntegrate: a draw has not finitely many outcomes.
      InvalidArgument: what is checked on is neither a target nor a strategy.

    Source: Ścibior et al., Denotational validation of higher-order Bayesian inference (POPL
    2018); enumeration of the algorithm: Bouchard-Côté et al., Blang (JSS 2022).

    >>> from inference import collapse, importance, then
    >>> from semantics import check_proper, programs
    >>> few = programs.discrete(shapes=("one", "branch"))
    >>> bool(check_proper(lambda t: then(importance(t, 2), collapse), few))
    True
    """

    def judge(case: Any) -> Verdict:
        t, expected = _case(case)
        values, masses = _particles(make_step, source, t)
        return _compare("proper", values, masses, expected)

    return _over(target, judge, max_examples)


def check_kernel(
    make_kernel: Making, target: Target | SearchStrategy, *, max_examples: int = 100
) -> Verdict:
    """pi K = pi: the kernel leaves the target invariant, value by value, exactly.

    Also that the new trace's score is the density of its choices (nothing stale), and that
    observed choices stay. Arguments as for `check_proper`; `make_kernel` is from a target
    to a random program from traces to traces.

    >>> from inference import mh
    >>> from semantics import check_kernel, programs
    >>> def sweep(target):
    ...     def kernel(trace):
    ...         for address in target.latents:
    ...             trace = mh(target, address)(trace)
    ...         return trace
    ...     return kernel
    >>> check_kernel(sweep, programs.discrete(shapes=("one", "branch"))).require().method
    'exact'
    """

    def judge(case: Any) -> Verdict:
        t, expected = _case(case)
        _, after, masses, stale = _flow(make_kernel, t)
        verdict = _compare("invariant", after, masses, expected)
        worst = float(np.max(np.asarray(stale), initial=0.0))
        if verdict.passed and not worst <= EXACT:
            what = "the kernel's trace has another score than its choices, or other observations"
            return Verdict("fresh score", False, "exact", worst, EXACT, len(masses), witness=what)
        return verdict

    return _over(target, judge, max_examples)


def kernel_matrix(make_kernel: Making, target: Target) -> tuple[Measure, Kernel]:
    """The normalised target pi, and the kernel as a matrix on its support: for its
    reversibility, irreducibility and period.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh
    >>> from ppl import Target, gen, sample
    >>> from semantics import kernel_matrix
    >>> coin = gen(lambda: sample("x", dist.Bernoulli(0.25)))
    >>> pi, k = kernel_matrix(lambda t: mh(t, "x"), Target(coin))
    >>> k.is_irreducible(), k.reversibility_error(pi) < 1e-15
    (True, True)
    """
    before, after, masses, _ = _flow(make_kernel, target)
    joint = merged((before, after), masses)
    pi = joint.map(lambda pair: pair[0]).normalized()
    rows = {
        x: joint.restrict(lambda pair, x=x: pair[0] == x).map(lambda pair: pair[1]).normalized()
        for x in pi.support
    }
    return pi, Kernel.of(pi.support, rows.__getitem__)


# -- running the algorithm -----------------------------------------------------------------


def _start(target: Target) -> tuple[Trace, jax.Array]:
    return target.generate()


def _latents(target: Target, value: Any) -> Any:
    return target.choices(value) if isinstance(value, Trace) else value


@partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _particles(
    make_step: Making, source: Callable[[Target], Target] | None, target: Target
) -> tuple[Any, jax.Array]:
    """Every particle of every path, with its mass."""
    step = make_step(target)

    def run():
        if source is None:
            s = Weighted((), jnp.zeros((), float))
        else:
            s = Weighted(*_start(source(target)))
        out = step(s)
        return _latents(target, out.value), out.log_weight

    (values, log_weights), masses = paths(run)()
    weights = masses.reshape(masses.shape + (1,) * (log_weights.ndim - 1)) * jnp.where(
        _column(masses, log_weights) > 0, jnp.exp(log_weights), 0.0
    )
    if log_weights.ndim == 1:
        return values, weights
    n = log_weights.shape[1]
    flat = jax.tree.map(lambda leaf: leaf.reshape(weights.size, *leaf.shape[2:]), values)
    return flat, weights.reshape(-1) / n


def _column(masses: jax.Array, like: jax.Array) -> jax.Array:
    return masses.reshape(masses.shape + (1,) * (like.ndim - 1))


@partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _flow(make_kernel: Making, target: Target) -> tuple[Any, Any, jax.Array, jax.Array]:
    """Every path from a trace of the target through the kernel: the latents before and
    after, its mass, and how stale the new trace is."""
    kernel = make_kernel(target)
    estimated = DRAW in target.model._prepare(target.args, {}).staged.program.effects

    def run():
        trace, log_weight = _start(target)
        new = kernel(trace)
        score = new.score if estimated else target.model.assess(new.choices, *target.args)[0]
        difference = jnp.where(new.score == score, 0.0, jnp.abs(new.score - score))
        moved = _moved_observations(target, new)
        return target.choices(trace), target.choices(new), log_weight, difference + moved

    (before, after, log_weight, stale), masses = paths(run)()
    real = (masses > 0) & (log_weight > -jnp.inf)
    mass = jnp.where(real, masses * jnp.exp(jnp.where(real, log_weight, 0.0)), 0.0)
    return before, after, mass, jnp.where(real, stale, 0.0)


def _moved_observations(target: Target, trace: Trace) -> Any:
    total: Any = 0.0
    for path, value in target.observed.items():
        now = trace[path]
        if isinstance(value, Masked):
            same = (now == value.value) | ~leading(value.mask, now.ndim)
        else:
            same = now == value
        total = total + jnp.where(jnp.all(same), 0.0, 1.0)
    return total


# -- judging -------------------------------------------------------------------------------


def _case(case: Any) -> tuple[Target, Measure]:
    """The target of a generated program and its exact measure; a target's own."""
    if isinstance(case, Target):
        return case, target_measure(case)
    return case.target, case.posterior()


def _compare(check: str, values: Any, masses: Any, expected: Measure) -> Verdict:
    n, bad = len(masses), ~np.isfinite(np.asarray(masses))
    if bad.any():
        witness = f"{bad.sum()} of {n} paths have a weight that is no finite number"
        return Verdict(check, False, "exact", float("inf"), EXACT, n, EXACT, witness=witness)
    got = merged(values, masses)
    mass = float(expected.mass) or 1.0
    worst, where = 0.0, None
    for value in set(got.support) | set(expected.support):
        error = abs(float(got[value]) - float(expected[value])) / mass
        if not error <= worst:
            worst, where = error, value
    passed = worst <= EXACT
    witness = ""
    if not passed:
        witness = (
            f"at {_shown(where)}: mass {float(got[where]):.6g}, "
            f"expected {float(expected[where]):.6g} (of {mass:.6g} in all)"
        )
    return Verdict(check, passed, "exact", worst, EXACT, n, effect=EXACT, witness=witness)


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ", ".join(f"{'/'.join(path)} = {leaf}" for path, leaf in value)
    return repr(value)


def _over(
    target: Target | SearchStrategy, judge: Callable[[Any], Verdict], max_examples: int
) -> Verdict:
    if isinstance(target, SearchStrategy):
        return over(target, judge, max_examples)
    if isinstance(target, Target):
        return judge(target)
    raise errors.InvalidArgument(
        "A check needs a target or a strategy of programs.",
        where=errors.caller(),
        given=repr(target),
        expected="Target(model, args, observations), or a Hypothesis strategy",
        fix="call the strategy: programs.discrete()",
    )
