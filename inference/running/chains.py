"""Chains side by side: vectorised, in batches, or split over the devices of a mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ppl import errors

from ..validation.settings import check_count, shown


@dataclass(frozen=True)
class Chains:
    """`n` chains, run `batch_size` at a time (all when None) on each device of `mesh`.

    Nothing is communicated between devices while a block of steps runs.

    Raises:
      InvalidArgument: `batch_size` is not positive, or the devices along the first axis of
        `mesh` do not divide the chains.

    >>> import jax.numpy as jnp
    >>> from inference.running.chains import Chains
    >>> chains = Chains(3, batch_size=2)
    >>> chains.over(lambda x, y: x + y)((jnp.arange(3.0),), (10.0,)).tolist()
    [10.0, 11.0, 12.0]
    """

    n: int
    batch_size: int | None = None
    mesh: jax.sharding.Mesh | None = None

    def __post_init__(self):
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        if self.mesh is not None and not isinstance(self.mesh, jax.sharding.Mesh):
            raise errors.InvalidArgument(
                "The mesh is no mesh of devices.", where=errors.caller(), given=shown(self.mesh),
                expected="a jax.sharding.Mesh", fix="mesh=jax.make_mesh((4,), ('chains',))",
            )  # fmt: skip
        if self.mesh is not None and self.n % self.devices:
            raise errors.InvalidArgument(
                "The devices of the mesh do not divide the chains.",
                where=errors.caller(),
                given=f"{self.n} chains over {self.devices} devices",
                expected="a multiple of the number of devices along the mesh's first axis",
                fix=f"chains={self.devices * -(-self.n // self.devices)}",
            )

    @property
    def devices(self) -> int:
        return 1 if self.mesh is None else self.mesh.shape[self.mesh.axis_names[0]]

    def over(self, f: Callable) -> Callable[[tuple, tuple], Any]:
        """`(own, shared) -> f(*own, *shared)` for each chain: `own` has a chain axis in front."""

        def some(own: tuple, shared: tuple) -> Any:
            if self.batch_size is None or not jax.tree.leaves(own):
                size = self.n // self.devices
                return jax.vmap(lambda *mine: f(*mine, *shared), axis_size=size)(*own)
            return jax.lax.map(lambda mine: f(*mine, *shared), own, batch_size=self.batch_size)

        if self.mesh is None:
            return some
        split, whole = PartitionSpec(self.mesh.axis_names[0]), PartitionSpec()
        return jax.shard_map(
            some, mesh=self.mesh, in_specs=(split, whole), out_specs=split, check_vma=False
        )

    def put(self, tree: Any) -> Any:
        """Arrays of the host, with a chain axis in front, on the devices of their chains."""
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names[0]))

        return jax.tree.map(partial(_placed, sharding), tree)

    def share(self, tree: Any) -> Any:
        """Arrays of the host, or of one device, whole on each device."""
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        # among processes device_put refuses doubles that 32 bits can't hold, unless 64 are used
        return jax.tree.map(partial(_placed, sharding), tree)

    def get(self, tree: Any) -> Any:
        """All of the arrays on this host, those of other processes too."""
        if jax.process_count() > 1:
            tree = multihost_utils.process_allgather(tree, tiled=True)
        return jax.tree.map(np.asarray, tree)


def _placed(sharding: NamedSharding, leaf: Any) -> jax.Array:
    """An array of the host, or of one device, or keys, on the devices of a sharding."""
    dtype = jax.numpy.result_type(leaf)
    if jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        words = _placed(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    array = np.asarray(leaf, dtype)
    return jax.make_array_from_callback(array.shape, sharding, lambda i: array[i])
