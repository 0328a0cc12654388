"""Kernels from kernels: one after the other, one of several, one many times.

Each keeps a target that its parts keep. Parts may be functions `trace -> trace` or
`Kernel`s; the result is a `Kernel` whose parameters, statistics and tuning are those
of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Selection, Target, Trace, draw, errors

from .kernel import Kernel, State, Stats, Tuning, as_kernel
from .move import accepted
from .recipe import Recipe, made_again, of_parts
from .validation.objects import check_target
from .validation.same import check_same
from .validation.settings import as_numbers, check_count, shown


@made_again
def mh(target: Target, selection: Selection | str | tuple[str, ...]) -> Kernel:
    """Metropolis-Hastings that redraws the selected latents from the model.

    Leaves `target` invariant: the ratio is `regenerate`'s weight (Hastings 1970).

    Raises:
      AddressNotFound: the selection names no choice of the model.
      InvalidArgument: the selection names an observed choice.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, start, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> def fair_after(kernel):  # start at the target, make a step
    ...     s = start(target)(unit())
    ...     return jnp.exp(s.log_weight) * kernel(s.value)["fair"]
    >>> mass = integrate(fair_after)(mh(target, "fair"))
    >>> print(f"{mass:.4f}")  # p(fair, heads) = 1/2 * 1/2, as before the step
    0.2500
    """
    check_target(target)
    chosen = target.selection(selection)

    def step(_: Any, trace: Trace) -> tuple[Trace, Stats]:
        changed, log_ratio, _discarded = target.regenerate(trace, chosen)
        trace, probability = accepted(trace, changed, log_ratio)
        return trace, {"accept": probability}

    return Kernel(f"mh {chosen!r}", step, target=target)


def cycle(*kernels: Callable[[Any], Any]) -> Kernel:
    """The kernels one after the other. Invariant if each is; `cycle()` stays put.

    >>> import numpyro.distributions as dist
    >>> from inference import cycle
    >>> from ppl import draw, law
    >>> up = lambda x: x + draw(dist.Bernoulli(0.5))
    >>> law(cycle(up, up))(0).masses.tolist()
    [0.25, 0.5, 0.25]
    """
    parts = [as_kernel(k) for k in kernels]
    names = _names(parts)

    def step(parameters: tuple, trace: Any) -> tuple[Any, Stats]:
        stats: Stats = {}
        for name, part, own in zip(names, parts, parameters, strict=True):
            state, mine = part.step(own, part.enter(trace))
            trace = part.leave(state)
            stats.update(_under(name, mine))
        return trace, stats

    recipe = of_parts(cycle, parts, lambda again: cycle(*again))
    return _composite("cycle", parts, names, step).of_recipe(recipe)


def mixture(kernels: Sequence[Callable[[Any], Any]], weights: Any = None) -> Kernel:
    """One of the kernels, chosen with fixed `weights`. Invariant if each is.

    Statistics of the kernels that were not chosen are NaN, or the zero of their dtype;
    `taken` is the number of the one that was.

    Args:
      weights: probabilities, of shape (number of kernels,); all the same if left out.
        They may not depend on the state (see `choose` for those that do).

    Raises:
      InvalidArgument: there is no kernel.
      InvalidDistribution: raised at the first run, when the weights do not add up to one.

    >>> from inference import mixture
    >>> from ppl import law
    >>> moves = mixture([lambda x: x, lambda x: x + 1], [0.25, 0.75])
    >>> law(moves)(5).values.tolist(), law(moves)(5).masses.tolist()
    ([5, 6], [0.25, 0.75])
    """
    if not isinstance(kernels, Sequence) or isinstance(kernels, str) or not kernels:
        raise errors.InvalidArgument(
            "A mixture needs at least one kernel.", where=errors.caller(), given=shown(kernels),
            expected="a sequence of kernels", fix="mixture([kernel, other])",
        )  # fmt: skip
    parts = [as_kernel(k) for k in kernels]
    names = _names(parts)
    n = len(parts)
    weights = jnp.full(n, 1.0 / n) if weights is None else _weights(weights, n)

    def step(parameters: tuple, trace: Any) -> tuple[Any, Stats]:
        i = draw(dist.Categorical(weights))
        blanks = [_blank(*each, trace) for each in zip(parts, parameters, strict=True)]

        def branch(j: int) -> Callable:
            def taken(own: Any, trace: Any) -> tuple[Any, Stats]:
                state, stats = parts[j].step(own[j], parts[j].enter(trace))
                each = [stats if j == other else blank for other, blank in enumerate(blanks)]
                named = [_under(*pair) for pair in zip(names, each, strict=True)]
                return parts[j].leave(state), {k: v for some in named for k, v in some.items()}

            return taken

        trace, stats = jax.lax.switch(i, [branch(j) for j in range(n)], parameters, trace)
        return trace, {**stats, "taken": i}

    known = not isinstance(weights, jax.core.Tracer)
    shares = tuple(np.asarray(weights).tolist()) if known else None
    again = lambda made: mixture(made, weights)  # noqa: E731
    recipe = of_parts((mixture, shares), parts, again) if known else None
    return _composite("mixture", parts, names, step).of_recipe(recipe)


def _weights(weights: Any, n: int) -> jax.Array:
    """Probabilities of n kernels; whether they add up to one, the first draw says.

    Raises:
      InvalidArgument: they are not n numbers from 0 on.
    """
    if isinstance(weights, jax.core.Tracer):
        return weights
    given = as_numbers(weights)
    if given.shape != (n,) or not (given >= 0).all():  # nor not-a-number
        raise errors.InvalidArgument(
            "The weights of a mixture are probabilities, one for each kernel.",
            where=errors.caller(), given=shown(weights), expected=f"{n} numbers, 0 or more",
            fix="leave them out: all kernels are as probable",
        )  # fmt: skip
    return jnp.asarray(weights)


def iterate(kernel: Callable[[Any], Any], n: int) -> Kernel:
    """`n` applications of `kernel`, by `lax.scan`. Invariant if it is.

    `n` is a Python int; the state keeps its shapes and dtypes. Statistics are averages
    (of numbers) and "any" (of flags) over the applications; tuning sees those.

    >>> import numpyro.distributions as dist
    >>> from inference import iterate
    >>> from ppl import draw, law
    >>> up = lambda x: x + draw(dist.Bernoulli(0.5))
    >>> law(iterate(up, 3))(0).masses.round(4).tolist()
    [0.125, 0.375, 0.375, 0.125]
    """
    part = as_kernel(kernel)
    check_count("n", n, least=0)

    def step(parameters: Any, state: State) -> tuple[State, Stats]:
        def one(state: State, _: None) -> tuple[State, Stats]:
            return part.step(parameters, state)

        state, stats = jax.lax.scan(one, state, None, length=n)
        return state, _summed(stats)

    whole = Kernel(
        name=part.name,
        step=step,
        parameters=part.parameters,
        tuning=part.tuning,
        enter=part.enter,
        leave=part.leave,
        read=part.read,
        valid=part.valid,
        members=part.members,
        draws=part.draws,
        target=part.target,
        describe=part.named,
    )
    if part.recipe is None:
        return whole
    recipe = part.recipe
    make = lambda target, parameters: iterate(recipe.make(target, parameters), n)  # noqa: E731
    return whole.of_recipe(Recipe((iterate, n, recipe), make, tunable=False))


def _composite(name: str, parts: list[Kernel], names: list[str], step: Callable) -> Kernel:
    """A kernel on traces whose parameters and tuning are tuples of the parts'.

    A part that was not taken (see `mixture`) does not tune.
    """
    kinds = {(part.members, part.draws) for part in parts}
    if len(kinds) > 1:
        shown = "; ".join(f"{part.name}: {part.members or 'one trace'}" for part in parts)
        raise errors.InvalidArgument(
            f"The parts of a {name} work on populations of different sizes.",
            where=errors.caller(),
            given=shown,
            expected="kernels on single traces, or on populations of one size",
            fix="use kernels of one kind",
        )

    def init(trace: Any, n: int) -> tuple:
        return tuple(part.warm().init(part.enter(trace), n) for part in parts)

    def each(method: str) -> Callable[[tuple], tuple]:
        def apply(tuning: tuple) -> tuple:
            pairs = zip(parts, tuning, strict=True)
            return tuple(getattr(part.warm(), method)(own) for part, own in pairs)

        return apply

    def update(tuning: tuple, trace: Any, stats: Stats) -> tuple:
        updated = []
        for i, (name, part, own) in enumerate(zip(names, parts, tuning, strict=True)):
            prefix = name + "/"
            mine = {k.removeprefix(prefix): v for k, v in stats.items() if k.startswith(prefix)}
            new = part.warm().update(own, part.enter(trace), mine) if part.tuning else own
            if "taken" in stats and part.tuning:
                new = jax.tree.map(lambda a, b, i=i: jnp.where(stats["taken"] == i, a, b), new, own)
            updated.append(new)
        return tuple(updated)

    def valid(trace: Any) -> Any:
        checked = [part.valid(part.enter(trace)) for part in parts if part.valid is not None]
        return jnp.all(jnp.array(checked, bool))

    def schedule(n: int) -> dict[str, Any]:
        each = [part.tuning.schedule if part.tuning else None for part in parts]
        told = [_under(k, tell(n)) for k, tell in zip(names, each, strict=True) if tell]
        return {k: v for some in told for k, v in some.items()}

    def describe(parameters: tuple) -> dict[str, Any]:
        each = zip(names, parts, parameters, strict=True)
        told = [_under(name, part.named(own)) for name, part, own in each]
        return {k: v for some in told for k, v in some.items()}

    tunes = any(part.tuning is not None for part in parts)
    tuning = Tuning(init, each("parameters"), update, each("freeze"), schedule)
    members, draws = kinds.pop() if kinds else (None, None)
    return Kernel(
        name=name,
        step=step,
        parameters=tuple(part.parameters for part in parts),
        tuning=tuning if tunes else None,
        valid=valid,
        members=members,
        draws=draws,
        target=_common(name, parts),
        describe=describe,
    )


def _common(name: str, parts: list[Kernel]) -> Target | None:
    """The target of all parts that say theirs; None if none does.

    Raises:
      InvalidArgument: two are of different targets, neither of which the whole would keep.
    """
    told = [part for part in parts if part.target is not None]
    for part in told[1:]:
        first = told[0].target
        assert first is not None
        due = f"that of {told[0].name}, another part of the {name}"
        fix = "make all parts of one target"
        check_same(f"The kernel {part.name}", part.target, first, due, fix)
    return told[0].target if told else None


def _names(parts: list[Kernel]) -> list[str]:
    """A name for each part; those of the same name are numbered."""
    seen: dict[str, int] = {}
    names = []
    for part in parts:
        seen[part.name] = seen.get(part.name, 0) + 1
        names.append(part.name if seen[part.name] == 1 else f"{part.name} {seen[part.name]}")
    return names


def _under(name: str, stats: Stats) -> Stats:
    return {f"{name}/{key}": value for key, value in stats.items()}


def _blank(part: Kernel, own: Any, trace: Any) -> Stats:
    """Statistics of a step that was not made."""
    shapes = jax.eval_shape(lambda o, t: part.step(o, part.enter(t))[1], own, trace)
    return {name: jnp.full(x.shape, _nothing(x.dtype), x.dtype) for name, x in shapes.items()}


def _nothing(dtype: Any) -> Any:
    return jnp.nan if jnp.issubdtype(dtype, jnp.inexact) else 0


def _summed(stats: Stats) -> Stats:
    """Over the leading axis: whether any, or the average."""
    return {name: x.any(0) if x.dtype == jnp.bool_ else jnp.mean(x, 0) for name, x in stats.items()}
