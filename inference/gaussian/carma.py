"""Autoregressive moving averages in continuous time."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import errors

from ..validation.settings import shown
from .doubling import discretised, series
from .hyperparameters import as_float, check_parameters, record
from .kernel import Kernel

_DOUBLINGS = 16


@record
class CARMA(Kernel):
    """The law of Σ_j beta_j x^(j), where x^(p) + Σ_k alpha_k x^(k) is white noise times sigma.

    Its spectrum is sigma² |Σ_j beta_j (iω)^j|² / |(iω)^p + Σ_k alpha_k (iω)^k|² (Kelly et al.
    2014). Noise is precise at any gap up to 16384 alpha_0^(-1/p), where the process should have
    forgotten; longer ones count as that.

    Args:
      alpha: p numbers, from that of x on; all roots must have negative real parts.
      beta: at most p numbers, from that of x on.

    Raises:
      InvalidArgument: they are no tuples of that length, or are known to have another root.

    >>> from inference.gaussian.carma import CARMA
    >>> k = CARMA(alpha=(1.0, 2.0), beta=(1.0,), sigma=2.0)  # (s + 1)²: (1 + r) exp(-r)
    >>> round(float(k.covariance(0.0, 1.0)), 6)  # 2 exp(-1)
    0.735759
    """

    alpha: tuple
    beta: tuple = (1.0,)
    sigma: Any = 1.0

    def _check(self) -> None:
        check_parameters(self, 0.0, sigma=self.sigma)
        sizes = [len(x) if isinstance(x, tuple) else 0 for x in (self.alpha, self.beta)]
        if not 1 <= sizes[1] <= sizes[0]:
            raise errors.InvalidArgument(
                "The coefficients of a CARMA process are two tuples.", where=errors.caller(),
                given=f"alpha={shown(self.alpha)}, beta={shown(self.beta)}",
                expected="alpha of p numbers, beta of at most p", fix="CARMA((1.0, 2.0), (1.0,))",
            )  # fmt: skip
        if any(isinstance(x, jax.core.Tracer) for x in self.alpha):
            return
        roots = np.roots([1.0, *(float(x) for x in reversed(self.alpha))])
        if not roots.size == sizes[0] or not np.all(roots.real < 0):
            raise errors.InvalidArgument(
                "A CARMA process that is not stationary has no law at all times.",
                where=errors.caller(), given=f"alpha={shown(self.alpha)}, with a root at "
                f"{roots[np.argmax(roots.real)] if roots.size else 0:.3g}",
                expected="roots whose real parts are negative", fix="alpha=(1.0, 2.0)",
            )  # fmt: skip

    @property
    def dimension(self) -> int:
        return len(self.alpha)

    @property
    def rank(self) -> int | None:
        return None

    def _unit(self) -> jax.Array:
        """The geometric mean of the rates: the state is x^(j) / unit^j, in time times unit."""
        return as_float(self.alpha[0]) ** (1 / self.dimension)

    def _equation(self) -> tuple[jax.Array, jax.Array]:
        d, unit = self.dimension, self._unit()
        rates = [alpha / unit ** (d - k) for k, alpha in enumerate(self.alpha)]
        drift = jnp.eye(d, k=1, dtype=unit.dtype).at[-1].set(-jnp.stack(rates))
        white = self.sigma**2 / unit ** (2 * d - 1)
        return drift, jnp.zeros_like(drift).at[-1, -1].set(white)

    def transition(self, dt: Any) -> jax.Array:
        x = as_float(dt) * self._unit()
        return discretised(*series(*self._equation()), x, _DOUBLINGS)[0]

    def noise(self, dt: Any, at: Any = None) -> jax.Array:
        x = as_float(dt) * self._unit()
        return discretised(*series(*self._equation()), x, _DOUBLINGS)[1]

    def start(self, at: Any) -> jax.Array:
        drift, white = self._equation()
        eye = jnp.eye(self.dimension, dtype=drift.dtype)
        both = jnp.kron(drift, eye) + jnp.kron(eye, drift)
        found = jnp.linalg.solve(both, -white.reshape(-1)).reshape(drift.shape)
        return (found + found.T) / 2

    def observation(self) -> jax.Array:
        beta, unit = (*self.beta, *[0.0] * (self.dimension - len(self.beta))), self._unit()
        return jnp.stack([b * unit**j for j, b in enumerate(beta)])

    def error(self) -> Any:
        return 0.0
