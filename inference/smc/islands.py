"""Islands: populations as particles, which resample within and meet only by their masses.

An island is one weighted value, whose value is a population. A step of populations acts `within`
it, and what it does to the population's mass goes to the island's weight. So islands are
resampled as any particles are, kept apart, or spread over the devices of a mesh (the island
particle model of Vergé, Dubarry, Del Moral and Moulines 2015; an instance of alpha-SMC, Whiteley,
Lee and Heine 2016).
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ppl import errors

from ..validation.objects import check_step
from ..validation.settings import check_count, shown
from ..weighted import Step, Weighted, check_weighted, each, log_evidence, spawn, then


def within(step: Step) -> Step:
    """A step of populations, as one of an island: what it adds to the mass goes to the weight.

    Proper from the islands' measure of g to that of g' if `step` is proper from g to g': an
    island of weight w stands for w times its population (a nested proper weight, Naesseth,
    Lindsten and Schön 2015). The population is left with mean weight one, so that the islands'
    weights alone say how much each of them counts. `each(within(step))` acts on many islands,
    and nothing passes between them.

    Args:
      step: from particles to particles, as `when_ess_below(0.5)` or `each(advance(...))`.

    Raises:
      ShapeError: of what is no island, or of many of them without `each`.

    Source: Vergé, Dubarry, Del Moral and Moulines, On parallel implementation of sequential
    Monte Carlo methods: the island particle model (Statistics and Computing 2015).

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, reweight, within
    >>> island = Weighted(Weighted(jnp.array([1.0, 3.0]), jnp.zeros(2)), jnp.log(5.0))
    >>> s = within(reweight(jnp.log))(island)  # the mean weight was one, and is two
    >>> print(f"{jnp.exp(s.log_weight):.4f}", jnp.exp(s.value.log_weight).round(4).tolist())
    10.0000 [0.5, 1.5]
    """
    check_step(step)

    def inside(island: Weighted) -> Weighted:
        if not isinstance(island.value, Weighted) or jnp.ndim(island.log_weight):
            kind = "islands" if isinstance(island.value, Weighted) else "particles"
            raise errors.ShapeError(
                "A step is within one island, whose value is a population.",
                where=errors.caller(), given=f"a Weighted of {kind}", expected="one island",
                fix="then(islands(8, 250), ..., each(within(step)), merged)",
            )  # fmt: skip
        moved = step(island.value)
        mass = log_evidence(moved)
        common = jnp.where(jnp.isfinite(mass), mass, 0.0)
        rest = replace(moved, log_weight=moved.log_weight - common)
        return Weighted(rest, island.log_weight + mass)

    return inside


def islands(k: int, n: int | None = None) -> Step:
    """`k` islands of `n` copies of one weighted value; the measure stays the same.

    Every leaf gets axes of sizes (k, n) in front. `merged` undoes it. Without `n` an island is
    the one value, for a step `within` that makes particles of it, as `annealed(...)` does.

    Raises:
      InvalidArgument: `k` or `n` is less than 1.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, islands, log_evidence, merged
    >>> s = islands(2, 3)(Weighted(jnp.array(7.0), jnp.array(0.5)))
    >>> s.value.value.shape, s.value.log_weight.tolist(), s.log_weight.tolist()
    ((2, 3), [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [0.5, 0.5])
    >>> flat = merged(s)
    >>> flat.value.shape, f"{log_evidence(flat):.4f}"
    ((6,), '0.5000')
    """
    check_count("k", k)
    people = then() if n is None else spawn(n)

    def settle(s: Weighted) -> Weighted:
        return Weighted(people(Weighted(s.value, jnp.zeros_like(s.log_weight))), s.log_weight)

    return then(spawn(k), each(settle))


def merged(weighted: Weighted) -> Weighted:
    """Islands as one population of all their particles; the measure stays the same.

    A particle's weight is its own times its island's.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, merged
    >>> people = Weighted(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.log(jnp.array([[0.5, 1.5]] * 2)))
    >>> s = merged(Weighted(people, jnp.log(jnp.array([2.0, 10.0]))))
    >>> s.value.tolist(), jnp.exp(s.log_weight).round(4).tolist()
    ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 5.0, 15.0])
    """
    check_weighted(weighted)
    people = weighted.value
    if not isinstance(people, Weighted) or jnp.ndim(people.log_weight) != 2:
        kind = "a population" if jnp.ndim(weighted.log_weight) else "one weighted value"
        raise errors.ShapeError(
            "Islands are merged, which are particles that are populations.",
            where=errors.caller(), given=kind, expected="islands of particles",
            fix="then(islands(4, 250), ..., merged)",
        )  # fmt: skip
    log_weight = people.log_weight + weighted.log_weight[:, None]
    value, log_weight = jax.tree.map(
        lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), (people.value, log_weight)
    )
    return Weighted(value, log_weight)


def spread(mesh: Mesh) -> Step:
    """Particles, or islands, over the devices of a mesh; the weighted value stays the same.

    Values are split along the mesh's first axis, and with them all that is done to each; log
    weights are on every device. So of `then(each(within(step)), spread(mesh))` one number an
    island is communicated, its weight: resampling within islands is local, while weights are
    exact. (Base randomness that a program draws at once for several steps may cross over between
    neighbours, a few numbers in all.) A `resample` of the islands themselves moves some of them
    between devices.

    Under `jit`, between the steps of an `over`. Random numbers do not depend on where they are
    made, so the devices make what one device makes.

    Args:
      mesh: as `jax.make_mesh((8,), ("islands",))`, of one process or several.

    Raises:
      InvalidArgument: the devices do not divide the particles, or there is no particle axis.

    >>> import jax, jax.numpy as jnp
    >>> from inference import Weighted, spread
    >>> step = jax.jit(spread(jax.make_mesh((1,), ("islands",))))
    >>> step(Weighted(jnp.array([1.0, 2.0]), jnp.zeros(2))).value.tolist()
    [1.0, 2.0]
    """
    if not isinstance(mesh, Mesh):
        raise errors.InvalidArgument(
            "The mesh is no mesh of devices.", where=errors.caller(), given=shown(mesh),
            expected="a jax.sharding.Mesh", fix="spread(jax.make_mesh((4,), ('islands',)))",
        )  # fmt: skip
    axis = mesh.axis_names[0]
    # the compiler works out where the rest goes, whatever the mesh says of its axes
    mesh = Mesh(mesh.devices, mesh.axis_names)
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((axis,), ()))

    def over_devices(weighted: Weighted) -> Weighted:
        shape = jnp.shape(weighted.log_weight)
        if not shape or shape[0] % mesh.shape[axis]:
            raise errors.InvalidArgument(
                "The devices of the mesh do not divide the particles.",
                where=errors.caller(),
                given=f"log weights of shape {shape}, over {mesh.shape[axis]} devices",
                expected=f"a multiple of {mesh.shape[axis]} particles or islands in front",
                fix=f"islands({mesh.shape[axis]}, n)",
            )
        value = jax.tree.map(lambda x: lax.with_sharding_constraint(x, split), weighted.value)
        return Weighted(value, lax.with_sharding_constraint(weighted.log_weight, whole))

    return over_devices
