"""The compiled part of a fit: a block of steps, each an estimate of a gradient and an update.

The parameters' start, and the data, are arguments of the program; the objective's functions, the
optimizer and the strategies are what it is compiled for. So a second fit that differs in numbers
only compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ppl import expectation, seed
from ppl.arguments import Arguments

_COMPARED = 256

DECAY = 3
"""Of the average over iterates: iterate t counts like t to this power."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "optimizer", "average"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Training:
    """Where a fit is.

    Attributes:
      parameters: the last iterate.
      optimizer: the optimizer's state.
      average: the mean of the iterates so far, late ones counting more (Shamir and Zhang,
        Stochastic gradient descent for non-smooth optimization, ICML 2013, section 4).
    """

    parameters: Any
    optimizer: Any
    average: Any


@dataclass(frozen=True)
class Regimen:
    """What a block is compiled for.

    Attributes:
      static: the objective, what of the parameters is not learned, and the data, but for arrays.
      optimizer: an optax `GradientTransformation`.
      strategies: by address, in a tuple; or a function of the arguments that gives a dict.
      samples: how many draws of the objective a step takes the mean of.
      buffer: the most steps that a block has.

    >>> import jax, numpyro.distributions as dist, optax
    >>> from inference.running.training import Regimen
    >>> from ppl import draw
    >>> from ppl.arguments import Arguments
    >>> near = lambda m: -draw(dist.Normal(m - 1.0, 0.1)) ** 2
    >>> call = Arguments.of((near, None, ()), {})
    >>> regimen = Regimen(call.static, optax.sgd(0.1), (), samples=1, buffer=100)
    >>> key, training = jax.random.key(0), regimen.begin(0.0)
    >>> training, values, bad = regimen.block(call.leaves, key, training, 0, 100)
    >>> int(bad), bool(abs(training.average - 1) < 0.1)
    (-1, True)
    """

    static: tuple
    optimizer: optax.GradientTransformation
    strategies: Any
    samples: int
    buffer: int

    @property
    def begin(self) -> Callable[[Any], Training]:
        """`parameters -> training`, the state before the first step."""
        return _begin(self.optimizer)

    @property
    def block(self) -> Callable[..., tuple[Training, jax.Array, jax.Array]]:
        """`(leaves, key, training, start, count) -> (training, values, bad)`, compiled once.

        `bad` is the first step whose value or gradient is no finite number, or -1.
        """
        return _block(self)

    @property
    def slope(self) -> Callable[..., tuple[jax.Array, Any]]:
        """`(leaves, key, parameters, t) -> (value, gradient)` of step number t."""
        return _compiled_slope(self)

    @property
    def gains(self) -> Callable[..., jax.Array]:
        """`(leaves, key, a, b) -> differences`: by how much the objective is more at a than at b,
        in draws with the same randomness."""
        return _gains(self)

    def estimate(self, leaves: Any, parameters: Any) -> Any:
        """One draw of the objective, whose derivatives are estimates: a random program."""
        function, rest, data = Arguments(leaves, self.static).args
        whole = eqx.combine(parameters, rest)
        chosen = self.strategies
        by_address: Any = chosen(whole, *data) if callable(chosen) else dict(chosen)
        biased = getattr(function, "biased", False)  # as whoever made it has asked for
        return expectation(function, by_address, allow_biased=biased)(whole, *data)

    def value(self, leaves: Any, key: jax.Array, parameters: Any, t: Any) -> jax.Array:
        """The objective's estimate of step number t."""
        one = seed(partial(self.estimate, leaves))
        key = jax.random.fold_in(key, t)
        if self.samples == 1:
            return one(key, parameters)
        keys = jax.random.split(key, self.samples)
        return jnp.mean(jax.vmap(one, (0, None))(keys, parameters))

    def gradient(self, leaves: Any, key: jax.Array, parameters: Any, t: Any) -> tuple:
        """The value, and the gradient, of step number t."""
        return jax.value_and_grad(lambda p: self.value(leaves, key, p, t))(parameters)

    def step(self, leaves: Any, key: jax.Array, t: Any, training: Training) -> tuple:
        """Step number t: the state after it, the value, and whether all of it are numbers."""
        value, slopes = self.gradient(leaves, key, training.parameters, t)
        flags = [jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(slopes)]
        fine = jnp.isfinite(value) & jnp.all(jnp.stack(flags))
        down = jax.tree.map(jnp.negative, slopes)  # optimizers minimise
        change, state = optax.with_extra_args_support(self.optimizer).update(
            down, training.optimizer, training.parameters,
            value=-value, grad=down, value_fn=lambda p: -self.value(leaves, key, p, t),
        )  # fmt: skip
        moved: Any = optax.apply_updates(training.parameters, change)
        share = (DECAY + 1) / (t + 1 + DECAY)
        average = jax.tree.map(
            lambda a, x: jnp.where(x == a, a, a + share * (x - a)).astype(a.dtype),
            training.average,
            moved,
        )
        return Training(moved, state, average), value, fine


@lru_cache(maxsize=64)
def _begin(optimizer: optax.GradientTransformation) -> Callable:
    return jax.jit(lambda parameters: Training(parameters, optimizer.init(parameters), parameters))


@lru_cache(maxsize=64)
def _gains(regimen: Regimen) -> Callable:
    def gains(leaves: Any, key: jax.Array, a: Any, b: Any) -> jax.Array:
        one = seed(partial(regimen.estimate, leaves))
        return jax.vmap(lambda key: one(key, a) - one(key, b))(jax.random.split(key, _COMPARED))

    return jax.jit(gains)


@lru_cache(maxsize=64)
def _compiled_slope(regimen: Regimen) -> Callable:
    return jax.jit(regimen.gradient)


@lru_cache(maxsize=64)
def _block(regimen: Regimen) -> Callable:
    def block(leaves: Any, key: Any, training: Training, start: Any, count: Any) -> tuple:
        def one(i: Any, carried: tuple) -> tuple:
            training, values, bad = carried
            t = start + i
            training, value, fine = regimen.step(leaves, key, t, training)
            bad = jnp.where(fine | (bad >= 0), bad, t)
            return training, values.at[i].set(value.astype(values.dtype)), bad

        begun = training, jnp.zeros(regimen.buffer), jnp.full_like(start, -1)
        return jax.lax.fori_loop(0, count, one, begun)

    return jax.jit(block)
