"""Leave-one-out cross-validation from one run, by Pareto-smoothed importance sampling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl import Selection, Target, errors, everything
from ppl.addresses import as_selection, flatten, nest
from ppl.program import Path

from .draws import Draws
from .pointwise import log_likelihood, there
from .predictive import observed_of, target_of
from .verdict import array_stats

_FEWEST = 25  # arviz-stats fits a tail to a fifth of the draws, and to 5 at least


@dataclass(frozen=True, eq=False)
class Loo:
    """The expected log predictive density of left-out observations, by PSIS-LOO.

    Attributes:
      elpd: sum over observations of log p(y_i | the others), estimated; higher is better.
      se: its standard error, from the spread between observations.
      p: the effective number of parameters.
      n: how many observations.
      pointwise: log p(y_i | the others): nested dict of arrays by address; NaN where a
        mask leaves an element out.
      pareto_k: in the same form, the shape of the tail of the importance ratios; above
        0.7 (or 1 - 1/log10(draws), if less) the estimate of that element is unreliable;
        -inf where the largest ratios are all equal, and there is no tail.
      warning: text that says so, and what to do; empty when all k are good.

    >>> from inference.results.loo import Loo
    >>> Loo(elpd=-10.0, se=2.0, p=1.5, n=8)
    elpd -10.0 (se 2.0), effective parameters 1.5, 8 observations
    """

    elpd: float
    se: float
    p: float
    n: int
    pointwise: Mapping[str, Any] = field(default_factory=dict)
    pareto_k: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""

    def __repr__(self) -> str:
        text = (
            f"elpd {self.elpd:.1f} (se {self.se:.1f}), effective parameters {self.p:.1f}, "
            f"{self.n} observations"
        )
        return f"{text}\n{self.warning}" if self.warning else text


def loo(
    draws: Draws, target: Target | None = None, *, selection: Selection | str | tuple = everything
) -> Loo:
    """Leave-one-out cross-validation by Pareto-smoothed importance sampling.

    Vehtari, Gelman and Gabry 2017 (Statistics and Computing 27), by arviz-stats; the
    relative efficiency is the mean of the latents', as there. Each element of each
    selected observed address is left out in turn. Elements that depend on one another
    (a time series) are then predicted from the later ones too.

    Args:
      target: the target of the draws, where they do not carry it.
      selection: which of the observed addresses are left out; all by default.

    Raises:
      InvalidArgument: as for `log_likelihood`; nothing observed is selected; there are
        less than 25 draws; or a log likelihood is not finite.
      AddressNotFound: the selection names no choice.

    >>> import jax.numpy as jnp, numpy as np, numpyro.distributions as dist
    >>> from inference import Draws
    >>> from inference.results.loo import loo
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():  # y does not depend on z: each left-out density is known
    ...     sample("z", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Bernoulli(0.5).expand([3]))
    >>> target = Target(model, (), {"y": jnp.array([1, 0, 1])})
    >>> z = np.random.default_rng(0).normal(size=(4, 100))
    >>> print(f"{np.exp(loo(Draws({'z': z}, target=target)).elpd):.4f}")
    0.1250
    """
    target = target_of(draws, target)
    chosen = as_selection(selection)
    chosen.check(target.sites)
    observed = [path for path in observed_of(target) if chosen(path)]
    if not observed:
        raise errors.InvalidArgument(
            "Nothing that is observed is selected.",
            where=errors.caller(),
            given=repr(chosen),
            expected="one of: " + "; ".join(errors.show(p) for p in observed_of(target)),
            fix="select an observed address",
        )
    densities = flatten(log_likelihood(draws, target))
    seen = {path: there(densities[path].shape[2:], target.observed[path]) for path in observed}
    each = np.concatenate([densities[p][:, :, seen[p]] for p in observed], -1).astype(np.float64)
    _check_ratios(each, draws)
    stats = array_stats()
    r_eff = _relative_efficiency(draws, stats)
    found = [_left_out(each[..., i], r_eff, stats) for i in range(each.shape[-1])]
    elpd, k, p = np.array(found).reshape(-1, 3).T
    total, se, effective, _ = stats.loo_summary(elpd, p)
    return Loo(
        float(total), float(se), float(effective), len(elpd),
        _unflatten(elpd, seen), _unflatten(k, seen), _warning(k, math.prod(draws.shape)),
    )  # fmt: skip


def _check_ratios(each: np.ndarray, draws: Draws) -> None:
    """Raise `InvalidArgument` for what has no importance ratios with a tail."""
    if math.prod(draws.shape) < _FEWEST:
        raise errors.InvalidArgument(
            "There are too few draws for the tails of importance ratios.",
            where=errors.caller(), given=f"{draws.shape[0]} chains x {draws.shape[1]} draws",
            expected=f"{_FEWEST} draws or more", fix="draw more: 4 chains of 1000",
        )  # fmt: skip
    if not np.isfinite(each).all():
        raise errors.InvalidArgument(
            "A log likelihood is not finite, so no importance ratio is.",
            where=errors.caller(),
            given=f"{int((~np.isfinite(each)).sum())} of {each.size} are not finite",
            expected="draws under which the data are possible",
            fix="look at log_likelihood(draws) and draws.verdict()",
        )


def _left_out(densities: np.ndarray, r_eff: float, stats: Any) -> tuple[float, float, float]:
    """log p(y_i | the others), Pareto k, and effective parameters, of one element."""
    try:
        with np.errstate(all="ignore"):  # ties, as with discrete latents, leave k undefined
            return stats.loo(densities, chain_axis=0, draw_axis=1, r_eff=r_eff)
    except ValueError:  # the largest ratios are all the same: no tail is to be smoothed
        log_n = math.log(densities.size)
        elpd = log_n - np.logaddexp.reduce(-densities, axis=None)
        return elpd, -math.inf, np.logaddexp.reduce(densities, axis=None) - log_n - elpd


def _unflatten(values: np.ndarray, seen: Mapping[Path, np.ndarray]) -> dict[str, Any]:
    """Values of the observed elements as arrays by address, NaN elsewhere."""
    found, start = {}, 0
    for path, mask in seen.items():
        count = int(mask.sum())
        found[path] = np.full(mask.shape, np.nan)
        found[path][mask] = values[start : start + count]
        start += count
    return nest(found)


def _relative_efficiency(draws: Draws, stats: Any) -> float:
    """Mean ESS of the latents' means per draw; 1 for one chain. Constants do not count."""
    moving = [
        x for x in Draws(draws.choices).scalars().values() if np.ptp(x.astype(np.float64)) > 0
    ]
    if draws.shape[0] == 1 or not moving:
        return 1.0
    each = np.stack([x.astype(np.float64) for x in moving], -1)
    return float(np.mean(stats.ess(each, chain_axis=0, draw_axis=1, method="mean", relative=True)))


def _warning(k: np.ndarray, draws: int) -> str:
    """What to say of large k (Vehtari, Simpson, Gelman, Yao and Gabry 2024, section 3.2.4)."""
    good = min(1 - 1 / math.log10(draws), 0.7) if draws > 1 else 0.7
    bad = int(np.sum(~(k <= good)))
    if not bad:
        return ""
    return (
        f"warning: Pareto k of {bad} of {k.size} observations exceeds {good:.2f} "
        f"(largest {np.nanmax(k):.2f}): the estimate is unreliable; refit without them "
        "(k-fold cross-validation), or use a model that is more robust to them"
    )
