"""The evidence of a series some of whose latents are summed out: filters for `marginal`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Selection, Target
from ppl.addresses import as_selection
from ppl.arguments import Arguments

from ..exact.rao_blackwell import rao_blackwell
from ..smc.filtering import particle_filter
from ..smc.resample import Scheme, check_resampling
from ..smc.schemes import systematic
from ..validation.objects import check_callable
from ..validation.settings import check_count
from ..weighted import Step, Weighted
from .pseudo_marginal import series_of


def filter_beliefs(
    target: Target,
    address: Selection | str | tuple[str, ...],
    summed: Selection | str | tuple[str, ...],
    n: int,
    *,
    scheme: Scheme = systematic,
    threshold: float = 0.5,
    order: Callable[[Any], jax.Array] | None = None,
) -> Step:
    """From the unit measure to the target's, of the last belief of a series.

    Proper: particles carry what `rao_blackwell` makes of the state, and their mean weight is an
    unbiased estimate of the evidence, exact when all latents of the series are summed out. As
    the `using` of `marginal` or `auxiliary_marginal` it is for the parameters of models that are
    conditionally Gaussian, or of hidden Markov models; by `nuts` or `hmc` where the evidence is
    exact and one particle is enough.

    Args:
      target: all of whose latents are those of the series.
      address: of these, as for `filter_series`; of several in a `lax.scan`, `select` of them.
      summed: latents of the series to sum out, as for `rao_blackwell`.
      n, scheme, threshold, order: as for `particle_filter`. A state is the list of the arrays in
        the carry of the scan.

    Raises:
      AddressNotFound, InvalidArgument: as for `filter_series` and `rao_blackwell`.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import filter_beliefs, log_evidence, unit
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def walk():
    ...     def step(z, _):
    ...         z = sample("z", dist.Normal(z, 1.0))
    ...         sample("y", dist.Normal(z, 1.0))
    ...         return z, None
    ...     jax.lax.scan(step, 0.0, None, length=2)
    >>> ys = jnp.array([0.5, 1.0])
    >>> step = filter_beliefs(Target(walk, (), {"y": ys}), "z", "z", 1)
    >>> log_z = seed(lambda: log_evidence(step(unit())))(jax.random.key(0))
    >>> exact = dist.MultivariateNormal(jnp.zeros(2), jnp.array([[2.0, 1.0], [1.0, 3.0]]))
    >>> print(f"{log_z:.4f} {exact.log_prob(ys):.4f}")
    -2.8176 -2.8176
    """
    check_count("n", n)
    check_resampling(threshold, scheme)
    if order is not None:
        check_callable("order", order, "a function from a state to a number", "leave it out")
    as_selection(summed)
    series, call, _ = series_of(target, address)
    arguments = Arguments.of(target.args, {}, target.model.fixed)
    sites = target.sites

    def step(weighted: Weighted) -> Weighted:
        model, init, xs, given = call()
        first = jax.tree.map(lambda leaf: leaf[0], xs)
        marginal, belief = rao_blackwell(model, summed, init, first)
        found = particle_filter(
            marginal, belief, given, n, xs=xs, scheme=scheme, threshold=threshold, order=order
        ).particles
        # the same for all values of the series
        any_path = {path: jnp.zeros(sites[path].shape, sites[path].dtype) for path in series.paths}
        rest = series.log_rest(arguments, {**target.observed_values, **any_path})
        return Weighted(found.value, weighted.log_weight + found.log_weight + rest)

    return step
