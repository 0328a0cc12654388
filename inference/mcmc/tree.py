"""Trajectories that double until they turn back, for many chains at once.

The trees of the no-U-turn sampler without recursion. Every chain that still goes is at the
same leaf of the same doubling, so the loops have one condition and one index for all
chains, and a step selects only what differs between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from .lockstep import lockstep
from .metric import kinetic_energy, velocity

# A trajectory whose energy error is larger than this is called divergent (Stan's number).
DIVERGENT = 1000.0
# Uniforms that are drawn at once; most trees need no second block.
_BLOCK = 64


class Point(NamedTuple):
    """A point of phase space and the gradient of the potential there, each of shape (n,)."""

    z: jax.Array
    r: jax.Array
    gradient: jax.Array


class Chosen(NamedTuple):
    """A position that was chosen, its potential, and the energy at its momentum."""

    z: jax.Array
    gradient: jax.Array
    potential: jax.Array
    energy: jax.Array


class Tree(NamedTuple):
    """A finished trajectory.

    Attributes:
      chosen: the next state.
      accept: the acceptance probabilities of its steps, summed.
      steps: the number of leapfrog steps.
      depth: the number of doublings.
      diverging: whether an energy error was larger than `DIVERGENT`.
    """

    chosen: Chosen
    accept: jax.Array
    steps: jax.Array
    depth: jax.Array
    diverging: jax.Array


def grow(
    potential: Callable[[jax.Array], jax.Array],
    start: Point,
    value: jax.Array,
    inverse_mass: jax.Array,
    step_size: Any,
    bits: jax.Array,
    max_depth: int,
) -> Tree:
    """One transition that leaves exp(-potential(z) - kinetic(r)) invariant.

    A trajectory of leapfrog steps is doubled, forwards or backwards, until it turns back,
    diverges, or has been doubled `max_depth` times; a point of it is chosen by its weight,
    points of the newer half first (Betancourt 2017, appendices A.2 and A.3). It turns back
    where the line between its ends points against the momentum at one of them (Hoffman and
    Gelman 2014, equation 9), or the line from an end to just across the middle against the
    momentum at that end; and so where a subtree does that doubling makes. Of the leaves
    left behind, one for each level is still needed, and is found by the bits of the number
    of a leaf (Phan, Pradhan and Jankowiak 2019; Lao and Dillon 2019).

    A chain's result does not depend on the chains beside it. Nothing is differentiated
    through a tree.

    Args:
      potential: of a position of shape (n,).
      start: where the trajectory starts.
      value: the potential there.
      inverse_mass: of shape (n,), or dense (n, n).
      step_size: of a leapfrog step.
      bits: data of a `threefry2x32` key, of shape (2,).

    >>> import jax, jax.numpy as jnp
    >>> from inference.mcmc.tree import Point, grow
    >>> def potential(z):
    ...     return z @ z / 2
    >>> z, r = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> bits = jax.random.key_data(jax.random.key(0, impl="threefry2x32"))
    >>> tree = grow(potential, Point(z, r, z), potential(z), jnp.ones(2), 0.1, bits, 10)
    >>> int(tree.steps)  # all of a circle is 2 pi / 0.1 = 62.8 steps, half of it 31.4
    63
    >>> round(float(jnp.linalg.norm(tree.chosen.z)), 1)
    1.0
    """
    # what the potential closes over may be traced, and mapped in its own way
    closed = jax.make_jaxpr(jax.value_and_grad(potential))(start.z)
    shared = [jnp.asarray(step_size, start.z.dtype), inverse_mass, *closed.consts]

    def program(
        mapped: tuple, shared: list, start: Point, value: jax.Array, bits: jax.Array
    ) -> Tree:
        return _Trees(closed.jaxpr, mapped, shared, bits, max_depth).grow(start, value)

    return lockstep(program, shared, (start, value, bits))


class _Memory(NamedTuple):
    """What a half needs later on.

    Attributes:
      uniforms: for the next leaves, of shape (chains, block).
      rows: of leaves that it left behind, by level: z and r where a subtree began, and z
        before that. Of shape (levels, 3, chains, n).
    """

    uniforms: jax.Array
    rows: jax.Array


class _Stats(NamedTuple):
    accept: jax.Array
    steps: jax.Array
    diverging: jax.Array


class _Half(NamedTuple):
    """The half that a doubling adds, while it grows."""

    going: jax.Array
    sign: jax.Array
    end: Point
    chosen: Chosen
    log_weight: jax.Array


class _Whole(NamedTuple):
    """The trajectory that a half is added to."""

    left: Point
    right: Point
    chosen: Chosen
    log_weight: jax.Array


class _Trajectories(NamedTuple):
    """The chains that still go are all at the same `leaf` of the same doubling."""

    depth: jax.Array
    leaf: jax.Array
    whole: _Whole
    half: _Half
    stats: _Stats
    memory: _Memory


@dataclass(frozen=True)
class _Trees:
    """Chains that grow together, with what stays the same meanwhile."""

    jaxpr: Any
    mapped: tuple[bool, ...]
    shared: list
    bits: jax.Array
    max_depth: int

    def grow(self, start: Point, value: jax.Array) -> Tree:
        chains, n = start.z.shape
        kinetic = self.each(lambda shared, r: kinetic_energy(shared[1], r), start.r)
        energy = value + kinetic.astype(value.dtype)
        uniforms = self.uniforms(0, 2 * self.max_depth + 1 + _BLOCK, value.dtype)
        coins, block = jnp.split(uniforms, [2 * self.max_depth + 1], 1)
        zeros, none = jnp.zeros(chains, value.dtype), jnp.zeros(chains, bool)
        counts = jnp.zeros(chains, int)
        rows = jnp.zeros((max(1, self.max_depth - 1), 3, chains, n), start.z.dtype)
        chosen = Chosen(start.z, start.gradient, value, energy)
        sign = _sign(coins, 0, start.z.dtype)
        state = _Trajectories(
            depth=jnp.zeros((), int),
            leaf=jnp.zeros((), int),
            whole=_Whole(start, start, chosen, zeros),
            half=_Half(~none, sign, start, chosen, zeros - jnp.inf),
            stats=_Stats(zeros, counts, none),
            memory=_Memory(block, rows),
        )

        def more(state: _Trajectories) -> jax.Array:
            return (state.depth < self.max_depth) & jnp.any(state.half.going)

        state = lax.while_loop(more, partial(self.stepped, energy, coins), state)
        accept, steps, diverging = state.stats
        # before doubling k it had made 2^k - 1 steps, and then at least one more
        depth = jnp.iinfo(steps.dtype).bits - lax.clz(steps)
        return Tree(state.whole.chosen, accept, steps, depth, diverging)

    def stepped(self, energy: jax.Array, coins: jax.Array, state: _Trajectories) -> _Trajectories:
        """With a leaf more. Chains that have stopped stay where they are."""
        depth, leaf, whole, half, stats, memory = state
        going, sign = half.going, half.sign
        end, value, kinetic = self.each(self.leapfrog, sign, going, half.end)
        after = value + kinetic.astype(value.dtype)
        error = after - energy
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        diverging = error > DIVERGENT
        leaves = 1 << depth
        number = leaves - 1 + leaf  # from 0, in the whole trajectory
        uniforms = self.supplied(memory.uniforms, number)
        u = _column(uniforms, number & (_BLOCK - 1))
        taken = u < jax.nn.sigmoid(-error - half.log_weight)
        rows, turned = self.looked_back(memory.rows, leaf, half.end.z, end, sign)
        half = _Half(
            going=going & ~diverging & ~turned,
            sign=sign,
            end=end,
            chosen=_where(taken, Chosen(end.z, end.gradient, value, after), half.chosen),
            log_weight=jnp.logaddexp(half.log_weight, -error),
        )
        stats = _Stats(
            stats.accept + jnp.where(going, jnp.exp(jnp.minimum(-error, 0.0)), 0.0),
            stats.steps + going.astype(int),
            stats.diverging | (going & diverging),
        )
        middle = rows[0, 2], rows[0, 0]
        depth, leaf, whole, half = lax.cond(
            (leaf + 1 == leaves) | ~jnp.any(half.going),
            lambda: self.joined(coins, depth, middle, whole, half),
            lambda: (depth, leaf + 1, whole, half),
        )
        return _Trajectories(depth, leaf, whole, half, stats, _Memory(uniforms, rows))

    def joined(
        self,
        coins: jax.Array,
        depth: jax.Array,
        middle: tuple[jax.Array, jax.Array],
        whole: _Whole,
        half: _Half,
    ) -> tuple[jax.Array, jax.Array, _Whole, _Half]:
        """The half as a part of the whole, and the next half, still empty."""
        forward = half.sign > 0
        far = _where(forward, whole.left, whole.right)
        turned = _turned(far.z, far.r, *middle, half.end, half.sign)
        ratio = jnp.exp(half.log_weight - whole.log_weight)
        taken = half.going & (_column(coins, 2 * depth + 1) < ratio)
        going = half.going & ~turned
        # a chain that stops needs no ends; that these are known only now lets XLA write the
        # new ends over the old ones, and copy nothing where no half has ended
        joined = _Whole(
            left=_where(going & ~forward, half.end, whole.left),
            right=_where(going & forward, half.end, whole.right),
            chosen=_where(taken, half.chosen, whole.chosen),
            log_weight=jnp.logaddexp(whole.log_weight, half.log_weight),
        )
        sign = _sign(coins, 2 * depth + 2, half.sign.dtype)
        empty = half._replace(
            going=going,
            sign=sign,
            end=_where(sign > 0, joined.right, joined.left),
            log_weight=jnp.full_like(half.log_weight, -jnp.inf),
        )
        return depth + 1, jnp.zeros_like(depth), joined, empty

    def leapfrog(
        self, shared: list, sign: jax.Array, going: jax.Array, start: Point
    ) -> tuple[Point, jax.Array, jax.Array]:
        """A step of one chain, with the potential and the kinetic energy after it."""
        step_size, inverse_mass, *consts = shared
        step_size = sign * step_size
        r = start.r - 0.5 * step_size * start.gradient
        z = jnp.where(going, start.z + step_size * velocity(inverse_mass, r), start.z)
        value, gradient = jax.core.eval_jaxpr(self.jaxpr, consts, z)
        r = r - 0.5 * step_size * gradient
        return Point(z, r, gradient), value, kinetic_energy(inverse_mass, r)

    def looked_back(
        self, rows: jax.Array, leaf: jax.Array, before: jax.Array, end: Point, sign: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """With `end` where it begins a subtree; else whether a subtree that it ends turns back.

        A subtree of 2^k leaves ends at a leaf whose number has k ones or more at its end. It
        began with a leaf that lies in row `top` for k = 1, and a row lower for each k more.
        """
        top = lax.population_count(leaf >> 1)
        lowest = top - lax.population_count((~leaf & (leaf + 1)) - 1) + 1
        none = jnp.zeros(sign.shape, bool)

        def begun() -> tuple[jax.Array, jax.Array]:
            written = rows
            for k, x in enumerate((end.z, end.r, before)):
                written = lax.dynamic_update_slice(written, x[None, None], (top, k, 0, 0))
            return written, none

        def ended() -> tuple[jax.Array, jax.Array]:
            def more(state: tuple) -> jax.Array:
                return state[0] >= lowest

            def larger(state: tuple) -> tuple:
                i, turned = state
                middle = _leaf(rows, i + 1, 2), _leaf(rows, i + 1, 0)
                now = _turned(_leaf(rows, i, 0), _leaf(rows, i, 1), *middle, end, sign)
                return i - 1, turned | now

            pair = _against(_leaf(rows, top, 0), _leaf(rows, top, 1), end, sign)
            return rows, lax.while_loop(more, larger, (top - 1, pair))[1]

        return lax.cond(leaf & 1 == 0, begun, ended)

    def supplied(self, uniforms: jax.Array, number: jax.Array) -> jax.Array:
        """Uniforms for leaf `number` and after."""

        def fresh() -> jax.Array:
            return self.uniforms(number // _BLOCK, _BLOCK, uniforms.dtype)

        needed = (number > 0) & (number & (_BLOCK - 1) == 0)
        return lax.cond(needed, fresh, lambda: uniforms)

    def each(self, f: Callable, *own: Any) -> Any:
        """`f(shared, *own)` for each chain."""
        axes = [0 if m else None for m in self.mapped]
        return jax.vmap(f, in_axes=(axes, *(0 for _ in own)))(self.shared, *own)

    def uniforms(self, block: Any, n: int, dtype: Any) -> jax.Array:
        """Block number `block`, by a key of its own: the next one is as good as any other."""

        def one(bits: jax.Array) -> jax.Array:
            bits = bits + jnp.stack([jnp.zeros_like(bits[1]), jnp.asarray(block, bits.dtype)])
            key = jax.random.wrap_key_data(bits, impl="threefry2x32")
            return jax.random.uniform(key, (n,), dtype)

        return jax.vmap(one)(self.bits)


def _turned(
    z: jax.Array, r: jax.Array, before: jax.Array, after: jax.Array, end: Point, sign: jax.Array
) -> jax.Array:
    """Whether trajectories from (z, r) to `end` turn back; `before` and `after` their middle.

    Without the looks across the middle, a trajectory that closes a circle in one doubling
    goes on to `max_depth`.
    """
    across = _dot(after - z, r) * sign <= 0
    return across | (_dot(end.z - before, end.r) * sign <= 0) | _against(z, r, end, sign)


def _against(z: jax.Array, r: jax.Array, end: Point, sign: jax.Array) -> jax.Array:
    line = end.z - z
    return (_dot(line, r) * sign <= 0) | (_dot(line, end.r) * sign <= 0)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, -1)


def _where(chains: jax.Array, a: Any, b: Any) -> Any:
    """Of each chain, `a` or `b`."""

    def one(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(chains.reshape(-1, *(1 for _ in x.shape[1:])), x, y)

    return jax.tree.map(one, a, b)


def _sign(coins: jax.Array, i: Any, dtype: Any) -> jax.Array:
    return jnp.where(_column(coins, i) < 0.5, 1.0, -1.0).astype(dtype)


def _column(x: jax.Array, i: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(x, i, 1, keepdims=False, allow_negative_indices=False)


def _leaf(rows: jax.Array, i: jax.Array, k: int) -> jax.Array:
    return lax.dynamic_slice(rows, (i, k, 0, 0), (1, 1, *rows.shape[2:]))[0, 0]
