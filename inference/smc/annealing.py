"""Annealing: from the prior to a target through powers of its likelihood, and back again.

A particle is the latents alone, so that data and arguments are there once however many
particles there are. Two tempered targets differ by a power of the likelihood, which is what a
step between them weighs by: the prior is in neither, and does not cancel in single precision.
Every piece is a proper step (Ścibior et al., POPL 2018), and so is what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors, gen
from ppl.arguments import is_array

from ..kernel import Kernel, check_maker, kernel_for
from ..move import Move, weigh
from ..targets.temper import heat, temper, tempered_model
from ..validation.objects import check_target
from ..validation.settings import as_numbers, check_count, shown
from ..weighted import Step, Weighted, each, lift, spawn, then
from .particles import over, reweight
from .resample import Scheme, check_resampling, when_ess_below
from .schemes import systematic
from .waste_free import check_chains, waste_free

MakeKernel = Callable[[Target], Callable[[Any], Any]]
"""From a tempered target to a kernel that leaves it invariant."""


def retarget(source: Target, target: Target) -> Step:
    """From `source` to `target`, of the same latents: w = log target(x) - log source(x).

    The latents stay; the trace becomes one of `target`. It is the `weigh` of the move that does
    nothing. Proper if `source` is zero only where `target` is.

    Raises:
      InvalidArgument: they have not the same latents.

    Source: Neal, Annealed importance sampling (Statistics and Computing 2001); Del Moral,
    Doucet and Jasra, Sequential Monte Carlo samplers (JRSS B 2006).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import retarget, start, then, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin(bias):
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, bias)))
    >>> mild, strong = (Target(coin, (bias,), {"heads": 1}) for bias in (0.75, 1.0))
    >>> steps = then(start(mild), retarget(mild, strong))
    >>> print(f"{integrate(lambda: jnp.exp(steps(unit()).log_weight))():.4f}")  # (0.5 + 1) / 2
    0.7500
    """
    check_target(source)
    check_target(target)
    for this, other in ((source, target), (target, source)):
        for path in this.latents:
            if path not in other.latents:
                raise errors.InvalidArgument(
                    f"{errors.show(path)} is a latent of one target and not of the other.",
                    where=(f"{errors.show(path)} at {this.sites[path].source}", errors.caller()),
                    given=f"latents of {other.model.name}: "
                    + "; ".join(errors.show(p) for p in other.latents),
                    expected="two targets of the same latents",
                    fix="move across spaces by weigh(Move(...), source, target)",
                )
    return weigh(Move(_nothing, lambda x, u: (x, u)), source, target)


@gen
def _nothing(latents: Any) -> None:
    """The proposal that makes no choice."""


def annealed(
    target: Target,
    n: int,
    kernel: MakeKernel,
    powers: int | Sequence[float] | jax.Array = 16,
    *,
    threshold: float = 0.5,
    scheme: Scheme = systematic,
    chains: int | None = None,
    parameters: Any = None,
) -> Step:
    """From the unit measure to `target` through prior * likelihood^power, by n particles.

    Proper for any powers that do not depend on the particles: the mean of the weights is an
    unbiased estimate of the evidence. At each power the particles are weighed, resampled when
    few of them count, and moved by the kernel. Ends with traces of `target`; under `jit`, what is
    not used of them is not made.

    With `threshold=0` the particles stay independent: annealed importance sampling, the error
    of whose evidence is `log_evidence_error`. With `chains` all the states that the kernel
    passes are particles: `waste_free`.

    Args:
      n: number of particles.
      kernel: from a target to a kernel that leaves it invariant, as
        `lambda t: iterate(mh(t, "x"), 5)`; its program is traced once for all powers.
      powers: increasing to 1, from 0 (the prior) or above. An int k takes the k powers
        (i / (k - 1))^3.
      threshold, scheme: resampling by `when_ess_below(threshold, scheme)`.
      chains: number of chains, a divisor of n. They resample at every power.
      parameters: of the kernel at each power but the first, stacked; its own if left out.

    Raises:
      InvalidArgument: `n` is less than 1, the powers do not increase to 1, there is no
        likelihood, the model draws without addresses, or the kernel is on populations.

    Source: Neal, Annealed importance sampling (Statistics and Computing 2001); Del Moral,
    Doucet and Jasra, Sequential Monte Carlo samplers (JRSS B 2006).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import annealed, log_evidence, mh, multinomial, unit
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> step = annealed(target, 2, lambda t: mh(t, "fair"), (0.0, 0.4, 1.0), scheme=multinomial)
    >>> evidence = integrate(lambda: jnp.exp(log_evidence(step(unit()))))
    >>> print(f"{evidence():.4f}")  # its expectation, exactly
    0.6250
    """
    check_count("n", n)
    check_resampling(threshold, scheme)
    check_chains(n, chains)
    powers = schedule(target, powers)
    check_maker(kernel)
    _check_parameters(parameters, len(powers) - 1)
    again = when_ess_below(threshold, scheme) if threshold else then()

    def stage(row: tuple) -> Step:
        before, power, own = row
        moves = on_latents(target, kernel, power, own)
        if chains is None:
            moved = then(again, each(lift(moves)))
        else:
            moved = waste_free(moves, chains, scheme)
        return then(_raised(target, power - before), moved)

    rows = powers[:-1], powers[1:], parameters
    return then(spawn(n), each(begun(target, powers[0])), over(stage, rows), traces_of(target))


def reverse_annealed(
    target: Target,
    kernel: MakeKernel,
    powers: int | Sequence[float] | jax.Array = 16,
    *,
    parameters: Any = None,
) -> Step:
    """From `target` down to prior * likelihood^powers[0], in the order opposite to `annealed`.

    From an exact draw of the normalised posterior, with weight 0, E[e^w] = 1 / evidence if the
    powers go down to 0 and the likelihood is nowhere zero (else the mass of the prior where it
    is not, over the evidence). So E[-w] is at least the log evidence: a stochastic upper bound,
    beside E[log_evidence(annealed(...)(unit()))], which is a lower one. Latents that were
    simulated together with the data are such a draw.

    Moves one trace, without resampling; `each` moves many. Mean weights of several runs from
    one draw keep the expectation and tighten the bound: `then(spawn(m), each(...))`.

    Args:
      kernel, powers, parameters: as for `annealed`, in increasing order too. The kernels need
        not be reversible.

    Raises:
      InvalidArgument: as for `annealed`.

    Source: Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood using
    bidirectional Monte Carlo (2015).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Weighted, mh, reverse_annealed
    >>> from ppl import Target, draw, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> step = reverse_annealed(target, lambda t: mh(t, "fair"), (0.0, 0.4, 1.0))
    >>> def run():
    ...     trace, _ = target.at({"fair": draw(dist.Bernoulli(0.4))})  # the posterior
    ...     return step(Weighted(trace, jnp.zeros(()))).log_weight
    >>> inverse, upper = integrate(lambda: jnp.exp(run()))(), integrate(lambda: -run())()
    >>> print(f"{1 / inverse:.4f} {jnp.exp(upper):.4f}")  # the evidence, and a bound of it
    0.6250 0.6320
    """
    powers = schedule(target, powers)
    check_maker(kernel)
    _check_parameters(parameters, len(powers) - 1)

    def stage(row: tuple) -> Step:
        before, power, own = row
        moves = on_latents(target, kernel, power, own)
        return then(lift(moves), _raised(target, before - power))

    down = jax.tree.map(lambda x: x[::-1], (powers[:-1], powers[1:], parameters))
    ended = temper(target, powers[0])
    return then(
        lambda s: Weighted(target.choices(s.value), s.log_weight),
        over(stage, down),
        lambda s: Weighted(ended.at(s.value)[0], s.log_weight),
    )


# -- the pieces, on latents ------------------------------------------------------------------


def levels(target: Target, latents: Any) -> jax.Array:
    """log p(observations | latents), what the powers act on."""
    return heat(target, target.at(latents)[0])


def powered(level: jax.Array, power: Any) -> jax.Array:
    """log of likelihood^power; zero at power 0 too where the likelihood is zero."""
    return jnp.where(level == -jnp.inf, level, power * level)


def _raised(target: Target, by: Any) -> Step:
    """From one power to the power that is greater by so much."""
    return reweight(lambda x: powered(levels(target, x), by))


def begun(target: Target, power: Any) -> Step:
    """From the unit measure to prior * likelihood^power, on latents."""

    def step(weighted: Weighted) -> Weighted:
        trace, level = target.generate()  # the likelihood is its whole weight
        return Weighted(target.choices(trace), weighted.log_weight + powered(level, power))

    return step


def traces_of(target: Target) -> Step:
    """Latents as traces."""
    return lambda s: Weighted(jax.vmap(lambda x: target.at(x)[0])(s.value), s.log_weight)


def on_latents(target: Target, make: MakeKernel, power: Any, parameters: Any = None) -> Kernel:
    """The kernel at a power, from latents to latents.

    Raises:
      InvalidArgument: it is a kernel on populations.
    """
    tempered = temper(target, power)
    made = kernel_for(tempered, make)
    if made.members is not None:
        raise errors.InvalidArgument(
            "Annealing needs a kernel on single traces.", where=errors.caller(),
            given=f"{made.name}, on populations of {made.members}",
            expected="a kernel on one trace", fix="move each particle by hmc, mh, or gibbs",
        )  # fmt: skip
    return replace(
        made,
        parameters=made.parameters if parameters is None else parameters,
        enter=lambda latents: made.enter(tempered.at(latents)[0]),
        leave=made.read or (lambda state: tempered.choices(made.leave(state))),
    )


def check_powers(powers: int | Sequence[float] | jax.Array) -> Any:
    """The powers as they are, or those that an int is for.

    Raises:
      InvalidArgument: they do not increase from 0 or above to 1.
    """
    if isinstance(powers, jax.core.Tracer):
        return powers
    if not isinstance(powers, (jax.Array, np.ndarray, list, tuple)):
        check_count("powers", powers, least=2)
        return np.linspace(0.0, 1.0, int(powers)) ** 3  # type: ignore[arg-type]
    known = as_numbers(powers)
    fine = known.ndim == 1 and len(known) and known[0] >= 0 and known[-1] == 1
    if not fine or not (np.diff(known) >= 0).all():  # nor not-a-number
        raise errors.InvalidArgument(
            "The powers of annealing increase to 1.", where=errors.caller(),
            given=repr(powers), expected="numbers from 0 or above, the last of them 1",
            fix="powers=(0.0, 0.1, 0.4, 1.0), or a number of powers from 2 on",
        )  # fmt: skip
    return powers


def schedule(target: Target, powers: int | Sequence[float] | jax.Array) -> jax.Array:
    """The powers, in the dtype of the likelihood.

    Raises:
      InvalidArgument: they do not increase from 0 or above to 1, or nothing can be tempered.
    """
    given = check_powers(powers)
    check_target(target)
    tempered_model(target)
    return jnp.asarray(given, jax.eval_shape(target.generate)[1].dtype)


def _check_parameters(parameters: Any, stages: int) -> None:
    """Raise `InvalidArgument` unless there are parameters for each stage, if any."""
    for leaf in jax.tree.leaves(parameters):
        if not is_array(leaf) or jnp.shape(leaf)[:1] != (stages,):
            raise errors.InvalidArgument(
                "The kernels' parameters are not one for each power but the first.",
                where=errors.caller(), given=shown(leaf),
                expected=f"arrays with {stages} rows, of the kind of the kernel's parameters",
                fix="leave them out, or take those that adaptive_annealing found",
            )  # fmt: skip
