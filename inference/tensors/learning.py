"""A sweep that learns: hyperparameters go up the slope of the bound, by Adam on their logs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .beliefs import Told, begun, nothing_told
from .entries import Entries
from .model import Tensor
from .noise import Likelihood
from .sums import of_predictor
from .sweep import State, swept

ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """A model whose hyperparameters are learned, the state of inference, and that of Adam."""

    tensor: Tensor
    state: State
    moments: Any


def _learned(tensor: Tensor) -> tuple[Any, dict[str, Any]]:
    return tensor.kernels, tensor.noise.learned


def first_run(tensor: Tensor, state: State) -> Run:
    """A run before its first sweep, whose types are those after it: it is compiled once."""
    tensor, state = jax.tree.map(_strong, (tensor, state))
    return Run(tensor, state, ADAM.init(_learned(tensor)))


def _strong(x: Any) -> jax.Array:
    return jax.lax.convert_element_type(x, jnp.result_type(x))


@jax.jit
def sweep_and_learn(
    run: Run, rows: Entries, y: jax.Array, held: Told, damping: Any, rate: Any
) -> Run:
    """One sweep, and one step of hyperparameters; their factors are at most about exp(rate).

    The state is that of the hyperparameters before the step.
    """
    state, slopes = swept(run.tensor, rows, y, run.state, held, damping)
    learned = _learned(run.tensor)
    by_log = jax.tree.map(lambda s, x: s * x, (slopes.kernels, slopes.noise), learned)
    step, moments = ADAM.update(by_log, run.moments)
    kernels, noise = jax.tree.map(lambda x, s: x * jnp.exp(rate * s), learned, step)
    tensor = replace(run.tensor, kernels=kernels, noise=run.tensor.noise.with_learned(noise))
    return Run(tensor, state, moments)


@jax.jit
def started(key: Any, tensor: Tensor, rows: Entries, y: jax.Array) -> State:
    """Where a start begins: small functions at random, and noise as large as the data."""
    if isinstance(tensor.noise, Likelihood):
        spread, precision = jnp.asarray(0.1), None
    else:
        variance = jnp.var(y) + 1e-12 * (1 + jnp.mean(y) ** 2)
        spread, precision = 0.1 * jnp.sqrt(variance), 1 / variance
    beliefs = begun(key, tensor, rows.coordinates, spread, precision)
    if precision is None:
        weight, pull = jnp.zeros_like(spread * y), jnp.zeros_like(spread * y)
    else:
        weight = jnp.broadcast_to(precision, y.shape)
        pull = weight * y
    none = jnp.asarray(-jnp.inf)
    return State(beliefs, nothing_told(tensor, rows.sizes), weight, pull, none, none)


@jax.jit
def going_on(tensor: Tensor, rows: Entries, y: jax.Array, state: State, told: Told) -> State:
    """The state with the same beliefs, for other entries, which have told so much before."""
    beliefs = state.beliefs
    found = of_predictor(
        tensor, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index
    )
    own: Any = tensor.of_entries(beliefs.precision, rows.index)
    weight, pull = tensor.noise.seen_as(y, *found, own)
    none = jnp.asarray(-jnp.inf)
    return State(beliefs, told, weight, pull, none, none)
