"""Divergences other than that of the evidence lower bound.

An objective is maximised, so a divergence has a minus. Of each it is said of what it is a bound,
and what it is for finitely many draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target, errors

from ..targets.stochastic import Stochastic
from ..validation.settings import check_count, check_number, check_option, shown
from ..weighted import Weighted, log_evidence
from .drawn import held
from .matching import check_guide
from .objective import Guide, Objective
from .objectives import _elbo, log_weights
from .wake import weighted_draws


def forward_kl(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    using: int | GenerativeFunction,
) -> Objective:
    """-KL(p(x|y) || q(x)), from draws of the posterior or from weighted draws of the guide.

    Its guide covers all of the posterior, where that of `elbo` may leave a mode out. Only the
    guide's density has a derivative, so no choice needs a strategy.

    Args:
      target, guide: as for `elbo`; the target's parameters do not move.
      using: a generative function, of the guide's arguments, that draws the posterior: then it
        is exact. Or how many draws of the guide are weighed against each other: then it is the
        mean of -sum of w log(n w), w normalised, which is at least -log n, has the gradient of
        `wake`, and tends to the divergence.

    Raises:
      GuideMismatch: when it is used, and the guide, or the posterior, does not make the target's
        latents.

    Source: Minka, Divergence measures and message passing (2005); Bornschein and Bengio,
    Reweighted wake-sleep (ICLR 2015).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import forward_kl
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> posterior = gen(lambda p: sample("fair", dist.Bernoulli(0.4)))
    >>> objective = forward_kl(Target(coin, (), {"heads": 1}), guide, posterior)
    >>> print(f"{integrate(objective)(0.4):.4f} {integrate(objective)(0.5):.4f}")
    0.0000 -0.0201
    """
    _check_using(using)
    return Objective(f"forward_kl({_shown(using)})", target, guide, _Forward(using))


@dataclass(frozen=True)
class _Forward:
    using: int | GenerativeFunction

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        if isinstance(self.using, GenerativeFunction):
            check_guide(target, self.using, args)
            choices, score = held(self.using, args)
            return guide.assess(choices, *args)[0] - score
        ratios, shares, mass = _weighted_ratios(target, guide, args, self.using)
        return jnp.sum(shares * ratios) + mass


def _weighted_ratios(target: Target, guide: Guide, args: tuple, n: int) -> tuple[Any, Any, Any]:
    """log q - log p of draws of the guide, their normalised weights, and the log evidence."""
    choices, weights = weighted_draws(target, guide, args, n)
    scores = jax.vmap(lambda x: guide.assess(x, *args)[0])(choices)
    densities = jax.vmap(target.log_density)(choices)
    fixed = jax.lax.stop_gradient((jax.nn.softmax(weights), densities))
    mass = jax.lax.stop_gradient(log_evidence(Weighted((), weights)))
    ratios = jnp.where(fixed[0] > 0, scores - fixed[1], 0)  # what has no weight has no share
    return ratios, fixed[0], mass


def symmetric_kl(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    using: int | GenerativeFunction,
) -> Objective:
    """-KL(q(x) || p(x|y)) - KL(p(x|y) || q(x)): zero at the posterior, and below it elsewhere.

    The log evidence is in both, and cancels. The first term is that of `elbo`, whose choices
    have their strategies.

    Args:
      target, guide, using: as for `forward_kl`. For finitely many weighted draws the second term
        is estimated.

    Raises:
      GuideMismatch: as for `forward_kl`.

    Source: Jeffreys, An invariant form for the prior probability in estimation problems (1946).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import symmetric_kl
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> posterior = gen(lambda p: sample("fair", dist.Bernoulli(0.4)))
    >>> objective = symmetric_kl(Target(coin, (), {"heads": 1}), guide, posterior)
    >>> print(f"{integrate(objective)(0.4):.4f} {integrate(objective)(0.5):.4f}")
    0.0000 -0.0405
    """
    _check_using(using)
    return Objective(f"symmetric_kl({_shown(using)})", target, guide, _Symmetric(using))


@dataclass(frozen=True)
class _Symmetric:
    using: int | GenerativeFunction

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        return _elbo(target, guide, args) + self.forward(target, guide, args)

    def forward(self, target: Target, guide: Guide, args: tuple) -> Any:
        """E[log q - log p(x, y)] under the posterior."""
        if isinstance(self.using, GenerativeFunction):
            check_guide(target, self.using, args)
            choices, _ = held(self.using, args)
            density = jax.lax.stop_gradient(target.log_density(choices))
            return guide.assess(choices, *args)[0] - density
        ratios, shares, _ = _weighted_ratios(target, guide, args, self.using)
        return jnp.sum(shares * ratios)


def renyi(
    target: Target | Callable[..., Target],
    guide: GenerativeFunction | Stochastic,
    alpha: float,
    particles: int,
) -> Objective:
    """E[log of the mean of w^(1 - alpha)] / (1 - alpha), w the weights: at most the log evidence.

    With many particles, log p(y) less the Rényi divergence of order alpha of the guide from the
    posterior. At 0 it is `iwelbo`, at 1 `elbo`; the larger alpha is, the lower.

    Args:
      target, guide: as for `elbo`.
      alpha: 0 or more. (Below 0 it would be an upper bound, which is not to be maximised: see
        `f_divergence`, "chi_square".)
      particles: how many weights are averaged.

    Raises:
      GuideMismatch: when it is used, and the guide does not make the target's latents.

    Source: Li and Turner, Rényi divergence variational inference (NeurIPS 2016), equation 9.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import renyi
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> [f"{integrate(renyi(target, guide, alpha, 2))(0.5):.5f}" for alpha in (0.0, 0.5, 1.0)]
    ['-0.48021', '-0.48529', '-0.49041']
    """
    check_number("alpha", alpha, least=0, fix=0.5)
    if isinstance(alpha, jax.core.Tracer):
        raise errors.InvalidArgument(
            "alpha is part of the objective, and not one of its arguments.",
            where=errors.caller(),
            given=shown(alpha),
            expected="a number, known before the program runs",
            fix="alpha=0.5",
        )
    check_count("particles", particles)
    order = float(alpha)
    return Objective(f"renyi({order:g}, {particles})", target, guide, _Renyi(order, particles))


@dataclass(frozen=True)
class _Renyi:
    alpha: float
    particles: int

    def __call__(self, target: Target, guide: Guide, args: tuple) -> Any:
        weights = log_weights(target, guide, args, self.particles)
        power = 1 - self.alpha
        if power == 0:
            return jnp.mean(weights)
        return log_evidence(Weighted((), power * weights)) / power


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
    "forward_kl": lambda r: jnp.exp(r) * r,
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
    logs = np.linspace(-3.0, 3.0, 25)
    try:
        values = np.asarray([float(f(jnp.asarray(r))) for r in logs])
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


def _check_using(using: Any) -> None:
    if not isinstance(using, GenerativeFunction):
        check_count("using", using)


def _shown(using: int | GenerativeFunction) -> str:
    return using.name if isinstance(using, GenerativeFunction) else str(using)
