"""Running a kernel: chains of draws by address, and their summary."""

from __future__ import annotations

import jax

from ppl import Target, seed
from ppl.addresses import flatten, nest
from ppl.randomness import checked_key

from .draws import Draws
from .kernels import Kernel


def sample_posterior(
    key: jax.Array,
    target: Target,
    kernel: Kernel,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    thin: int = 1,
    chains: int = 4,
) -> Draws:
    """Draws of the target's latents from `chains` vmapped chains of `kernel`.

    Each chain starts from the model's prior, runs `warmup` steps that are thrown
    away, then `draws * thin` steps of which every `thin`-th is kept.

    Args:
      key: one PRNG key; the same key gives the same draws.
      kernel: a random program from traces to traces that leaves `target` invariant.

    Raises:
      InvalidKey: `key` is not one PRNG key.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import mh, sample_posterior
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> draws = sample_posterior(jax.random.key(0), target, mh(target, "fair"))
    >>> bool(abs(draws.choices["fair"].mean() - 0.4) < 0.06)  # 4 * 1000 draws
    True
    """

    def chain():
        trace, _ = target.generate()

        def step(trace, _):
            return kernel(trace), None

        def keep(trace, _):
            trace, _ = jax.lax.scan(step, trace, None, length=thin)
            return trace, target.choices(trace)

        trace, _ = jax.lax.scan(step, trace, None, length=warmup)
        return jax.lax.scan(keep, trace, None, length=draws)[1]

    run = jax.jit(jax.vmap(seed(chain)))
    found = flatten(run(jax.random.split(checked_key(key), chains)))
    # jit sorts dicts; the model's own order reads better
    return Draws(nest({path: found[path] for path in target.latents}))
