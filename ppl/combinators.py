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

    The choices are stacked in front, one for each index of the mapped axis; `in_axes` and
    `axis_size` are those of `jax.vmap`. The score is the sum over the copies.

    Raises:
      ValueError: JAX's own, when the mapped axes differ in size.

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
    """`(init, xs) -> (carry, ys)`: `model(carry, x) -> (carry, y)` along the leading axis.

    `length` and `reverse` are those of `lax.scan`; choices are stacked in front, and with
    `reverse` the last step comes first in time but stays last in the stack.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, sample, scan
    >>> @gen
    ... def step(position, size):
    ...     position = sample("x", dist.Normal(position, size))
    ...     return position, position
    >>> score, (last, path) = scan(step).assess({"x": jnp.array([1.0, 3.0])}, 0.0, jnp.ones(2))
    >>> print(f"{score:.4f}", last, path)  # steps of 1 and 2: -(1 + 4) / 2 - log(2 pi)
    -4.3379 3.0 [1. 3.]
    """

    def scanned(init, xs=None):
        return lax.scan(lambda c, x: inline(model(c, x)), init, xs, length=length, reverse=reverse)

    return GenerativeFunction(scanned, name=f"scan({model.name})")


def repeat(model: GenerativeFunction, n: int) -> GenerativeFunction:
    """`n` independent runs of `model` on the same arguments, stacked in front.

    Every choice has an axis of size `n` in front, and the return value too.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, law, repeat, sample
    >>> coin = gen(lambda p: sample("heads", dist.Bernoulli(p)))
    >>> heads = law(lambda: repeat(coin, 2).simulate(0.5).retval.sum())()
    >>> heads.values.tolist(), heads.masses.round(4).tolist()
    ([0, 1, 2], [0.25, 0.5, 0.25])
    """

    def repeated(*args):
        return jax.vmap(lambda _: inline(model(*args)))(jnp.arange(n))

    return GenerativeFunction(repeated, name=f"repeat({model.name}, {n})")


def switch(*models: GenerativeFunction) -> GenerativeFunction:
    """`(index, *args)`: the choices of `models[index](*args)`; the others' are absent (0).

    All take the same arguments and return the same shapes and dtypes. An address that several
    of them have is one choice, of one shape, dtype and kind of support. An index outside the
    range is clamped, as `lax.switch` does.

    Raises:
      BranchMismatch: two of the models make the same choice differently.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample, switch
    >>> coin = gen(lambda p: sample("coin", dist.Bernoulli(p)))
    >>> die = gen(lambda p: sample("die", dist.DiscreteUniform(1, 6)))
    >>> trace, log_weight = switch(coin, die).generate({"die": 3}, 1, 0.5)
    >>> int(trace["die"]), int(trace["coin"]), f"{log_weight:.4f}"  # log 1/6
    (3, 0, '-1.7918')
    >>> {name: bool(there) for name, there in trace.present.items()}
    {'coin': False, 'die': True}
    """

    def switched(index, *args):
        return lax.switch(index, [lambda *a, m=m: inline(m(*a)) for m in models], *args)

    return GenerativeFunction(switched, name=f"switch({', '.join(m.name for m in models)})")


def mask(model: GenerativeFunction) -> GenerativeFunction:
    """`(flag, *args) -> retval`: `model(*args)` if `flag`, else no choices and zeros.

    Without the flag every choice is absent: value 0, log density 0, `present` false.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, mask, sample
    >>> coin = gen(lambda p: sample("heads", dist.Bernoulli(p)))
    >>> scores = [mask(coin).assess({"heads": 0}, flag, 0.25)[0] for flag in (True, False)]
    >>> [f"{score:.4f}" for score in scores]  # log 3/4, and nothing
    ['-0.2877', '0.0000']
    """

    def masked(flag, *args):
        staged = model.staged(model(*args).arguments)[0]
        blank = staged.rebuild([jnp.zeros(a.shape, a.dtype) for a in staged.jaxpr.out_avals])
        return lax.cond(flag, lambda *a: inline(model(*a)), lambda *_: blank, *args)

    return GenerativeFunction(masked, name=f"mask({model.name})")


def mix(*models: GenerativeFunction) -> GenerativeFunction:
    """`(weights, *args)`: component k with probability `weights[k]`, chosen at `"component"`.

    `weights` are probabilities, one for each model; the mixture over "component" is not
    summed out. A choice of the other components is absent (0).

    Raises:
      InvalidDistribution: the weights are known and do not add up to one.
      BranchMismatch: two of the models make the same choice differently.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import gen, integrate, mix, sample
    >>> low = gen(lambda: sample("x", dist.Bernoulli(0.25)))
    >>> high = gen(lambda: sample("x", dist.Bernoulli(0.75)))
    >>> model = mix(low, high)
    >>> evidence = integrate(lambda: jnp.exp(model.generate({"x": 1}, jnp.array([0.5, 0.5]))[1]))
    >>> print(f"{evidence():.4f}")  # (1/4 + 3/4) / 2
    0.5000
    """

    def mixed(weights, *args):
        k = sample("component", dist.Categorical(weights))
        return lax.switch(k, [lambda *a, m=m: inline(m(*a)) for m in models], *args)

    return GenerativeFunction(mixed, name=f"mix({', '.join(m.name for m in models)})")
