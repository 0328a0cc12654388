"""A process with Gaussian sites, folded along time: its mass and its marginals, in O(n).

A site is exp(linear f - precision f² / 2) at one input. It need have no mass of its own: its
precision may be zero, or negative, as long as the process with all of them has a density. So
sites are not the noisy observations of a Kalman filter, and what is carried here is in their
natural parameters. The derivative is a pass back, as of the evidence of a chain (de Jong 1989).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..gaussian.entries import (
    FEW,
    contract,
    entries,
    joined,
    lower,
    mirrored,
    packed,
    size,
    symmetric,
    times,
    unpacked,
)
from ..gaussian.ordered import ordered
from ..gaussian.process import GaussianProcess


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sites:
    """exp(linear f - precision f² / 2) at each input of a process, both `(n,)`.

    >>> import jax.numpy as jnp
    >>> from inference.sites.fold import Sites
    >>> Sites(jnp.array([1.0, 0.0]), jnp.array([2.0, 3.0])).log(jnp.array([2.0, 2.0])).tolist()
    [2.0, 6.0]
    """

    precision: jax.Array
    linear: jax.Array

    def log(self, f: jax.Array) -> jax.Array:
        """The log of each site at f, whose last axis is that of the inputs."""
        return (self.linear - 0.5 * self.precision * f) * f


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk:
    """A process as its states' walk in time: x_0 ~ N(0, P), x_t = A_t x_{t-1} + N(0, Q_t).

    Attributes:
      start, transition, noise, observation: P `(d, d)`, A and Q `(n, d, d)`, and h `(d,)`, of
        which f = level + h x.
      order: the place of each time in what was given, `(n,)`.
      level: the mean of f, in the order that was given.
    """

    start: jax.Array
    transition: jax.Array
    noise: jax.Array
    observation: jax.Array
    order: jax.Array
    level: jax.Array

    @property
    def dimension(self) -> int:
        return self.start.shape[0]

    def undone(self, values: jax.Array) -> jax.Array:
        """Values in the order of time, as the times were given."""
        return jnp.zeros_like(values).at[self.order].set(values)


def walk_of(process: GaussianProcess) -> Walk:
    """The walk of a process that is observed without noise."""
    level = process.mean
    each = jnp.ones(process.event_shape, level.dtype)
    found = ordered(process.kernel, jnp.asarray(process.times, level.dtype), each, each)
    cast = lambda x: jnp.asarray(x, level.dtype)  # noqa: E731
    chain = found.chain
    moves = jnp.broadcast_to(cast(chain.transition), (each.size, *chain.covariance.shape))
    return Walk(cast(chain.covariance), moves, jnp.broadcast_to(cast(chain.noise), moves.shape),
                cast(chain.observation), found.order, level)  # fmt: skip


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Folded:
    """A process with sites.

    Attributes:
      log_mass: log ∫ p(f) exp(Σ_i linear_i f_i - precision_i f_i² / 2) df.
      mean, variance: of each f_i, in the law that has this mass; as the times were given.
      level: the mean of f without sites.
      valid: whether there is such a law.
    """

    log_mass: jax.Array
    mean: jax.Array
    variance: jax.Array
    level: jax.Array
    valid: jax.Array


def fold(walk: Walk, sites: Sites) -> Folded:
    """The mass and the marginals of a process with sites, in the order of its times as given.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.fold import Sites, fold, walk_of
    >>> found = fold(walk_of(gp(Matern12(1.0), [0.0])), Sites(jnp.array([1.0]), jnp.array([3.0])))
    >>> found.mean.round(4).tolist(), found.variance.round(4).tolist()  # N(0, 1) times N(3; f, 1)
    ([1.5], [0.5])
    """
    here = in_time(walk, sites)
    found = _through(walk, here)
    after, curve, _ = _back(walk, found)
    left, narrowed = found.spread / found.fall, times(found.along, 1 / found.fall)
    mean = (found.at + found.spread * here.linear) / found.fall
    mean = mean + contract("i,i->", narrowed, after)
    drop = contract("i,i->", narrowed, contract("ij,j->i", curve, narrowed))
    mass = _mass(found, here) + jnp.sum(sites.log(walk.level))
    return Folded(mass, walk.level + walk.undone(mean), walk.undone(left - drop), walk.level,
                  jnp.all(found.bare > 0) & jnp.all(left > drop))  # fmt: skip


def log_mass(walk: Walk, sites: Sites) -> jax.Array:
    """log E[exp(Σ_i linear_i f_i - precision_i f_i² / 2)], f of the process.

    Derivatives of first order, forward and reverse, are made from one pass back.
    """
    plain = jnp.sum(sites.log(walk.level))
    return plain + _log_mass(walk, in_time(walk, sites))


def in_time(walk: Walk, sites: Sites) -> Sites:
    """The sites of f - level, in the order of time."""
    linear = sites.linear - sites.precision * walk.level
    return Sites(sites.precision[walk.order], linear[walk.order])


@jax.custom_jvp
def _log_mass(walk: Walk, here: Sites) -> jax.Array:
    return _mass(_through(walk, here), here)


@_log_mass.defjvp
def _derivative(primals: tuple, tangents: tuple) -> tuple:
    (walk, here), (turn, turn_here) = primals, tangents
    found = _through(walk, here)
    slopes, slopes_here = _score(walk, here, found)
    total = jnp.sum(slopes_here.precision * turn_here.precision)
    total = total + jnp.sum(slopes_here.linear * turn_here.linear)
    for name in ("start", "transition", "noise", "observation"):
        total = total + jnp.sum(getattr(slopes, name) * getattr(turn, name))
    return _mass(found, here), total


@dataclass(frozen=True)
class _Seen:
    """What a pass forward leaves, by entries, with times behind.

    Attributes:
      mean, covariance: m and P of each state before its site.
      along, spread, at: P h, h P h and h m.
      fall: 1 + precision h P h, by which the site divides the variance; 1 where it is not positive.
      bare: that, as it is.
      gain: precision / fall; `shift`: (linear - precision h m) / fall.
    """

    mean: Any
    covariance: Any
    along: Any
    spread: Any
    at: Any
    fall: Any
    bare: Any
    gain: Any
    shift: Any


def _seen(mean: Any, covariance: Any, h: Any, precision: Any, linear: Any) -> _Seen:
    along = contract("ij,j->i", covariance, h)
    spread, at = contract("i,i->", h, along), contract("i,i->", h, mean)
    bare = 1 + precision * spread
    fall = jnp.where(bare > 0, bare, 1.0)
    return _Seen(mean, covariance, along, spread, at, fall, bare, precision / fall,
                 (linear - precision * at) / fall)  # fmt: skip


def _sees(walk: Walk, behind: bool) -> Any:
    """h by its entries, beside what has times behind or not."""
    h = walk.observation
    return entries(h if h.shape[0] <= FEW or not behind else h[:, None], 1)


def _through(walk: Walk, here: Sites) -> _Seen:
    d, h = walk.dimension, _sees(walk, False)
    start = packed(entries(jnp.zeros_like(walk.observation), 1), entries(walk.start, 2))
    noise = jnp.moveaxis(lower(jnp.moveaxis(walk.noise, 0, -1)), -1, 0)

    def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        move, noise = entries(row[0], 2), symmetric(row[1], d)
        mean, covariance = unpacked(carry, d)
        mean = contract("ij,j->i", move, mean)
        half = contract("ij,jk->ik", move, covariance)
        covariance = mirrored(contract("ij,kj->ik", half, move) + noise)
        seen = _seen(mean, covariance, h, *row[2:])
        drop = times(contract("i,j->ij", seen.along, seen.along), seen.gain)
        after = packed(mean + times(seen.along, seen.shift), covariance - drop)
        return after, packed(mean, covariance)

    rows = walk.transition, noise, here.precision, here.linear
    _, found = lax.scan(step, start, rows)
    return _seen(*unpacked(found.T, d), _sees(walk, True), here.precision, here.linear)


def _mass(found: _Seen, here: Sites) -> jax.Array:
    """Σ of log E[exp(linear f - precision f² / 2)], f ~ N(at, spread)."""
    square = found.spread * here.linear**2 + 2 * found.at * here.linear
    square = (square - here.precision * found.at**2) / found.fall
    logs = jnp.where(found.bare > 0, square - jnp.log(found.fall), jnp.nan)
    return 0.5 * jnp.sum(logs)


def _back(walk: Walk, found: _Seen) -> tuple[Any, Any, jax.Array]:
    """A' r and A' N A of the next step, at each; and, packed, of the first.

    r is the derivative of the log mass in a state's mean before its site, N minus the second one.
    """
    d, h = walk.dimension, _sees(walk, False)
    gain = joined(times(found.along, found.gain))

    def step(carry: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        move = entries(row[0], 2)
        r, n = _before(*unpacked(carry, d), h, entries(row[1], 1), *row[2:])
        half = contract("ji,jk->ik", move, n)
        back = packed(contract("ji,j->i", move, r), mirrored(contract("ij,jk->ik", half, move)))
        return back, carry

    rows = walk.transition, gain.T, found.gain, found.shift
    last = jnp.zeros(d + size(d), gain.dtype)
    first, kept = lax.scan(step, last, rows, reverse=True)
    return *unpacked(kept.T, d), first


def _before(r: Any, n: Any, h: Any, gain: Any, precision: Any, shift: Any) -> tuple[Any, Any]:
    """r and N before a site, from those after it."""
    weighed = contract("ij,j->i", n, gain)
    pull = shift - contract("i,i->", gain, r)
    push = precision + contract("i,i->", gain, weighed)
    cross = contract("i,j->ij", h, weighed) + contract("i,j->ij", weighed, h)
    return r + times(h, pull), n - cross + times(contract("i,j->ij", h, h), push)


def _score(walk: Walk, here: Sites, found: _Seen) -> tuple[Walk, Sites]:
    """The derivative of the log mass in the walk and in the sites."""
    h = _sees(walk, True)
    after, curve, first = _back(walk, found)
    gain = times(found.along, found.gain)
    r, n = _before(after, curve, h, gain, found.gain, found.shift)
    square = contract("i,j->ij", r, r) - n

    mean = joined(found.mean + times(found.along, found.shift))
    drop = times(contract("i,j->ij", found.along, found.along), found.gain)
    covariance = joined(found.covariance - drop)
    ahead = jnp.zeros_like(mean[:, :1])
    before = entries(jnp.concatenate([ahead, mean[:, :-1]], -1), 1)
    spread = jnp.concatenate([walk.start[..., None], covariance[..., :-1]], -1)
    moves = entries(jnp.moveaxis(walk.transition, 0, -1), 2)
    moved = contract("ij,jk->ik", moves, entries(spread, 2))
    move = contract("i,j->ij", r, before) + contract("ij,jk->ik", square, moved)

    smooth = found.mean + contract("ij,j->i", found.covariance, r)
    back = contract("ij,j->i", found.covariance, contract("ij,j->i", n, found.along))
    tied = joined(found.along) - joined(back)  # Cov(x, f)
    f = found.at + contract("i,i->", found.along, r)
    variance = found.spread - contract("i,i->", found.along, contract("ij,j->i", n, found.along))
    seen = times(smooth, here.linear - here.precision * f)
    start, curve0 = unpacked(first, walk.dimension)
    slopes = dataclasses.replace(
        walk,
        start=joined(contract("i,j->ij", start, start) - curve0) / 2,
        transition=jnp.moveaxis(joined(move), -1, 0),
        noise=jnp.moveaxis(joined(square), -1, 0) / 2,
        observation=(joined(seen) - here.precision * tied).sum(-1),
    )
    return slopes, Sites(-(f**2 + variance) / 2, f)
