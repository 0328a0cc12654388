"""Log densities without differences of large numbers, for counts and concentrations in float32.

log Gamma of ten million is 1.5e8, which float32 knows to 8: a density made of such terms has no
digit left. Each density here is written with three functions that stay small where the density
does (Loader 2000, Fast and accurate computation of binomial probabilities):

    log x!       = x log x - x + excess(x)
    log Gamma(x) = x log x - x + excess(x) - log x
    deviance(x, m) = x log(x / m) + m - x,  at least 0, and known from the difference x - m

The terms x log x - x cancel by hand, and what is left of the logarithms are deviances. They
are used in float32, or of float32 parameters, unless all of them are known to be small; in
float64 numpyro's own serve.
`tests/test_large_counts.py` holds them to scipy in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy
from numpyro.distributions.util import clamp_probs

SMALL = 16.0
"""log Gamma of two such numbers together is 78, which float32 knows to 4e-6."""

HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)
_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)  # of excess, in 1 / x, 1 / x^3, ...


def excess(x: Any) -> jax.Array:
    """log x! - (x log x - x): 0 at 0, and about log(2 pi x) / 2 from 1 on.

    >>> import jax.numpy as jnp
    >>> from ppl.large_counts import excess
    >>> [f"{excess(jnp.float32(x)):.4f}" for x in (0, 3, 1e7)]  # log 6 - 3 log 3 + 3, ...
    ['0.0000', '1.4959', '8.9780']
    """
    x = jnp.asarray(x)
    large = x > 8
    low, high = jnp.where(large, 1.0, x), jnp.where(large, x, 9.0)
    r = 1 / high
    tail = r * jnp.polyval(jnp.array(_SERIES[::-1], x.dtype), r * r)
    direct = gammaln(low + 1) - xlogy(low, low) + low
    return jnp.where(large, 0.5 * jnp.log(high) + HALF_LOG_TWO_PI + tail, direct)


def deviance(x: Any, m: Any, difference: Any) -> jax.Array:
    """x log(x / m) + m - x, from `difference` = x - m known better than by subtracting them.

    >>> import jax.numpy as jnp
    >>> from ppl.large_counts import deviance
    >>> m = jnp.float32(1e7)
    >>> print(f"{deviance(m + 1000, m, jnp.float32(1000.0)):.6f}")  # 1000^2 / 2 m, nearly
    0.049998
    """
    x, m, difference = (jnp.asarray(a) for a in (x, m, difference))
    near = jnp.abs(difference) < 0.2 * (x + m)
    total = jnp.where(near, x + m, 1.0)
    v = jnp.where(near, difference, 0.0) / total
    # x log((1 + v) / (1 - v)) - difference: the odd series, whose first term is 2 x v
    square = v * v
    odd = 1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11)))
    series = v * (jnp.where(near, difference, 0.0) + 2 * jnp.where(near, x, 0.0) * square * odd)
    far_x, far_m = jnp.where(near, 1.0, x), jnp.where(near, 1.0, m)
    some = far_x > 0
    some_x, some_m = jnp.where(some, far_x, 1.0), jnp.where(some, far_m, 1.0)
    far = jnp.where(some, some_x * jnp.log(some_x / some_m), 0.0) - difference
    return jnp.where(near, series, far)


def gamma_excess(x: Any) -> jax.Array:
    """log Gamma(x) - (x log x - x)."""
    return excess(x) - jnp.log(x)


def _binomial(n: Any, k: Any, p: Any, q: Any) -> jax.Array:
    """log of n! / k! (n - k)! p^k q^(n - k), where p + q = 1."""
    n, k = _floats(n, k)
    ok = (k >= 0) & (k <= n)
    k = jnp.where(ok, k, 0.0)
    # from the smaller of the two probabilities: the larger has lost its digits
    difference = jnp.where(p < q, k - n * p, n * q - (n - k))
    found = excess(n) - excess(k) - excess(n - k)
    found -= deviance(k, n * p, difference) + deviance(n - k, n * q, -difference)
    return jnp.where(ok & (k == jnp.floor(k)), found, -jnp.inf)


def _binomial_probs(d: Any, v: Any) -> jax.Array:
    p = clamp_probs(d.probs)
    return _binomial(d.total_count, v, p, 1 - p)


def _binomial_logits(d: Any, v: Any) -> jax.Array:
    return _binomial(d.total_count, v, jax.nn.sigmoid(d.logits), jax.nn.sigmoid(-d.logits))


def _beta_binomial(d: Any, v: Any) -> jax.Array:
    n, k, a, b = _floats(d.total_count, v, d.concentration1, d.concentration0)
    ok = (k >= 0) & (k <= n) & (k == jnp.floor(k))
    k = jnp.where(ok, k, 0.0)
    c, left = a + b, n - k
    share = (a + k) / (c + n), (b + left) / (c + n)
    difference = (k * b - left * a) / (c + n)  # of k from what the pooled share of n is
    found = excess(n) - excess(k) - excess(left)
    found += _rise(a, k) + _rise(b, left) - _rise(c, n)
    found -= deviance(k, n * share[0], difference) + deviance(left, n * share[1], -difference)
    found -= deviance(a, c * share[0], -difference) + deviance(b, c * share[1], difference)
    return jnp.where(ok, found, -jnp.inf)


def _rise(a: Any, k: Any) -> jax.Array:
    """gamma_excess(a + k) - gamma_excess(a)."""
    return gamma_excess(a + k) - gamma_excess(a)


def _poisson(d: Any, v: Any) -> jax.Array:
    k, rate = _floats(v, d.rate)
    ok = (k >= 0) & (k == jnp.floor(k))
    k = jnp.where(ok, k, 0.0)
    return jnp.where(ok, -excess(k) - deviance(k, rate, k - rate), -jnp.inf)


def _negative_binomial(a: Any, v: Any, p: Any, q: Any) -> jax.Array:
    """log of Gamma(a + k) / Gamma(a) k! p^k q^a."""
    k, a = _floats(v, a)
    ok = (k >= 0) & (k == jnp.floor(k))
    k = jnp.where(ok, k, 0.0)
    difference = k * q - a * p
    found = _rise(a, k) - excess(k)
    found -= deviance(k, (a + k) * p, difference) + deviance(a, (a + k) * q, -difference)
    return jnp.where(ok, found, -jnp.inf)


def _gamma_poisson(d: Any, v: Any) -> jax.Array:
    p = 1 / (1 + d.rate)
    return _negative_binomial(d.concentration, v, p, d.rate * p)


def _negative_binomial_probs(d: Any, v: Any) -> jax.Array:
    return _negative_binomial(d.total_count, v, d.probs, 1 - d.probs)


def _negative_binomial_logits(d: Any, v: Any) -> jax.Array:
    p, q = jax.nn.sigmoid(d.logits), jax.nn.sigmoid(-d.logits)
    return _negative_binomial(d.total_count, v, p, q)


def _multinomial_logits(d: Any, v: Any) -> jax.Array:
    return _multinomial(d, v, jax.nn.softmax(d.logits, -1))


def _multinomial(d: Any, v: Any, probs: Any = None) -> jax.Array:
    n, k, p = _floats(d.total_count, v, d.probs if probs is None else probs)
    ok = jnp.all((k >= 0) & (k == jnp.floor(k)), -1) & (jnp.sum(v, -1) == d.total_count)
    k = jnp.where(ok[..., None], k, 0.0)
    m = n[..., None] * p  # adds up to n, but for rounding: so the deviances' last terms cancel
    return jnp.where(ok, excess(n) - (excess(k) + deviance(k, m, k - m)).sum(-1), -jnp.inf)


def _dirichlet_multinomial(d: Any, v: Any) -> jax.Array:
    n, k, a = _floats(d.total_count, v, d.concentration)
    ok = jnp.all((k >= 0) & (k == jnp.floor(k)), -1) & (jnp.sum(v, -1) == d.total_count)
    k = jnp.where(ok[..., None], k, 0.0)
    c = a.sum(-1)
    whole, all_of_it = n[..., None], c[..., None]
    share = (a + k) / (all_of_it + whole)
    difference = (k * all_of_it - whole * a) / (all_of_it + whole)
    each = _rise(a, k) - excess(k)
    each -= deviance(k, whole * share, difference) + deviance(a, all_of_it * share, -difference)
    return jnp.where(ok, each.sum(-1) + excess(n) - _rise(c, n), -jnp.inf)


def _beta(d: Any, v: Any) -> jax.Array:
    x, a, b = _floats(v, d.concentration1, d.concentration0)
    c, rest = a + b, 1 - x
    # a - c x, from the smaller of the two shares
    difference = jnp.where(x < 0.5, a - c * x, c * rest - b)
    found = gamma_excess(c) - gamma_excess(a) - gamma_excess(b) - jnp.log(x) - jnp.log(rest)
    return found - deviance(a, c * x, difference) - deviance(b, c * rest, -difference)


def _gamma(d: Any, v: Any) -> jax.Array:
    x, a, rate = _floats(v, d.concentration, d.rate)
    m = rate * x
    return -deviance(a, m, a - m) - gamma_excess(a) - jnp.log(x)


def _dirichlet(d: Any, v: Any) -> jax.Array:
    x, a = _floats(v, d.concentration)
    c = a.sum(-1)
    m = c[..., None] * x
    return gamma_excess(c) - (gamma_excess(a) + jnp.log(x) + deviance(a, m, a - m)).sum(-1)


def _floats(*values: Any) -> list[jax.Array]:
    dtype = jnp.result_type(float)
    return [jnp.asarray(value, dtype) for value in values]


_COUNTS: dict[type, tuple[tuple[str, ...], Callable]] = {
    dist.BinomialProbs: (("total_count",), _binomial_probs),
    dist.BinomialLogits: (("total_count",), _binomial_logits),
    dist.BetaBinomial: (("concentration1", "concentration0", "total_count"), _beta_binomial),
    dist.Poisson: (("rate",), _poisson),
    dist.GammaPoisson: (("concentration", "rate"), _gamma_poisson),
    dist.NegativeBinomialProbs: (("concentration",), _negative_binomial_probs),
    dist.NegativeBinomial2: (("concentration", "rate"), _gamma_poisson),
    dist.NegativeBinomialLogits: (("total_count",), _negative_binomial_logits),
    dist.MultinomialProbs: (("total_count",), _multinomial),
    dist.MultinomialLogits: (("total_count",), _multinomial_logits),
    dist.DirichletMultinomial: (("concentration", "total_count"), _dirichlet_multinomial),
}
"""By type: which parameters make terms large, and the density."""

_SHAPES: dict[type, tuple[tuple[str, ...], Callable]] = {
    dist.Beta: (("concentration1", "concentration0"), _beta),
    dist.Gamma: (("concentration",), _gamma),
    dist.Chi2: (("concentration",), _gamma),
    dist.Dirichlet: (("concentration",), _dirichlet),
}
"""The same of continuous ones, which is right inside of the support and for large parameters."""


def stable(d: Any, v: Any, otherwise: Callable[[], Any]) -> Any:
    """log p(v) by a formula that float32 serves, or None where numpyro's own serves.

    Args:
      otherwise: numpyro's own, for small parameters that are not known to be so, and at edges.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl.large_counts import stable
    >>> with jax.enable_x64(False):
    ...     d = dist.BetaBinomial(3e6, 7e6, 20)
    ...     print(f"{d.log_prob(5):.4f} {stable(d, 5, lambda: None):.4f}")
    -10.5000 -1.7211
    """
    counts = type(d) in _COUNTS
    found = _COUNTS.get(type(d)) or _SHAPES.get(type(d))
    if found is None or not _narrow(d):
        return None
    names, density = found
    v = jnp.asarray(v)
    parameters = [getattr(d, name) for name in names]
    # a count is as large as it likes, unless it is of so many trials
    bounded = not counts or "total_count" in names
    if bounded and all(_known_small(x) for x in parameters):
        return None
    if counts:
        return density(d, v)
    vector, middle = type(d) is dist.Dirichlet, 1 / v.shape[-1] if v.ndim else 0.5
    large, inside = jnp.array(False), (v > 0) & ((v < 1) | isinstance(d, dist.Gamma))
    for x in parameters:
        large |= (jnp.max(x, -1) if vector else x) > SMALL
    chosen = large & (jnp.all(inside, -1) if vector else inside)
    safe = jnp.where(chosen[..., None] if vector else chosen, v, middle)
    return jnp.where(chosen, density(d, safe), otherwise())


def _narrow(d: Any) -> bool:
    """Whether numpyro would compute in float32: by default, or as its parameters are."""
    if jnp.finfo(jnp.result_type(float)).bits <= 32:
        return True
    found = [jax.typeof(x) for x in jax.tree.leaves(d)]
    strong = {x.dtype for x in found if jnp.issubdtype(x.dtype, jnp.floating) and not x.weak_type}
    return bool(strong) and all(jnp.finfo(dtype).bits <= 32 for dtype in strong)


def _known_small(x: Any) -> bool:
    if isinstance(x, jax.core.Tracer):
        return False
    return bool(np.all(np.asarray(x) <= SMALL))
