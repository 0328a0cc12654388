"""Parallel tempering: one chain on each power of the likelihood, and swaps between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import Target, Trace, draw, errors
from ppl.arguments import Arguments

from ..kernel import Kernel, Stats, Tuning, check_maker, kernel_for
from ..targets.temper import OF, heat, tempered_model
from ..validation.objects import check_target
from ..validation.settings import as_numbers, check_count, check_flag, check_option


class Ladder(NamedTuple):
    """The state: a trace of the target at each temperature, stacked, the coldest first.

    `heats` (n,) are what the powers act on, log p(observations | latents) for the likelihood;
    `swaps` (n - 1,) the probabilities of the last swaps, `stats` the last statistics of each
    temperature's kernel.
    """

    traces: Trace
    heats: jax.Array
    swaps: jax.Array
    stats: Any


class _Found(NamedTuple):
    """The state of a warm-up."""

    time: jax.Array
    ends: jax.Array  # the steps after which the ladder is made anew
    powers: jax.Array
    accepted: jax.Array  # sums of swap probabilities since then
    count: jax.Array
    inner: Any


def parallel_tempering(
    target: Target,
    make_kernel: Callable[[Target], Callable[[Any], Any]],
    powers: int | Sequence[float] = 8,
    *,
    of: str = "likelihood",
    adapt: bool = True,
) -> Kernel:
    """Chains on `temper(target, power)` for each power, and swaps of neighbours.

    Leaves invariant the product of the tempered targets, of which the first is `target`
    itself: states of powers b and b' are exchanged with probability
    min(1, exp((b - b') (l' - l))), l being the log likelihood (Geyer 1991; Swendsen and Wang
    1986). All pairs (0, 1), (2, 3), ... are tried at once, then (1, 2), (3, 4), ...

    A kernel on `n` stacked traces of `target`, the first of which alone is a draw. Every
    temperature runs the kernel of its own target, with parameters and tuning of its own, all
    of them in one `vmap`.

    In the first half of a warm-up the powers between the ends move, in rounds of doubling
    length, to where all swaps are refused alike often: at even parts of the communication
    barrier (Syed et al. 2022, sections 4 and 5). After that they are fixed, and the kernels
    go on tuning.

    Statistics: `swap`, the mean probability of a swap; those of the first chain's kernel.

    Args:
      make_kernel: from a tempered `Target` to a kernel that leaves it invariant. Its
        random program is traced once for all temperatures.
      powers: decreasing from 1; the last may be 0 (the prior) for the likelihood. An int n
        takes the powers ((n - 1 - i) / (n - 1))^3.
      of: "likelihood": prior times likelihood^power; "everything": joint density^power.
      adapt: whether the powers move in a warm-up.

    Raises:
      InvalidArgument: the powers are none that decrease from 1; there is nothing to temper;
        the model draws without addresses, so that a power of its density is not known; or
        `make_kernel` makes kernels on populations.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Draws, mh, sample_posterior
    >>> from inference.mcmc.tempering import parallel_tempering
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def valley():  # two narrow modes, at -3 and 3
    ...     x = sample("x", dist.Normal(0.0, 3.0))
    ...     sample("y", dist.Normal(jnp.abs(x), 0.1))
    >>> target = Target(valley, (), {"y": 3.0})
    >>> kernel = parallel_tempering(target, lambda t: mh(t, "x"), (1.0, 0.3, 0.1, 0.03, 0.0))
    >>> draws = sample_posterior(jax.random.key(0), target, kernel, draws=2000)
    >>> up = Draws({"up": draws["x"] > 0}).summary()["up"]  # both modes, alike
    >>> bool(abs(up["mean"] - 0.5) < 5 * up["mcse_mean"])
    True
    """
    check_target(target)
    check_option("of", of, OF)
    check_flag("adapt", adapt)
    check_maker(make_kernel)
    start = _powers(powers, of)
    n = len(start)
    model = tempered_model(target, of)

    def inner(power: Any) -> Kernel:
        tempered = Target(model, (power, *target.args), target.observations)
        return kernel_for(tempered, make_kernel)

    first = inner(start[0])
    if first.members is not None:
        raise errors.InvalidArgument(
            "Tempering needs a kernel on single traces.", where=errors.caller(),
            given=f"{first.name}, on populations of {first.members}",
            expected="a kernel on one trace", fix="temper an hmc, mh, or gibbs kernel",
        )  # fmt: skip

    def hot(power: Any, trace: Trace, heat: Any) -> Trace:
        """A trace of the target as one of the tempered target."""
        arguments = Arguments.of((power, *target.args), {}, model.fixed)
        score = trace.score + (power - 1) * heat
        return replace(trace, model=model, arguments=arguments, score=score)

    def one(power: Any, own: Any, trace: Trace, level: Any) -> tuple[Trace, Any, Stats]:
        kernel = inner(power)
        state, stats = kernel.step(own, kernel.enter(hot(power, trace, level)))
        new = kernel.leave(state)
        base = replace(new, model=target.model, arguments=trace.arguments)
        if of == "everything":
            level = new.score / power
        else:
            level = heat(target, base, of)
        return replace(base, score=new.score - (power - 1) * level), level, stats

    def states(powers: jax.Array, ladder: Ladder) -> Any:
        """The inner kernels' states, stacked."""
        enter = lambda b, trace, heat: inner(b).enter(hot(b, trace, heat))  # noqa: E731
        return jax.vmap(enter)(powers, ladder.traces, ladder.heats)

    def enter(traces: Trace) -> Ladder:
        heats = jax.vmap(lambda trace: heat(target, trace, of))(traces)
        shapes = jax.eval_shape(jax.vmap(one), *parameters, traces, heats)[2]
        blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Ladder(traces, heats, jnp.zeros(n - 1, heats.dtype), blank)

    def step(now: tuple, ladder: Ladder) -> tuple[Ladder, Stats]:
        powers, own = now
        traces, heats, stats = jax.vmap(one)(powers, own, ladder.traces, ladder.heats)
        swaps = ladder.swaps
        for parity in (0, 1):
            cold = np.arange(parity, n - 1, 2)
            if len(cold):
                order, probability = _swapped(powers, heats, cold)
                swaps = swaps.at[cold].set(probability)
                arguments = traces.arguments  # the same for all
                traces, heats = jax.tree.map(lambda x, o=order: x[o], (traces, heats))
                traces = replace(traces, arguments=arguments)
        coldest = {name: x[0] for name, x in stats.items()}
        return Ladder(traces, heats, swaps, stats), {**coldest, "swap": swaps.mean()}

    def valid(ladder: Ladder) -> jax.Array:
        fine = jnp.isfinite(ladder.heats)
        if first.valid is None:
            return fine
        of_inner = jax.vmap(lambda b, s: inner(b).valid(s))  # type: ignore[misc]
        return fine & of_inner(parameters[0], states(parameters[0], ladder))

    parameters = (start, jax.vmap(lambda b: inner(b).parameters)(start))
    return Kernel(
        name="parallel_tempering",
        step=step,
        parameters=parameters,
        tuning=_tuning(start, first, inner, states, adapt),
        enter=enter,
        leave=lambda ladder: ladder.traces,
        valid=valid,
        members=n,
        draws=1,
        target=target,
    )


def _swapped(powers: jax.Array, heats: jax.Array, cold: np.ndarray) -> tuple[Any, Any]:
    """The order of the states after swaps of `cold` and `cold + 1`, and the probabilities."""
    log_ratio = (powers[cold] - powers[cold + 1]) * (heats[cold + 1] - heats[cold])
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    probability = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_ratio, 0.0)))
    taken = draw(dist.Bernoulli(probability)) == 1
    order = jnp.arange(len(powers))
    order = order.at[cold].set(jnp.where(taken, cold + 1, cold))
    return order.at[cold + 1].set(jnp.where(taken, cold, cold + 1)), probability


def _powers(powers: int | Sequence[float], of: str) -> jax.Array:
    """The powers to start with.

    Raises:
      InvalidArgument: they do not decrease from 1 to 0 or above.
    """
    if isinstance(powers, (jax.Array, np.ndarray, list, tuple)):
        given = as_numbers(powers)
    else:
        check_count("powers", powers, least=2)
        given = np.linspace(1.0, 0.0, int(powers)) ** 3  # type: ignore[arg-type]
    fine = given.ndim == 1 and len(given) >= 2 and given[0] == 1 and (np.diff(given) < 0).all()
    if fine and given[-1] >= 0 and (of != "everything" or given[-1] > 0):
        return jnp.asarray(given, float)
    least = "above 0, since no power 0 of a density can be normalised" if fine else "from 0 on"
    raise errors.InvalidArgument(
        "The powers of a ladder decrease from 1.",
        where=errors.caller(),
        given=repr(powers),
        expected=f"at least two powers, the first 1, the last {least}",
        fix="powers=(1.0, 0.5, 0.25, 0.1)",
    )


# -- the ladder, found during warm-up --------------------------------------------------------


def _tuning(
    start: jax.Array, first: Kernel, inner: Callable, states: Callable, adapt: bool
) -> Tuning | None:
    """Powers with equal swaps, and the tuning of the kernels at each."""
    if not adapt and first.tuning is None:
        return None
    n = len(start)

    def init(ladder: Ladder, steps: int) -> _Found:
        ends, at, length = np.zeros(max(steps, 1), bool), 0, 16
        while adapt and at + length <= steps // 2:
            at, length = at + length, 2 * length
            ends[at - 1] = True
        none = jnp.zeros(n - 1, ladder.swaps.dtype)
        own = jax.vmap(lambda b, state: inner(b).warm().init(state, steps))
        tunings = own(start, states(start, ladder))
        zero = jnp.zeros((), int)
        return _Found(zero, jnp.asarray(ends), start, none, zero, tunings)

    def update(found: _Found, ladder: Ladder, _: Stats) -> _Found:
        accepted, count = found.accepted + ladder.swaps, found.count + 1
        at_end = found.ends[found.time]
        even = even_ladder(found.powers, accepted / count)
        tunings = found.inner
        if first.tuning is not None:
            own = jax.vmap(lambda b, *rest: inner(b).warm().update(*rest))
            tunings = own(found.powers, tunings, states(found.powers, ladder), ladder.stats)
        return _Found(
            time=found.time + 1,
            ends=found.ends,
            powers=jnp.where(at_end, even, found.powers),
            accepted=jnp.where(at_end, 0.0, accepted),
            count=jnp.where(at_end, 0, count),
            inner=tunings,
        )

    def parameters(found: _Found) -> tuple:
        each = jax.vmap(lambda b, tuning: inner(b).warm().parameters(tuning))
        return found.powers, each(found.powers, found.inner)

    def freeze(found: _Found) -> tuple:
        each = jax.vmap(lambda b, tuning: inner(b).warm().freeze(tuning))
        return found.powers, each(found.powers, found.inner)

    return Tuning(init, parameters, update, freeze)


def even_ladder(powers: jax.Array, swaps: jax.Array) -> jax.Array:
    """The powers at even parts of the communication barrier; the ends stay.

    The barrier from the first power to another is the sum of the refusals of the swaps between
    (Syed et al. 2022, equation 21), and linear between two powers.

    Args:
      powers: decreasing, of shape (n,).
      swaps: mean probability of a swap of neighbours, of shape (n - 1,).

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.tempering import even_ladder
    >>> made = even_ladder(jnp.array([1.0, 0.5, 0.0]), jnp.array([0.75, 0.25]))
    >>> print(*(f"{power:.4f}" for power in made))
    1.0000 0.3333 0.0000
    """
    # a swap that is never refused keeps a little of the barrier, so that powers stay apart
    refused = jnp.maximum(1.0 - swaps, 1e-3)
    barrier = jnp.concatenate([jnp.zeros(1, refused.dtype), jnp.cumsum(refused)])
    even = jnp.linspace(0.0, 1.0, len(powers), dtype=barrier.dtype) * barrier[-1]
    made = jnp.interp(even, barrier, powers)
    return made.at[0].set(powers[0]).at[-1].set(powers[-1])
