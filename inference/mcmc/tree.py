"""Trajectories that double until they turn back, for many chains at once.

The trees of the no-U-turn sampler without recursion. Every chain that still goes is at the
same leaf of the same doubling, so the loops have one condition and one index for all
chains, and a step selects only what differs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from ppl.lockstep import lockstep

from .decisions import Drawn, Keyed, branch
from .metric import InverseMass, kinetic_energy, velocity
from .turning import Point, looked_back, turned

# A trajectory whose energy error is larger than this is called divergent (Stan's number).
DIVERGENT = 1000.0


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
    inverse_mass: InverseMass,
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
    momentum at that end; and so where a subtree does that doubling makes.

    A chain's result does not depend on the chains beside it. Nothing is differentiated
    through a tree.

    Args:
      potential: of a position of shape (n,).
      start: where the trajectory starts.
      value: the potential there.
      inverse_mass: of shape (n,), dense (n, n), or of low rank.
      step_size: of a leapfrog step.
      bits: data of a `threefry2x32` key, of shape (2,).

    >>> import jax, jax.numpy as jnp
    >>> from inference.mcmc.tree import grow
    >>> from inference.mcmc.turning import Point
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
    jaxpr, metric, shared = _prepared(potential, start, inverse_mass, step_size)

    def program(
        mapped: tuple, shared: list, start: Point, value: jax.Array, bits: jax.Array
    ) -> Tree:
        by = Keyed.of(bits, max_depth, value.dtype)
        return Trees(jaxpr, metric, mapped, shared, by, max_depth).grow(start, value)

    return lockstep(program, shared, (start, value, bits))


def grow_by_draws(
    potential: Callable[[jax.Array], jax.Array],
    start: Point,
    value: jax.Array,
    inverse_mass: InverseMass,
    step_size: Any,
    max_depth: int,
    signs: Sequence[Any] | None = None,
    trees: type[Trees] | None = None,
) -> Tree:
    """`grow`, a random program: each direction and each choice is a draw.

    All of its 2**max_depth - 1 steps are written out one after the other, and are made by the
    same code as those of `grow`. So `ppl.law` gives the law of the transition, of one momentum.

    Args:
      signs: the directions where they are known, +1 or -1 for each doubling; then only the
        choices are drawn.
      trees: what makes the steps, if not `Trees`.

    >>> import jax.numpy as jnp
    >>> from inference.mcmc.tree import grow_by_draws
    >>> from inference.mcmc.turning import Point
    >>> from ppl import law
    >>> start = Point(jnp.zeros(1), jnp.ones(1), jnp.zeros(1))
    >>> flat = lambda z: 0.0 * z.sum()
    >>> tree = lambda: grow_by_draws(flat, start, jnp.zeros(()), jnp.ones(1), 1.0, 2)
    >>> found = law(lambda: tree().chosen.z)()
    >>> found.values.ravel().tolist()
    [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]
    >>> (24 * found.masses).round(9).tolist()
    [3.0, 6.0, 3.0, 3.0, 6.0, 3.0]
    """
    jaxpr, metric, shared = _prepared(potential, start, inverse_mass, step_size)
    mapped = (False,) * len(shared)
    grown = (trees or Trees)(jaxpr, metric, mapped, shared, Drawn(signs), max_depth)
    one = grown.grow(*jax.tree.map(lambda x: x[None], (start, value)))
    return jax.tree.map(lambda x: x[0], one)


def _prepared(potential: Callable, start: Point, inverse_mass: Any, step_size: Any) -> tuple:
    """The potential with its gradient as a jaxpr; and what it closes over, which may be traced,
    and mapped in its own way, after the step size and the masses, whose structure is told."""
    closed = jax.make_jaxpr(jax.value_and_grad(potential))(start.z)
    step_size = jnp.asarray(step_size, start.z.dtype)
    leaves, structure = jax.tree.flatten((step_size, inverse_mass))
    return closed.jaxpr, structure, [*leaves, *closed.consts]


class _Memory(NamedTuple):
    """What a half needs later on.

    Attributes:
      block: what decides on the next leaves.
      rows: of leaves that it left behind, by level: z and r where a subtree began, and z
        before that. Of shape (levels, 3, chains, n).
    """

    block: Any
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

    depth: Any
    leaf: Any
    whole: _Whole
    half: _Half
    stats: _Stats
    memory: _Memory


@dataclass(frozen=True)
class Trees:
    """Chains that grow together, with what stays the same meanwhile.

    Attributes:
      jaxpr: from a position to the potential and its gradient.
      metric: the structure of the step size and the inverse mass.
      mapped: whether each of `shared` has a chain axis in front.
      shared: the leaves of the step size and the inverse mass, and what the jaxpr closes over.
      by: what decides on directions and choices.
    """

    jaxpr: Any
    metric: Any
    mapped: tuple[bool, ...]
    shared: list
    by: Keyed | Drawn
    max_depth: int

    def grow(self, start: Point, value: jax.Array) -> Tree:
        chains, n = start.z.shape
        kinetic = self.each(lambda shared, r: kinetic_energy(self.parts(shared)[1], r), start.r)
        energy = value + kinetic.astype(value.dtype)
        zeros, none = jnp.zeros(chains, value.dtype), jnp.zeros(chains, bool)
        counts = jnp.zeros(chains, int)
        rows = jnp.zeros((max(1, self.max_depth - 1), 3, chains, n), start.z.dtype)
        chosen = Chosen(start.z, start.gradient, value, energy)
        sign = self.by.sign(0).astype(start.z.dtype)
        state = _Trajectories(
            depth=0,
            leaf=0,
            whole=_Whole(start, start, chosen, zeros),
            half=_Half(~none, sign, start, chosen, zeros - jnp.inf),
            stats=_Stats(zeros, counts, none),
            memory=_Memory(self.by.block, rows),
        )

        def more(state: _Trajectories) -> jax.Array:
            return (state.depth < self.max_depth) & jnp.any(state.half.going)

        if isinstance(self.by, Drawn):
            for _ in range(2**self.max_depth - 1):
                state = self.stepped(energy, state)
        else:
            state = state._replace(depth=jnp.zeros((), int), leaf=jnp.zeros((), int))
            state = lax.while_loop(more, partial(self.stepped, energy), state)
        accept, steps, diverging = state.stats
        # before doubling k it had made 2^k - 1 steps, and then at least one more
        depth = jnp.iinfo(steps.dtype).bits - lax.clz(steps)
        return Tree(state.whole.chosen, accept, steps, depth, diverging)

    def stepped(self, energy: jax.Array, state: _Trajectories) -> _Trajectories:
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
        share = jax.nn.sigmoid(-error - half.log_weight)
        taken, block = self.by.leaf(memory.block, number, share)
        rows, back = self.looked_back(memory.rows, leaf, half.end.z, end, sign)
        half = _Half(
            going=going & ~diverging & ~back,
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
        last = leaf + 1 == leaves
        if not isinstance(last, bool):
            last |= ~jnp.any(half.going)
        depth, leaf, whole, half = branch(
            last,
            lambda: self.joined(depth, middle, whole, half),
            lambda: (depth, leaf + 1, whole, half),
        )
        return _Trajectories(depth, leaf, whole, half, stats, _Memory(block, rows))

    def joined(
        self,
        depth: Any,
        middle: tuple[jax.Array, jax.Array],
        whole: _Whole,
        half: _Half,
    ) -> tuple[Any, Any, _Whole, _Half]:
        """The half as a part of the whole, and the next half, still empty."""
        forward = half.sign > 0
        far = _where(forward, whole.left, whole.right)
        back = turned(far.z, far.r, *middle, half.end, half.sign)
        ratio = jnp.exp(half.log_weight - whole.log_weight)
        taken = half.going & self.by.half(depth, ratio)
        going = half.going & ~back
        # a chain that stops needs no ends; that these are known only now lets XLA write the
        # new ends over the old ones, and copy nothing where no half has ended
        joined = _Whole(
            left=_where(going & ~forward, half.end, whole.left),
            right=_where(going & forward, half.end, whole.right),
            chosen=_where(taken, half.chosen, whole.chosen),
            log_weight=jnp.logaddexp(whole.log_weight, half.log_weight),
        )
        sign = half.sign  # of the last doubling there is no next one
        if not isinstance(depth, int) or depth + 1 < self.max_depth:
            sign = self.by.sign(depth + 1).astype(sign.dtype)
        empty = half._replace(
            going=going,
            sign=sign,
            end=_where(sign > 0, joined.right, joined.left),
            log_weight=jnp.full_like(half.log_weight, -jnp.inf),
        )
        return depth + 1, 0 * depth, joined, empty

    def leapfrog(
        self, shared: list, sign: jax.Array, going: jax.Array, start: Point
    ) -> tuple[Point, jax.Array, jax.Array]:
        """A step of one chain, with the potential and the kinetic energy after it."""
        step_size, inverse_mass, consts = self.parts(shared)
        step_size = sign * step_size
        r = start.r - 0.5 * step_size * start.gradient
        z = jnp.where(going, start.z + step_size * velocity(inverse_mass, r), start.z)
        value, gradient = jax.core.eval_jaxpr(self.jaxpr, consts, z)
        r = r - 0.5 * step_size * gradient
        return Point(z, r, gradient), value, kinetic_energy(inverse_mass, r)

    def looked_back(
        self, rows: jax.Array, leaf: Any, before: jax.Array, end: Point, sign: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """With `end` where it begins a subtree; else whether a subtree that it ends turns back."""
        return looked_back(rows, leaf, before, end, sign)

    def parts(self, shared: list) -> tuple[jax.Array, InverseMass, list]:
        """The step size, the inverse mass and the rest of what a chain shares with others."""
        n = self.metric.num_leaves
        step_size, inverse_mass = self.metric.unflatten(shared[:n])
        return step_size, inverse_mass, shared[n:]

    def each(self, f: Callable, *own: Any) -> Any:
        """`f(shared, *own)` for each chain."""
        axes = [0 if m else None for m in self.mapped]
        return jax.vmap(f, in_axes=(axes, *(0 for _ in own)))(self.shared, *own)


def _where(chains: jax.Array, a: Any, b: Any) -> Any:
    """Of each chain, `a` or `b`."""

    def one(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(chains.reshape(-1, *(1 for _ in x.shape[1:])), x, y)

    return jax.tree.map(one, a, b)
