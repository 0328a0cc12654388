"""Combinators: generative functions from generative functions.

Each is the named form of one JAX construct around the choices of its bodies
(`jax.vmap`, `lax.scan`, `lax.switch`, ...): the choices lie at the current
address, stacked along the construct's axis, and all laws follow from the one walk.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from .generative import GenerativeFunction
from .language import inline, sample


def vmap(
    model: GenerativeFunction, in_axes: Any = 0, axis_size: int | None = None
) -> GenerativeFunction:
    """Independent copies of `model` along mapped arguments; choices stacked in front.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, sample, vmap
    >>> point = gen(lambda m: sample("y", dist.Normal(m, 1.0)))
    >>> score, _ = vmap(point).assess({"y": jnp.zeros(3)}, jnp.zeros(3))
    >>> print(f"{score:.4f}")
    -2.7568
    """

    def mapped(*args):
        return jax.vmap(lambda *a: inline(model(*a)), in_axes, axis_size=axis_size)(*args)

    return GenerativeFunction(mapped, name=f"vmap({model.name})")


def scan(
    model: GenerativeFunction, length: int | None = None, reverse: bool = False
) -> GenerativeFunction:
    """`(init, xs) -> (carry, ys)`: `model(carry, x) -> (carry, y)` along the leading axis."""

    def scanned(init, xs=None):
        return lax.scan(lambda c, x: inline(model(c, x)), init, xs, length=length, reverse=reverse)

    return GenerativeFunction(scanned, name=f"scan({model.name})")


def repeat(model: GenerativeFunction, n: int) -> GenerativeFunction:
    """`n` independent runs of `model` on the same arguments, stacked in front."""

    def repeated(*args):
        return jax.vmap(lambda _: inline(model(*args)))(jnp.arange(n))

    return GenerativeFunction(repeated, name=f"repeat({model.name}, {n})")


def switch(*models: GenerativeFunction) -> GenerativeFunction:
    """`(index, *args)`: the choices of `models[index](*args)`; the others' are absent (0)."""

    def switched(index, *args):
        return lax.switch(index, [lambda *a, m=m: inline(m(*a)) for m in models], *args)

    return GenerativeFunction(switched, name=f"switch({', '.join(m.name for m in models)})")


def mask(model: GenerativeFunction) -> GenerativeFunction:
    """`(flag, *args) -> retval`: `model(*args)` if `flag`, else no choices and zeros."""

    def masked(flag, *args):
        staged = model.staged(model(*args).arguments)[0]
        blank = staged.rebuild([jnp.zeros(a.shape, a.dtype) for a in staged.jaxpr.out_avals])
        return lax.cond(flag, lambda *a: inline(model(*a)), lambda *_: blank, *args)

    return GenerativeFunction(masked, name=f"mask({model.name})")


def mix(*models: GenerativeFunction) -> GenerativeFunction:
    """`(weights, *args)`: component k with probability `weights[k]`, chosen at `"component"`."""

    def mixed(weights, *args):
        k = sample("component", dist.Categorical(weights))
        return lax.switch(k, [lambda *a, m=m: inline(m(*a)) for m in models], *args)

    return GenerativeFunction(mixed, name=f"mix({', '.join(m.name for m in models)})")
