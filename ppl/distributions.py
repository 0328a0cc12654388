"""Distributions: lean densities and samplers for the common ones, numpyro for all.

A density here has the value numpyro's validated one has (`-inf` outside the
support) in the fewest equations; where a table has no entry, numpyro's own
density runs with validation on. A sampler with a *base* is a deterministic
function of standard normals or uniforms, so that the base randomness of a whole
program can be drawn at once, put at its boundaries, or replaced by quadrature
nodes. `tests/test_distributions.py` holds every entry to numpyro and scipy.
Some lines over 400, since the tables of densities and samplers are read side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from . import edge_derivatives, truncated
from .arithmetic import add, div, mul, sub
from .large_counts import stable
from .overflow import overflow_told
from .supports import support_name

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
SQRT_TWO_OVER_PI = 0.5 * math.log(2 / math.pi)


def _log(x: Any) -> Any:
    """log x; a known Python or numpy number stays one, and costs no equation."""
    if isinstance(x, (int, float)):
        return math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan)
    if isinstance(x, (np.ndarray, np.generic)) and np.issubdtype(x.dtype, np.floating):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(x)
    traced: Any = x
    return jnp.log(traced)


def _is(x: Any, number: float) -> bool:
    """Whether a parameter is known to be `number`, so that it costs no equation."""
    return _is_known(x) and x == number


def _is_known(x: Any) -> bool:
    """Whether a parameter is one number, known where the program is made."""
    return isinstance(x, (int, float, np.ndarray, np.generic)) and np.ndim(x) == 0


def _divided(x: Any, scale: Any) -> Any:
    return x if _is(scale, 1) else div(x, scale)


def _centred(v: Any, d: Any) -> Any:
    """(v - loc) / scale."""
    return _divided(v if _is(d.loc, 0) else sub(v, d.loc), d.scale)


def _scaled(d: Any, e: Any) -> Any:
    return e if _is(d.scale, 1) else mul(d.scale, e)


def _affine(d: Any, e: Any) -> Any:
    """loc + scale e."""
    scaled = _scaled(d, e)
    return scaled if _is(d.loc, 0) else add(d.loc, scaled)


def _inside(mask, value):
    return jnp.where(mask, value, -jnp.inf)


def _normal(d, v):
    z = _centred(v, d)
    return sub(mul(mul(-0.5, z), z), add(_log(d.scale), HALF_LOG_TWO_PI))


def _half_normal(d, v):
    z = _divided(v, d.scale)
    return _inside(v > 0, (SQRT_TWO_OVER_PI - _log(d.scale)) - 0.5 * z * z)


def _log_normal(d, v):
    ok = v > 0
    safe = jnp.where(ok, v, 1.0)
    log = _log(safe)
    z = _centred(log, d)
    return _inside(ok, -0.5 * z * z - (_log(d.scale) + HALF_LOG_TWO_PI) - log)


def _uniform(d, v):
    return _inside((v >= d.low) & (v <= d.high), -_log(d.high - d.low))


def _exponential(d, v):
    return _inside(v > 0, _log(d.rate) - d.rate * v)


def _laplace(d, v):
    return -jnp.abs(v - d.loc) / d.scale - _log(2 * d.scale)


def _cauchy(d, v):
    z = _centred(v, d)
    return -(_log(d.scale) + math.log(math.pi)) - jnp.log1p(z * z)


def _half_cauchy(d, v):
    z = _divided(v, d.scale)
    return _inside(v > 0, (math.log(2 / math.pi) - _log(d.scale)) - jnp.log1p(z * z))


def _bernoulli_probs(d, v):
    return _inside((v == 0) | (v == 1), jnp.log(jnp.where(v == 1, d.probs, 1 - d.probs)))


def _bernoulli_logits(d, v):
    # a product, not a choice between logits: it is batched in the layout it has
    s = jnp.where(v == 1, 1.0, -1.0) * d.logits
    rest = jnp.log1p(jnp.exp(-jnp.abs(d.logits)))  # whatever the value
    return _inside((v == 0) | (v == 1), jnp.minimum(s, 0.0) - rest)


def _picked(weights, v):
    """`weights[..., v]`, and whether v is a category."""
    k = weights.shape[-1]
    ok = (v >= 0) & (v < k)
    v = jnp.clip(v, 0, k - 1)
    shape = jnp.broadcast_shapes(weights.shape[:-1], jnp.shape(v))
    weights = jnp.broadcast_to(weights, (*shape, k))
    index = jnp.broadcast_to(v, shape)[..., None]
    return jnp.take_along_axis(weights, index, -1)[..., 0], ok


def _categorical_probs(d, v):
    probability, ok = _picked(d.probs, v)  # no logarithm of a zero that is not picked
    return _inside(ok, jnp.log(probability))


def _categorical_logits(d, v):
    log, ok = _picked(jax.nn.log_softmax(d.logits, axis=-1), v)
    return _inside(ok, log)


def _mixture(d, v):
    """The sum of weighted densities, of which a weight of zero has a derivative, too."""
    if isinstance(d, dist.MixtureSameFamily):
        logs = log_density(d.component_distribution, jnp.expand_dims(v, d.mixture_dim))
    else:
        logs = jnp.stack([log_density(each, v) for each in d.component_distributions], -1)
    weights: Any = d.mixing_distribution.probs
    largest = jnp.max(jnp.where(weights > 0, logs, -jnp.inf), -1, keepdims=True)
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0))
    # components without weight can be denser by far: their ratio stays a number
    ratio = jnp.exp(jnp.minimum(logs - shift, math.log(jnp.finfo(logs.dtype).max) - 1))
    return jnp.log(jnp.sum(weights * ratio, -1)) + shift[..., 0]


def _levy(d, v):
    # numpyro's own asks for a support that is lost where a distribution is taken apart
    shifted = v - d.loc
    safe = jnp.where(shifted > 0, shifted, 1.0)
    half = 0.5 * (_log(d.scale) - math.log(2 * math.pi) - d.scale / safe)
    return _inside(shifted > 0, half - 1.5 * _log(safe))


def _von_mises(d, v):
    # numpyro's own takes a remainder of the angle first, whose jump the cosine does not have
    height = -_log(2 * jnp.pi * jax.scipy.special.i0e(d.concentration))
    return _inside(d.support(v), d.concentration * (jnp.cos(v - d.loc) - 1) + height)


_DENSITY: dict[type, Callable] = {
    dist.VonMises: _von_mises,
    dist.Levy: _levy,
    dist.Normal: _normal,
    dist.HalfNormal: _half_normal,
    dist.LogNormal: _log_normal,
    dist.Uniform: _uniform,
    dist.Exponential: _exponential,
    dist.Laplace: _laplace,
    dist.Cauchy: _cauchy,
    dist.HalfCauchy: _half_cauchy,
    dist.BernoulliProbs: _bernoulli_probs,
    dist.BernoulliLogits: _bernoulli_logits,
    dist.CategoricalProbs: _categorical_probs,
    dist.CategoricalLogits: _categorical_logits,
}

_MIXTURES = (dist.MixtureSameFamily, dist.MixtureGeneral)

# Samplers: (kind of base randomness, function of the distribution and the base).
# Normals come from normals; the others invert their distribution function.
_OPEN = 2.0**-32  # below every positive uniform: logarithms stay finite, supports open


def _between(d, u):
    """low + (high - low) u; a known unit interval costs no equation."""
    width = u if _is(d.low, 0) and _is(d.high, 1) else (d.high - d.low) * u
    return width if _is(d.low, 0) else d.low + width


_SEARCHED = 64


def _categorical(weights, u):
    """The first category whose cumulated weight exceeds `u` times the total.

    A category of weight zero is never chosen, whatever the rounding. Many draws from one
    long vector are searched for, so that n draws among n never take n^2 comparisons.
    """
    cumulative = jnp.cumsum(weights, -1)
    points = u[..., None] * cumulative[..., -1:]
    if weights.ndim == 1 and u.ndim and weights.size > _SEARCHED:
        below = jnp.searchsorted(cumulative, points[..., 0], side="right")
    else:
        below = jnp.sum(cumulative <= points, -1)
    last = weights.shape[-1] - 1 - jnp.argmax(jnp.flip(weights > 0, -1), -1)
    return jnp.minimum(below, last).astype(jnp.result_type(int))


_BASE: dict[type, tuple[str, Callable]] = {
    dist.Normal: ("normal", _affine),
    dist.HalfNormal: ("normal", lambda d, e: _scaled(d, jnp.maximum(jnp.abs(e), _OPEN))),
    dist.LogNormal: ("normal", lambda d, e: jnp.exp(_affine(d, e))),
    dist.Uniform: ("uniform", _between),
    dist.Exponential: ("uniform", lambda d, u: -jnp.log1p(-jnp.maximum(u, _OPEN)) / d.rate),
    dist.Laplace: (
        "uniform",
        lambda d, u: (
            d.loc
            - d.scale * jnp.sign(u - 0.5) * jnp.log1p(-2 * jnp.abs(jnp.maximum(u, _OPEN) - 0.5))
        ),
    ),
    dist.Cauchy: (
        "uniform",
        lambda d, u: _affine(d, jnp.tan(jnp.pi * (jnp.maximum(u, _OPEN) - 0.5))),
    ),
    dist.HalfCauchy: (
        "uniform",
        lambda d, u: _scaled(d, jnp.tan(jnp.maximum(u, _OPEN) * (jnp.pi / 2))),
    ),
    dist.BernoulliProbs: ("uniform", lambda d, u: (u < d.probs).astype(jnp.result_type(int))),
    dist.BernoulliLogits: (
        "uniform",
        lambda d, u: (u < jax.nn.sigmoid(d.logits)).astype(jnp.result_type(int)),
    ),
    dist.CategoricalProbs: ("uniform", lambda d, u: _categorical(d.probs, u)),
    dist.CategoricalLogits: (
        "uniform",
        lambda d, u: _categorical(jax.nn.softmax(d.logits, -1), u),
    ),
}


SCALAR_PARAMETERS = frozenset(
    {
        "Normal",
        "HalfNormal",
        "LogNormal",
        "Uniform",
        "Exponential",
        "Laplace",
        "Cauchy",
        "HalfCauchy",
        "BernoulliProbs",
        "BernoulliLogits",
    }
)
"""Kinds with a lean density and sampler in which every parameter broadcasts."""


def is_discrete(d: Any) -> bool:
    """Whether values are integers (no derivative passes through a draw)."""
    return bool(d.support.is_discrete)


def log_density(d: Any, value: Any) -> Any:
    """log p(value), one number per element of the batch shape; `-inf` off the support."""
    if 0 in d.batch_shape:  # no number, and numpyro's constraints cannot take an array of none
        return jnp.zeros(d.batch_shape)
    if isinstance(d, dist.Independent):
        inner = log_density(d.base_dist, value)
        dims = d.reinterpreted_batch_ndims
        return inner.sum(tuple(range(-dims, 0))) if dims else inner
    if type(d) is dist.ExpandedDistribution:
        inner = log_density(d.base_dist, value) if not d.base_dist.event_shape else None
        if inner is not None:
            return jnp.broadcast_to(inner, jnp.broadcast_shapes(inner.shape, d.batch_shape))
    lean = _DENSITY.get(type(d))
    if lean is not None:
        return lean(d, value)
    mixed = getattr(d, "mixing_distribution", None) if type(d) in _MIXTURES else None
    if isinstance(mixed, dist.CategoricalProbs):
        return _mixture(d, value)
    if isinstance(d, truncated.KINDS):
        found = truncated.log_density(d, value)
    else:
        found = stable(d, value, lambda: _usual(d, value))
    return _usual(d, value) if found is None else found


def _usual(d: Any, value: Any) -> Any:
    """log p(value) by a formula that is right at edges, or else by numpyro's."""
    found = edge_derivatives.log_density(d, value)
    return overflow_told(d, _validated(d).log_prob(value)) if found is None else found


def total_log_density(d: Any, value: Any) -> Any:
    """log p(value), summed over the batch shape.

    A normaliser that is a known number is multiplied by the number of elements. One that is not
    stays in the sum: a logarithm for each particle after its sum makes XLA's reductions on CPUs
    slow (1e5 particles of 1000 rows: 1.2 s for 44 ms; `findings/xla_cpu_scaled_squares.sh`).
    """
    inner: Any = elementwise(d)
    if type(inner) is dist.Normal and _is_known(inner.scale) and jnp.size(value) > 1:
        z = _centred(value, inner)
        shared = _log(inner.scale) + HALF_LOG_TWO_PI
        return mul(mul(-0.5, z), z).sum() - z.size * shared
    density = log_density(d, value)
    return density.sum() if jnp.ndim(density) else density


def _validated(d: Any) -> Any:
    d._validate_args = True
    for inner in ("base_dist", "_base_dist"):
        if isinstance(getattr(d, inner, None), dist.Distribution):
            _validated(getattr(d, inner))
    return d


def elementwise(d: Any) -> Any:
    """The distribution of the independent elements of a value (`to_event` undone)."""
    while isinstance(d, dist.Independent):
        d = d.base_dist
    return d


def base(d: Any) -> tuple[str, tuple[int, ...], Callable] | None:
    """`(kind, shape, transform)` of the base randomness, if the sampler has one."""
    shape = tuple(d.batch_shape) + tuple(d.event_shape)
    if isinstance(d, dist.Independent):
        return base(d.base_dist)
    if type(d) is dist.ExpandedDistribution and not d.base_dist.event_shape:
        inner = base(d.base_dist)
        if inner is None or type(d.base_dist) not in _BASE:
            return None
        return inner[0], shape, inner[2]
    found = _BASE.get(type(d))
    if found is None:
        return None
    kind, transform = found
    return kind, shape, partial(transform, d)


def standard(kind: str, key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Base randomness."""
    if kind == "normal":
        return jax.random.normal(key, shape, dtype)
    return jax.random.uniform(key, shape, dtype)


def float_of(leaves: list) -> Any:
    """The float dtype in which a distribution with these parameters works."""
    floats = [x for x in leaves if jnp.issubdtype(jax.typeof(x).dtype, jnp.floating)]
    strong = {jax.typeof(x).dtype for x in floats if not jax.typeof(x).weak_type}
    return strong.pop() if len(strong) == 1 else jnp.result_type(*floats, 0.0)


def describe(d: Any, leaves: list) -> dict[str, Any]:
    """Shape, dtype, kind and support of one value, without running anything."""
    innermost = d
    while isinstance(innermost, (dist.Independent, dist.ExpandedDistribution)):
        innermost = innermost.base_dist
    return {
        "shape": _shape(d),
        "dtype": np.dtype(_dtype(d, innermost, leaves)),
        "kind": type(innermost).__name__,
        "support": support_name(d.support),
    }


def _dtype(d: Any, innermost: Any, leaves: list) -> Any:
    """The dtype of one value: integers or floats by the support, for numpyro's own.

    Its samplers do not tell: some put out floats for counts, and one that is never run (of a
    choice that is observed) may fail. Of other classes only the sampler knows more.
    """
    if type(innermost) is dist.Delta:
        return jax.typeof(innermost.v).dtype
    if not type(innermost).__module__.startswith("numpyro."):
        try:
            return jax.eval_shape(lambda ls, k: ls.sample(k), d, jax.random.key(0)).dtype
        except Exception:  # it has none, or none that runs here
            pass
    return jnp.result_type(int) if is_discrete(d) else float_of(leaves)


def _shape(d: Any) -> tuple[int, ...]:
    return tuple(d.batch_shape) + tuple(d.event_shape)
