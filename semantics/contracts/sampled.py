"""Kernels of any dimension, and other libraries' kernels, are invariant: sampling with e-values.

Latents and data are drawn together from the model; the kernel for *these* data is applied to
*these* latents. The latents come exactly from the posterior of the data, so no chain has to
converge, and an invariant kernel leaves the joint law of latents and data as it is, whatever
the model. Draws of that law with and without the kernel are compared by an e-process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Masked, Target, Trace, errors, seed
from ppl.addresses import nest
from ppl.randomness import checked_key

from ..compiling import QUICK
from ..evidence.e_values import combine, exchangeable, multinomial_effect, two_sample
from ..evidence.ledger import stages
from ..report import Verdict
from .continuous import stale
from .positions import Positions
from .statistics import CENTER, Latents, Statistics, statistics_of

BATCH = 200
"""Chains in one compiled call: all stages share it."""


@dataclass(frozen=True)
class Opaque:
    """A kernel with a key: `step(key, latents)` is the new latents. Pure.

    What a factory `make_kernel(target)` returns in place of a random program between traces,
    for a kernel that another library runs. It must be jittable and vmappable.

    >>> import jax
    >>> from semantics import Opaque
    >>> flip = Opaque(lambda key, latents: {"x": 1 - latents["x"]})
    >>> flip.step(jax.random.key(0), {"x": 1})
    {'x': 0}
    """

    step: Callable[[jax.Array, Latents], Latents]


def blackjax_kernel(build: Callable[[Callable], Any], target: Target) -> Opaque:
    """One step of a BlackJAX algorithm on a target's unconstrained space (integers as they are).

    Args:
      build: from the log density to an algorithm with `init(position)` and `step(key, state)`,
        such as `lambda log_p: blackjax.hmc(log_p, 0.1, jnp.ones(2), 10)`.

    Raises:
      InvalidArgument: a latent has no fixed bijection.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from collections import namedtuple
    >>> from ppl import Target, gen, sample; from semantics import blackjax_kernel
    >>> Algorithm, State = namedtuple("Algorithm", "init step"), namedtuple("State", "position")
    >>> still = lambda log_p: Algorithm(State, lambda key, state: (state, None))
    >>> target = Target(gen(lambda: sample("x", dist.Exponential(1.0))))
    >>> print(blackjax_kernel(still, target).step(jax.random.key(0), {"x": jnp.ones(())})["x"])
    1.0
    """
    space = Positions(target)
    algorithm = build(space.log_density)

    def step(key: jax.Array, latents: Latents) -> Latents:
        state, _ = algorithm.step(key, algorithm.init(space.position(latents)))
        return space.latents(state.position)

    return Opaque(step)


def numpyro_kernel(build: Callable[[Callable], Any], target: Target) -> Opaque:
    """One step of a NumPyro kernel on a target's unconstrained space, without warm-up.

    Args:
      build: from the potential to a kernel with `init` and `sample`, such as
        `lambda potential: numpyro.infer.HMC(potential_fn=potential, step_size=0.1)`.

    Raises:
      InvalidArgument: a latent is discrete, or has no fixed bijection.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from numpyro.infer import HMC
    >>> from ppl import Target, gen, sample
    >>> from semantics import numpyro_kernel
    >>> target = Target(gen(lambda: sample("x", dist.Exponential(1.0))))
    >>> still = lambda potential: HMC(potential_fn=potential, step_size=0.0)
    >>> print(numpyro_kernel(still, target).step(jax.random.key(0), {"x": jnp.ones(())})["x"])
    1.0
    """
    kernel = build(target.potential)

    def step(key: jax.Array, latents: Latents) -> Latents:
        start = target.unconstrain(latents)
        state = kernel.init(key, 0, start, model_args=(), model_kwargs={})
        state = kernel.sample(state, (), {})
        return target.constrain(getattr(state, kernel.sample_field))[0]

    return Opaque(step)


def check_kernel_sampled(
    make_kernel: Callable[[Target], Any],
    target: Target,
    key: jax.Array,
    *,
    alpha: float = 1e-8,
    sizes: Sequence[int] = (200, 2000, 20000),
    steps: int = 1,
    reversible: bool = False,
    statistics: Statistics | None = None,
) -> Verdict:
    """(K(x), y) has the law of (x, y) drawn from the model, for the kernel K that is given y.

    Latents x and data y are drawn from the model, at the observed addresses of `target`; its own
    observations are not used. A false alarm has probability at most `alpha`, by Ville's
    inequality, over all stages. Without randomness it is also checked that the new trace's score
    is the density of its choices and that observations stay (of kernels between traces), and
    that the kernel is a pure function of state and key (of opaque ones; see `check_pure_kernel`).

    A pass is no proof, and says nothing about convergence: the kernel that stays put passes.

    Args:
      make_kernel: from a target to a random program from traces to traces, or to an `Opaque`.
      key: one PRNG key. Another key is another look: its alpha adds to the first's.
      sizes: chains of one start each, at each stage; a clear error stops at the first.
      steps: how often the kernel is applied to each start: once shows the least of a bias.
      reversible: also that (x, K(x)) has the law of (K(x), x).
      statistics: from latents and data to a tree of numbers. Without it: the first scalars of
        the latents, their products with those of the data, and their distances from a center
        and the products of these, which see variances and correlations. The joint log density
        log p(x, y) is always among them, since statistics of the latents alone are blind to a
        kernel that ignores the data.

    `error` and `threshold` are log e and log 1/alpha, `n` the number of starts. Of a statistic f,
    a departure of P(f(K(x), y) > f(x', y')), x' and y' a fresh draw, from its null value 1/2 by
    `effect` is seen with probability 0.99.

    Raises:
      CannotSimulate: the model scores with `factor` or `observe`, so that it has no joint draws.
      InvalidArgument: part of an array is observed, or `alpha`, `sizes` or `steps` are no such.
      InvalidKey: `key` is not one PRNG key.

    Source: Geweke, Getting it right (JASA 2004); Talts et al., Validating Bayesian inference
    algorithms with simulation-based calibration (2018).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh
    >>> from ppl import Target, gen, sample, seed
    >>> from semantics import Opaque, check_kernel_sampled
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 0.5))
    >>> target = Target(model, (), {"y": 1.0})
    >>> check = lambda make: check_kernel_sampled(make, target, jax.random.key(0), sizes=(200, 800))
    >>> bool(check(lambda t: mh(t, "mu")))
    True
    >>> prior = lambda t: Opaque(lambda key, latents: {"mu": jax.random.normal(key)})
    >>> bool(check(prior))
    False
    """
    _check_arguments(target, alpha, sizes, steps)
    key = checked_key(key)
    if isinstance(make_kernel(target), Opaque):
        pure = check_pure_kernel(make_kernel, target, jax.random.fold_in(key, len(sizes)))
        if not pure:
            return pure
    how = make_kernel, statistics, steps, target

    def sample(stage: int, size: int) -> _Flow:
        keys = jax.random.split(jax.random.fold_in(key, stage), (-(-size // BATCH), BATCH))
        found = [jax.tree.map(np.asarray, _flows(*how, some)) for some in keys]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *found)

    log_e, witness = partial(_log_e, reversible), partial(_witness, reversible)
    found = stages(sample, log_e, alpha, sizes, witness=witness)
    # each statistic has two e-values in each comparison, of which the mean is taken
    columns = len(_flows.eval_shape(*how, jax.random.split(key, BATCH)).after)
    radius = multinomial_effect(found.n, alpha / (columns * (4 if reversible else 2)), [0.5, 0.5])
    return Verdict(
        "invariant and reversible" if reversible else "invariant", not found.rejected, "e-value",
        found.log_e, -math.log(alpha), found.n, effect=math.sqrt(radius / 2),
        witness=found.witness or "",
    )  # fmt: skip


def check_pure_kernel(
    make_kernel: Callable[[Target], Any], target: Target, key: jax.Array, *, n: int = 32
) -> Verdict:
    """Same state and key, same result, bit by bit: nothing is remembered between two calls.

    One kernel is traced and run twice on n states that the model draws. So adaptation that goes
    on while sampling, counters, and keys from elsewhere are seen, unless a `jax.jit` of the
    kernel's own keeps the first trace. A random program is staged anew for each run, where
    `seed` of it would remember. `error` is the share of states with two results.

    Raises:
      InvalidKey: `key` is not one PRNG key.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> from semantics import Opaque, check_pure_kernel
    >>> calls = []
    >>> def adapting(target):
    ...     def step(key, latents):
    ...         calls.append(None)
    ...         return {"x": latents["x"] + len(calls)}
    ...     return Opaque(step)
    >>> target = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0))))
    >>> print(check_pure_kernel(adapting, target, jax.random.key(0)).witness)
    the same state and key give two results at 32 of 32 states
    """
    first, second = jax.random.split(checked_key(key))
    generate = jax.jit(jax.vmap(seed(lambda: target.generate()[0])), compiler_options=QUICK)
    traces = generate(jax.random.split(first, n))
    kernel, keys = make_kernel(target), jax.random.split(second, n)

    def run() -> list[np.ndarray]:
        anew = kernel if isinstance(kernel, Opaque) else lambda trace: kernel(trace)
        step = jax.vmap(lambda key, trace: _apply(anew, target, key, trace))
        new = jax.jit(step, compiler_options=QUICK)(keys, traces)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(new)]

    differ = np.zeros(n, bool)
    for a, b in zip(run(), run(), strict=True):
        same = (a == b) | ((a != a) & (b != b))
        differ |= ~same.reshape(n, -1).all(1)
    error = float(differ.mean())
    witness = f"the same state and key give two results at {differ.sum()} of {n} states"
    passed = error == 0
    return Verdict("pure", passed, "identity", error, 0.0, n, witness="" if passed else witness)


# -- running the kernel --------------------------------------------------------------------


class _Flow(NamedTuple):
    """Statistics by name: of a fresh draw of the model, and before and after the kernel; and
    the largest relative departure of the new trace from its choices and data."""

    fresh: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    stale: Any


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=QUICK)
def _flows(
    make_kernel: Callable, statistics: Statistics | None, steps: int, target: Target, keys: Any
) -> _Flow:
    """One flow for each key."""
    return jax.vmap(partial(_flow, make_kernel, statistics, steps, target))(keys)


def _flow(
    make_kernel: Callable, statistics: Statistics | None, steps: int, target: Target, key: jax.Array
) -> _Flow:
    # one program for both draws, and one for all statistics, compile faster than several
    first, second = jax.random.split(key)
    simulate = seed(lambda: target.model.simulate(*target.args))
    many = jax.vmap(simulate)(jax.random.split(first, 2 + CENTER))
    both = jax.tree.map(lambda leaf: leaf[:2], many)
    center = jax.tree.map(lambda leaf: leaf[2:], target.choices(many))
    start = jax.tree.map(lambda leaf: leaf[0], both)
    data = _data(target, start)
    given = Target(target.model, target.args, data)
    kernel, moved = make_kernel(given), start
    if isinstance(kernel, Opaque):
        moved = given.choices(start)
    moved, _ = jax.lax.scan(
        lambda state, key: (_apply(kernel, given, key, state), None),
        moved,
        jax.random.split(second, steps),
    )
    latents, fault = moved, jnp.zeros(())
    if not isinstance(kernel, Opaque):
        latents = given.choices(moved)
        fault = stale(given, moved) / (1 + jnp.abs(moved.score))
    drawn = target.choices(both), _data(target, both)
    seen = jax.tree.map(lambda two, new: jnp.concatenate([two, new[None]]), drawn, (latents, data))
    found = jax.vmap(partial(statistics_of, target, statistics, center))(*seen)
    before, fresh, after = ({name: x[i] for name, x in found.items()} for i in range(3))
    return _Flow(fresh, before, after, fault)


def _apply(kernel: Any, target: Target, key: jax.Array, state: Any) -> Any:
    """The kernel at a trace, or an opaque one at latents (or at those of a trace)."""
    if not isinstance(kernel, Opaque):
        return seed(kernel)(key, state)
    latents = target.choices(state) if isinstance(state, Trace) else state
    new = kernel.step(key, latents)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (new, latents)]
    if shapes[0] != shapes[1]:
        raise errors.InvalidArgument(
            "An opaque kernel returns other latents than it was given.",
            where=errors.defined(kernel.step), given=shapes[0], expected=shapes[1],
            fix="return a dict with the same addresses and shapes",
        )  # fmt: skip
    return jax.tree.map(lambda old, value: jnp.asarray(value, old.dtype), latents, new)


def _data(target: Target, trace: Trace) -> dict[str, Any]:
    """What a trace has at the target's observed addresses."""
    return nest({path: trace[path] for path in target.observed})


# -- judging -------------------------------------------------------------------------------


def _each(reversible: bool, flow: _Flow) -> dict[str, float]:
    """The log e-value of every statistic; infinite for what an invariant kernel never does."""
    found = {}
    for name, after in flow.after.items():
        if np.isnan(after).any():
            found[name] = math.inf
            continue
        values = [two_sample(flow.fresh[name], after)]
        if reversible:
            values.append(exchangeable(flow.before[name], after))
        found[name] = float(combine(values))
    return found


def _log_e(reversible: bool, flow: _Flow) -> float:
    if _too_stale(flow):
        return math.inf
    return float(combine(list(_each(reversible, flow).values())))


def _too_stale(flow: _Flow) -> bool:
    # sums of n terms have relative rounding errors of about n eps, far below sqrt(eps)
    return not np.max(flow.stale) <= math.sqrt(np.finfo(flow.stale.dtype).eps)


def _witness(reversible: bool, flow: _Flow) -> str:
    for name, after in flow.after.items():
        if missing := int(np.isnan(after).sum()):
            return f"{name}: NaN after the kernel at {missing} of {len(after)} starts"
    if _too_stale(flow):
        return "the kernel's trace has another score than its choices, or other observations"
    log_es = _each(reversible, flow)
    worst = max(log_es, key=lambda name: log_es[name])
    after, fresh = flow.after[worst], flow.fresh[worst]
    return f"{worst}: mean {after.mean():.3g} after the kernel, {fresh.mean():.3g} of fresh draws"


def _check_arguments(target: Any, alpha: float, sizes: Sequence[int], steps: int) -> None:
    if not isinstance(target, Target):
        given, expected = repr(target), "Target(model, args, observations)"
        fix = "name the data by observing them, at any values"
    elif any(isinstance(value, Masked) for value in target.observed.values()):
        given, expected, fix = "a Masked observation", "whole arrays", "observe the whole array"
    elif not (0 < alpha < 1 and len(sizes) and min(sizes) >= 1 and steps >= 1):
        given = f"alpha {alpha}, sizes {tuple(sizes)}, steps {steps}"
        expected, fix = "0 < alpha < 1, positive sizes and steps", "leave them out"
    else:
        return
    raise errors.InvalidArgument(
        "A sampled check cannot be made of these arguments.", where=errors.caller(),
        given=given, expected=expected, fix=fix,
    )  # fmt: skip
