"""Draws of gamma variables, many at once, and of what is made of them: beta, Dirichlet, t.

`jax.random.gamma` goes through its draws one after the other on a CPU. Here all of them make their
first proposal together, and the few that reject it make others, an eighth of all at a time. An
element's draw depends on its own key and place alone, not on what is beside it: under `vmap` too,
where more keys are more elements.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.util import clamp_probs

from .lockstep import lockstep


def gamma(key: jax.Array, concentration: Any) -> jax.Array:
    """One draw for each element of `concentration`, at rate 1.

    By squeezing cubes of normals (Marsaglia and Tsang 2000, "A simple method for generating gamma
    variables"), of which at least 95 % are taken; below concentration 1 by their section 6. Its
    derivative by the concentration is that of `jax.random.gamma`, implicit.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.gammas import gamma
    >>> x = gamma(jax.random.key(0), jnp.full(100_000, 2.5))
    >>> bool(abs(x.mean() - 2.5) < 5 * 2.5**0.5 / 100_000**0.5)
    True
    """
    data, impl = _data(key)
    return _gamma(impl, data, jnp.asarray(concentration))


def log_gamma(key: jax.Array, concentration: Any) -> jax.Array:
    """The logarithm of `gamma`, also where that is too small for a float.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.gammas import gamma, log_gamma
    >>> small = jnp.full(1000, 1e-4)
    >>> x, log_x = (draws(jax.random.key(0), small) for draws in (gamma, log_gamma))
    >>> bool((x == 0).any()), bool(jnp.isfinite(log_x).all())
    (True, True)
    """
    data, impl = _data(key)
    return _log_gamma(impl, data, jnp.asarray(concentration))


def _data(key: jax.Array) -> tuple[jax.Array, str]:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return jax.random.key_data(key), str(jax.random.key_impl(key))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gamma(impl: str, data: jax.Array, a: jax.Array) -> jax.Array:
    x, log_boost = _drawn(impl, data, a)
    return x * jnp.exp(log_boost)


@_gamma.defjvp
def _(impl: str, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    x = _gamma(impl, *primals)
    slope = jax.lax.random_gamma_grad(primals[1], x)  # type: ignore[call-arg]
    return x, slope * tangents[1]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_gamma(impl: str, data: jax.Array, a: jax.Array) -> jax.Array:
    x, log_boost = _drawn(impl, data, a)
    return jnp.log(x) + log_boost


@_log_gamma.defjvp
def _(impl: str, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    y = _log_gamma(impl, *primals)
    x = jnp.maximum(jnp.exp(y), jnp.finfo(y.dtype).tiny)
    slope = jax.lax.random_gamma_grad(primals[1], x)  # type: ignore[call-arg]
    return y, slope / x * tangents[1]


def _drawn(impl: str, data: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws at the concentration, or that plus one if it is below one; and what they lack then."""
    found = lockstep(partial(_many, impl), [], (data, a.ravel()))
    return jax.tree.map(lambda x: x.reshape(a.shape), found)


def _many(
    impl: str, mapped: tuple, shared: list, data: jax.Array, a: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of chains of keys, each with n elements: data (chains, ...) and `a` (chains, n)."""
    chains, n = a.shape
    keys = jax.vmap(partial(jax.random.split, num=3))(jax.random.wrap_key_data(data, impl=impl))
    small = a < 1
    d = jnp.where(small, a + 1, a) - 1 / 3
    c = 1 / jnp.sqrt(9 * d)

    def proposed(keys: jax.Array, shape: tuple, c: jax.Array, d: jax.Array) -> tuple:
        """A proposal, and whether it is taken."""
        for_z, for_u = keys[..., 0], keys[..., 1]
        z = jax.vmap(lambda k: jax.random.normal(k, shape, a.dtype))(for_z)
        u = jax.vmap(lambda k: jax.random.uniform(k, shape, a.dtype))(for_u)
        v = (1 + c * z) ** 3
        log_v = jnp.log(jnp.where(v > 0, v, 1.0))
        taken = (v > 0) & (jnp.log(u) < z**2 / 2 + d - d * v + d * log_v)
        return d * v, taken

    x, taken = proposed(keys, (n,), c, d)
    total, some = chains * n, -(-chains * n // 8)
    again, flat = keys[:, 2], (c.ravel(), d.ravel())

    def more(state: tuple) -> jax.Array:
        return ~jnp.all(state[1])

    def further(state: tuple) -> tuple:
        x, taken, tries = state
        left = jnp.nonzero(~taken, size=some, fill_value=total)[0]
        at = jnp.minimum(left, total - 1)
        own = jax.vmap(jax.random.fold_in)(again[at // n], at % n)
        pairs = jax.vmap(lambda k, i: jax.random.split(jax.random.fold_in(k, i)))(own, tries[at])
        new, now = proposed(pairs, (), *(part[at] for part in flat))
        where = jnp.where(now, left, total)
        return (
            x.at[where].set(new, mode="drop"),
            taken.at[where].set(True, mode="drop"),
            tries.at[left].add(1, mode="drop"),
        )

    # a concentration that is no number, or is not above zero, has no draws to wait for
    none = ~(a > 0) | jnp.isinf(a)
    start = x.ravel(), (taken | none).ravel(), jnp.zeros(total, jnp.int32)
    x = jax.lax.while_loop(more, further, start)[0].reshape(chains, n)

    def boosted() -> jax.Array:
        u = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, n), (n,), a.dtype))(again)
        return jnp.where(small, jnp.log1p(-u) / a, 0.0)

    log_boost = jax.lax.cond(jnp.any(small), boosted, lambda: jnp.zeros_like(a))
    return jnp.where(none, jnp.nan, x), log_boost


def _of_gamma(d: Any, key: jax.Array, shape: tuple) -> jax.Array:
    return gamma(key, _broadcast(d.concentration, shape)) / d.rate


def _of_inverse_gamma(d: Any, key: jax.Array, shape: tuple) -> jax.Array:
    return d.rate / gamma(key, _broadcast(d.concentration, shape))


def _of_beta(d: Any, key: jax.Array, shape: tuple) -> jax.Array:
    both = [_broadcast(c, shape) for c in (d.concentration1, d.concentration0)]
    logs = log_gamma(key, jnp.stack(both))
    return clamp_probs(jax.nn.sigmoid(logs[0] - logs[1]))


def _of_dirichlet(d: Any, key: jax.Array, shape: tuple) -> jax.Array:
    return clamp_probs(jax.nn.softmax(log_gamma(key, _broadcast(d.concentration, shape)), -1))


def _of_student_t(d: Any, key: jax.Array, shape: tuple) -> jax.Array:
    for_z, for_g = jax.random.split(key)
    df = _broadcast(d.df, shape)
    z = jax.random.normal(for_z, shape, df.dtype)
    return d.loc + d.scale * z * jnp.sqrt(df / 2 / gamma(for_g, df / 2))


def _broadcast(x: Any, shape: tuple) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(x, jnp.result_type(x, float)), shape)


SAMPLERS: dict[type, Callable[[Any, jax.Array, tuple], jax.Array]] = {
    dist.Gamma: _of_gamma,
    dist.Chi2: _of_gamma,
    dist.InverseGamma: _of_inverse_gamma,
    dist.Beta: _of_beta,
    dist.Dirichlet: _of_dirichlet,
    dist.StudentT: _of_student_t,
}
"""From a distribution, a key and a shape to draws, in place of numpyro's samplers."""


def sampler(d: Any) -> Callable[[jax.Array, tuple], jax.Array] | None:
    """That of `SAMPLERS` for a distribution, expanded or not; None if it has none."""
    while type(d) in (dist.Independent, dist.ExpandedDistribution):
        d = d.base_dist
    found = SAMPLERS.get(type(d))
    return None if found is None else partial(found, d)
