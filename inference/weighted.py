"""`Weighted` values denote measures; steps map them to one another.

A `Weighted(value, log_weight)` denotes the measure <<s>>(f) = E[mean_i e^(w_i) f(x_i)],
over its leading particle axis if it has one. A *step* is a random program from
`Weighted` to `Weighted`; it is proper from g to g' when <<s>> = g implies
<<step(s)>> = g' (Ścibior et al., POPL 2018). Everything here keeps that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Target, draw, errors

from .validation.objects import check_callable, check_step, check_target
from .validation.settings import check_count, shown


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Weighted:
    """<<s>>(f) = E[mean_i e^(w_i) f(x_i)]: a value, or particles, with log weights.

    Attributes:
      value: any pytree; with particles, each leaf has the particle axis in front.
      log_weight: unnormalised, of shape (), or (n,) for n particles.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted
    >>> s = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 3.0])))
    >>> weights = jnp.exp(s.log_weight)
    >>> print(f"{weights.mean():.2f} {(weights * s.value).mean():.2f}")  # <<s>>(1), <<s>>(x)
    2.00 35.00
    """

    value: Any
    log_weight: jax.Array


Step = Callable[[Weighted], Weighted]


def unit() -> Weighted:
    """The unit measure on the one-point space: where every algorithm starts.

    >>> from inference import unit
    >>> unit().value, float(unit().log_weight)
    ((), 0.0)
    """
    return Weighted((), jnp.zeros((), float))


def then(*steps: Step) -> Step:
    """Composition, left to right; `then()` is the identity. Proper if each step is.

    >>> from inference import Weighted, then, unit
    >>> add = lambda s: Weighted(s.value + (1,), s.log_weight + 1.0)
    >>> bool(then()(unit()) == unit()), then(add, add)(unit()).value
    (True, (1, 1))
    >>> float(then(add, then(add, add))(unit()).log_weight)
    3.0
    """
    for step in steps:
        check_step(step)
    return Then(steps)


@dataclass(frozen=True, eq=False)
class Then:
    """Steps in order, as `then` composes them: a step whose parts can be looked at."""

    steps: tuple[Step, ...]

    def __call__(self, weighted: Weighted) -> Weighted:
        for step in self.steps:
            weighted = step(weighted)
        return weighted


def each(step: Step) -> Step:
    """`step` on every particle, independently. Proper from g to g' if `step` is.

    The step's draws are independent between the particles: `jax.vmap` of a `draw` is
    as many draws.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Weighted, each, spawn, then, unit
    >>> from ppl import draw, law
    >>> toss = lambda s: Weighted(draw(dist.Bernoulli(0.5)), s.log_weight)
    >>> both = law(lambda: then(spawn(2), each(toss))(unit()).value)()
    >>> both.values.tolist(), both.masses.tolist()
    ([[0, 0], [0, 1], [1, 0], [1, 1]], [0.25, 0.25, 0.25, 0.25])
    """
    check_step(step)
    return Each(step)


@dataclass(frozen=True, eq=False)
class Each:
    """A step on every particle, as `each` makes them: it makes none depend on another."""

    step: Step

    def __call__(self, weighted: Weighted) -> Weighted:
        return jax.vmap(self.step)(weighted)


def lift(kernel: Callable[[Any], Any]) -> Step:
    """A kernel that leaves g invariant, as a proper step from g to g (weight kept).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import lift, mh, start, then, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> def mass(step):  # <<step(unit)>> of "the coin is fair"
    ...     s = step(unit())
    ...     return jnp.exp(s.log_weight) * s.value["fair"]
    >>> moved = then(start(target), lift(mh(target, "fair")))
    >>> print(f"{integrate(mass)(start(target)):.4f} {integrate(mass)(moved):.4f}")
    0.2500 0.2500
    """
    check_callable(
        "The kernel", kernel, "a kernel: a program from a value to a value", "mh(target, 'x')"
    )
    return lambda weighted: Weighted(kernel(weighted.value), weighted.log_weight)


def start(target: Target) -> Step:
    """From the unit measure to `target`: latents from the model, weighted by the rest.

    The value is a trace of the target's model; E[e^w] is the evidence.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import start, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> evidence = integrate(lambda: jnp.exp(start(target)(unit()).log_weight))()
    >>> print(f"{evidence:.4f}")  # (0.5 + 0.75) / 2
    0.6250
    """

    check_target(target)

    def begin(weighted: Weighted) -> Weighted:
        trace, log_weight = target.generate()
        return Weighted(trace, weighted.log_weight + log_weight)

    return begin


def spawn(n: int) -> Step:
    """`n` copies of one weighted value, as particles; the measure stays the same.

    Every leaf gets a particle axis of size `n` in front.

    Raises:
      InvalidArgument: `n` is no int, or less than 1.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, log_evidence, spawn
    >>> s = spawn(3)(Weighted(jnp.array(7.0), jnp.array(0.5)))
    >>> s.value.tolist(), s.log_weight.tolist(), f"{log_evidence(s):.4f}"
    ([7.0, 7.0, 7.0], [0.5, 0.5, 0.5], '0.5000')
    """
    check_count("n", n)
    return Spawn(n)


@dataclass(frozen=True)
class Spawn:
    """Copies of one weighted value, as `spawn` makes them."""

    n: int

    def __call__(self, weighted: Weighted) -> Weighted:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.n, *jnp.shape(x))), weighted)


def importance(target: Target, n: int) -> Step:
    """`n` independent weighted draws: `then(spawn(n), each(start(target)))`.

    The mean of the weights is an unbiased estimate of the evidence.

    Raises:
      InvalidArgument: `n` is less than 1.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import importance, log_evidence, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> estimate = lambda: jnp.exp(log_evidence(importance(target, 3)(unit())))
    >>> print(f"{integrate(estimate)():.4f}")  # its expectation, exactly
    0.6250
    """
    return then(spawn(n), each(start(target)))


def log_evidence(weighted: Weighted) -> jax.Array:
    """log of the total mass: an unbiased estimate on the natural scale.

    Returns a scalar, the log of the mean weight; -inf when all weights are zero.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, log_evidence
    >>> s = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 3.0])))
    >>> print(f"{jnp.exp(log_evidence(s)):.4f}")
    2.0000
    """
    check_weighted(weighted)
    w = weighted.log_weight
    if w.ndim == 0:
        return w
    # the mean of what is left of the largest: equal weights are their own mean, unrounded
    top = jax.lax.stop_gradient(jnp.max(w))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.log(jnp.mean(jnp.exp(w - top))) + top


def normalized(log_weights: jax.Array) -> jax.Array:
    """Weights that add up to one; uniform when all are zero (the evidence stays zero).

    Raises:
      ShapeError: there is no particle axis.
    """
    check_log_weights(log_weights)
    if jnp.ndim(log_weights) != 1:
        raise errors.ShapeError(
            "A population of particles was expected.",
            where=errors.caller(),
            given=f"log weights of shape {jnp.shape(log_weights)}",
            expected="log weights of shape (n,)",
            fix="spawn(n) makes particles: then(spawn(100), each(start(target)), resample)",
        )
    top = jnp.max(log_weights)
    shifted = jnp.exp(log_weights - jnp.where(jnp.isfinite(top), top, 0.0))
    total = shifted.sum()
    n = log_weights.shape[0]
    return jnp.where(total > 0, shifted / jnp.where(total > 0, total, 1), 1 / n)


def collapse(weighted: Weighted) -> Weighted:
    """One particle, chosen by weight, carrying the mean weight; the measure stays the same.

    Takes a `Weighted` of particles; the result has no particle axis.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, collapse
    >>> from ppl import integrate
    >>> s = Weighted(jnp.array([10.0, 20.0]), jnp.log(jnp.array([1.0, 3.0])))
    >>> def mean():
    ...     one = collapse(s)
    ...     return jnp.exp(one.log_weight) * one.value
    >>> print(f"{integrate(mean)():.2f}")  # (1 * 10 + 3 * 20) / 2, as before
    35.00
    """
    check_weighted(weighted)
    i = draw(dist.Categorical(normalized(weighted.log_weight)))
    return Weighted(jax.tree.map(lambda x: x[i], weighted.value), log_evidence(weighted))


def check_weighted(weighted: Any) -> None:
    """Raise `InvalidArgument` unless `weighted` is a `Weighted`.

    >>> from inference.weighted import check_weighted
    >>> try:
    ...     check_weighted(1.0)
    ... except ValueError as error:
    ...     print(error.what)
    A weighted value was expected.
    """
    if not isinstance(weighted, Weighted):
        raise errors.InvalidArgument(
            "A weighted value was expected.", where=errors.caller(), given=shown(weighted),
            expected="Weighted(value, log_weight), what a step gives",
            fix="step(unit()); of a filter, filtered.particles",
        )  # fmt: skip


def check_log_weights(log_weights: Any) -> None:
    """Raise `InvalidArgument` unless `log_weights` is an array of floats."""
    known = isinstance(log_weights, (jax.Array, np.ndarray))
    if not known or not jnp.issubdtype(log_weights.dtype, jnp.floating):
        raise errors.InvalidArgument(
            "Log weights are an array of floats.", where=errors.caller(), given=shown(log_weights),
            expected="log weights of shape (n,)", fix="weighted.log_weight",
        )  # fmt: skip
