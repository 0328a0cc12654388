"""The mean of a convex function of the weight: a bound for each divergence of that kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target, errors

from ..targets.stochastic import Stochastic
from ..validation.settings import check_option, shown
from .objective import Guide, Objective
from .objectives import log_weights


def f_divergence(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    f: str | Callable[[Any], Any],
) -> Objective:
    """-E[f(w)], w = p(x, y) / q(x), x from the guide: at most -f(p(y)), there at the posterior.

    By Jensen's inequality, for every convex f. Where f is one of those that are named, the guide
    that is best is the one nearest to the posterior in that divergence.

    | name | f(w) | maximised | divergence |
    | --- | --- | --- | --- |
    | "kl" | -log w | the `elbo`, at most log p(y) | KL(q, p) |
    | "forward_kl" | w log w | at most -p(y) log p(y) | KL(p, q) |
    | "chi_square" | w^2 | at most -p(y)^2 | chi-square of p from q |
    | "hellinger" | -2 sqrt(w) | at most 2 sqrt(p(y)) | Hellinger, squared |

    Half the log of minus "chi_square" is at least the log evidence: CUBO, an upper bound.
    Total variation is refused. It is linear on both sides of 1, so that of weights that are not
    normalised it says nothing.

    Args:
      target, guide: as for `elbo`.
      f: a name, or a function of log w that is convex in w: `lambda r: jnp.exp(a * r) / (a * (a -
        1))` for the divergences of order a.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.
      InvalidArgument: f is not convex, or no name.

    Source: Wan, Li and Hovakimyan, f-Divergence variational inference (NeurIPS 2020); Dieng et
    al., Variational inference via chi upper bound minimization (NeurIPS 2017).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import f_divergence
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> bound = integrate(f_divergence(Target(coin, (), {"heads": 1}), guide, "chi_square"))
    >>> [f"{jnp.log(-bound(p)) / 2:.4f}" for p in (0.4, 0.5)]  # the log evidence, and above it
    ['-0.4700', '-0.4504']
    """
    if isinstance(f, str):
        if f.lower().replace(" ", "_") in ("total_variation", "tv"):
            raise errors.InvalidArgument(
                "Total variation says nothing of weights that are not normalised.",
                where=errors.caller(),
                given=f"f={f!r}",
                expected=" or ".join(f'"{name}"' for name in _NAMED),
                fix='f="hellinger", which total variation lies between the half and the root of',
            )
        check_option("f", f, tuple(_NAMED))
        return Objective(f"f_divergence({f})", target, guide, _FDivergence(_NAMED[f]))
    _check_convex(f)
    return Objective("f_divergence", target, guide, _FDivergence(f))


@dataclass(frozen=True)
class _FDivergence:
    f: Callable[[Any], Any]

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        return -self.f(log_weights(target, guide, args, 1)[0])


_NAMED: dict[str, Callable[[Any], Any]] = {
    "kl": jnp.negative,
    "forward_kl": lambda r: jnp.exp(r) * jnp.where(r > -jnp.inf, r, 0.0),
    "chi_square": lambda r: jnp.exp(2 * r),
    "hellinger": lambda r: -2 * jnp.exp(r / 2),
}


def _check_convex(f: Any) -> None:
    """Raise `InvalidArgument` unless `f` is a function of log w that looks convex in w."""
    if not callable(f) or isinstance(f, GenerativeFunction | type):
        raise errors.InvalidArgument(
            "f is no function.", where=errors.caller(), given=shown(f),
            expected="a function of the log of a weight, convex in the weight; or a name",
            fix='f="chi_square", or f=lambda r: jnp.exp(2 * r)',
        )  # fmt: skip
    function: Callable[[Any], Any] = f
    logs = np.linspace(-3.0, 3.0, 25)
    try:
        with jax.ensure_compile_time_eval():
            values = np.asarray([float(function(jnp.asarray(r))) for r in logs])
    except (TypeError, ValueError) as error:
        raise errors.InvalidArgument(
            "f gives no number for the log of a weight.",
            where=(errors.defined(f), errors.caller()),
            given=f"{type(error).__name__}: {error}",
            expected="a function from one number to one",
            fix="f=lambda r: jnp.exp(2 * r)",
        ) from error
    slopes = np.diff(values) / np.diff(np.exp(logs))
    rounding = 1e-4 * np.max(np.abs(slopes))  # of single precision, divided by small steps
    if not np.all(np.diff(slopes) >= -rounding):
        raise errors.InvalidArgument(
            "f is not convex in the weight, so that its mean is no bound.",
            where=(errors.defined(f), errors.caller()),
            given="a slope that falls, for weights between 0.05 and 20",
            expected="a function of log w that is convex in w",
            fix="-f, if f is concave",
        )
