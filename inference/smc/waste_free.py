"""Waste-free moves: all the states that a kernel passes are particles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw, errors

from ..kernel import Kernel, as_kernel
from ..validation.settings import check_count
from ..weighted import Step, Weighted, log_evidence, normalized
from .resample import Scheme, check_scheme
from .schemes import systematic


def waste_free(kernel: Callable[[Any], Any], chains: int, scheme: Scheme = systematic) -> Step:
    """`chains` resampled starts, each a chain of n / chains states: the next n particles.

    Proper from g to g if the kernel leaves g invariant. A chain starts at one of the particles,
    chosen by weight, and makes n / chains - 1 steps; all its states are kept, with the mean
    weight. So a long chain costs no more than many short ones, and nothing of it is thrown away.

    Args:
      kernel: from values to values, as `lift` takes.
      chains: number of starts, a divisor of the number n of particles, and less than n.
      scheme: as for `resample`. Of its n ancestors every n / chains-th is taken, from a random
        one on, so that systematic resampling stays systematic.

    Raises:
      InvalidArgument: raised at the call on particles, when `chains` is not such a number.

    Source: Dau and Chopin, Waste-free sequential Monte Carlo (JRSS B 2022).

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, multinomial, waste_free
    >>> from ppl import integrate
    >>> s = Weighted(jnp.array([0, 1, 0, 1]), jnp.log(jnp.array([1.0, 3.0, 1.0, 3.0])))
    >>> def mass_of_ones():
    ...     new = waste_free(lambda x: x, 2, multinomial)(s)
    ...     return (jnp.exp(new.log_weight) * new.value).mean()
    >>> print(f"{integrate(mass_of_ones)():.2f}")  # 2 * 3 / 4, as before
    1.50
    """
    made = as_kernel(kernel)
    check_count("chains", chains)
    check_scheme(scheme)

    def step(weighted: Weighted) -> Weighted:
        n = weighted.log_weight.shape[0]
        length = _length(n, chains)
        ancestors = scheme(normalized(weighted.log_weight)).reshape(chains, length)
        ancestors = ancestors[:, draw(dist.DiscreteUniform(0, length - 1))]
        starts = jax.tree.map(lambda x: x[ancestors], weighted.value)
        passed = jax.vmap(lambda start: _chain(made, start, length))(starts)
        value = jax.tree.map(lambda x: x.reshape(n, *x.shape[2:]), passed)
        return Weighted(value, jnp.full_like(weighted.log_weight, log_evidence(weighted)))

    return step


def _chain(kernel: Kernel, start: Any, length: int) -> Any:
    """The start and the states after it, stacked."""

    def one(state: Any, _: None) -> tuple[Any, Any]:
        state, _stats = kernel.step(kernel.parameters, state)
        return state, kernel.leave(state)

    _, passed = jax.lax.scan(one, kernel.enter(start), None, length=length - 1)
    return jax.tree.map(lambda x, xs: jnp.concatenate([jnp.asarray(x)[None], xs]), start, passed)


def check_chains(n: int, chains: int | None) -> None:
    """Raise `InvalidArgument` unless n particles can be the states of so many chains."""
    if chains is not None:
        check_count("chains", chains)
        _length(n, chains)


def _length(n: int, chains: int) -> int:
    """Number of states of a chain.

    Raises:
      InvalidArgument: the chains do not divide the particles, or would make no step.
    """
    if 1 <= chains < n and n % chains == 0:
        return n // chains
    raise errors.InvalidArgument(
        "The chains of a waste-free move share the particles evenly.",
        where=errors.caller(), given=f"{chains} chains for {n} particles",
        expected=f"a divisor of {n} less than {n}",
        fix=f"chains={max(d for d in range(1, max(n, 2)) if n % d == 0)}",
    )  # fmt: skip
