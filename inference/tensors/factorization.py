"""What message passing gives: beliefs of all functions, predictions, and room for more entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target, errors, seed
from ppl.randomness import checked_key

from ..results.draws import Draws
from ..validation.settings import check_count, shown
from .advice import advice_on
from .beliefs import Beliefs, Told
from .entries import Entries, entries
from .grid import believed, placed, spread_out, together
from .law import law_of
from .model import Tensor, in_order
from .predicted import Predicted
from .sites import drawn
from .sums import of_predictor
from .trimming import shares


@dataclass(frozen=True)
class Chunk:
    """Entries that were learned from.

    Attributes:
      rows, y: where they are, and what they are.
      told: what they told, and
      constant: the number by which the mean of that is less than their mean log density.
    """

    rows: Entries
    y: jax.Array
    told: Told
    constant: jax.Array


@dataclass(frozen=True, eq=False)
class Factorization:
    """The posterior of a functional tensor as `message_passing` finds it.

    Attributes:
      prior: the model that was given, with the hyperparameters that it had.
      tensor: its program with the hyperparameters that were learned.
      beliefs: the law of functions, core, constant and precision, independent of each other.
      chunks: the sets of entries, in the order in which they came.
      held, constant: what entries told that are not kept, see `forget`.
      bounds: the evidence bound after each sweep, in nats. Of several chunks, earlier entries
        count as they did when they were last looked at: that is right to first order.
      status: "converged after ...", or how it ended before.
      starts: the bound that each start had come to.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> rows = entries({"x": x})
    >>> target = Target(cp(1, {"x": Matern32(0.5)}), (rows,), {"y": jnp.sin(3 * x)})
    >>> found = message_passing(jax.random.key(0), target, learn=False, starts=1)
    >>> found, bool(found)
    (Factorization(cp of x; 20 entries; converged after 17 sweeps), True)
    """

    prior: GenerativeFunction
    tensor: Tensor
    beliefs: Beliefs
    chunks: tuple[Chunk, ...]
    held: Told
    constant: jax.Array
    bounds: np.ndarray
    status: str
    starts: tuple[float, ...] = field(default=())

    def __bool__(self) -> bool:
        """Whether it has converged."""
        return self.status.startswith("converged")

    def __repr__(self) -> str:
        count = sum(chunk.rows.count for chunk in self.chunks)
        modes = ", ".join(self.tensor.names)
        return f"Factorization({self.prior.name} of {modes}; {count} entries; {self.status})"

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do to have a better one: a sentence each; none if there is nothing."""
        return advice_on(self)

    @property
    def bound(self) -> float:
        """The evidence bound: at most log p(y), but for a `Likelihood`."""
        return float(self.bounds[-1])

    @property
    def model(self) -> GenerativeFunction:
        """The model with the hyperparameters that were learned."""
        return GenerativeFunction(self.tensor, name=self.prior.name)

    @property
    def rows(self) -> Entries:
        """The entries of the last chunk; all chunks have its coordinates."""
        return self.chunks[-1].rows

    @property
    def target(self) -> Target:
        """The posterior, given all entries, with the hyperparameters that were learned."""
        index = jnp.concatenate([chunk.rows.index for chunk in self.chunks])
        rows = replace(self.rows, index=index)
        y = jnp.concatenate([chunk.y for chunk in self.chunks])
        return Target(self.model, (rows,), {"y": y})

    @property
    def told(self) -> Told:
        """What all entries say."""
        total = self.held
        for chunk in self.chunks:
            total = total + chunk.told
        return total

    @property
    def law(self) -> GenerativeFunction:
        """The law found, of all latent choices: an exact density, and joint draws.

        So it is a proposal, a guide, or where a chain starts; as a proposal it shows how far it
        is from the posterior.
        """
        return law_of(self.tensor, self.beliefs, self.rows.coordinates, self.told.modes)

    def functions(self, name: str, at: Any = None) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of a mode's functions, `(p, n)`, at its coordinates.

        Args:
          name: of the mode.
          at: other coordinates, `(n,)`, in any order: the kernels tell what is between and beyond.

        Raises:
          InvalidArgument: there is no such mode, or `at` is not of finite numbers.
        """
        k = self._mode(name)
        if at is None:
            mode, order = self.beliefs.modes[k], slice(None)
        else:
            rows = self.rows
            line = Entries((rows.coordinates[k],), rows.index[:, k : k + 1], (name,))
            new = entries({name: at})
            both = together(line, new)
            told = spread_out(replace(self.told, modes=(self.told.modes[k],)), line, both)
            one = replace(self.tensor, kernels=(self.tensor.kernels[k],))
            mode = believed(one, self.beliefs, both, told).modes[0]
            order = placed(new, both).index[:, 0]
        variance = jnp.diagonal(mode.second, axis1=1, axis2=2) - mode.mean**2
        return mode.mean[order].T, jnp.sqrt(jnp.maximum(variance, 0.0))[order].T

    def _mode(self, name: str) -> int:
        if name not in self.tensor.names:
            raise errors.InvalidArgument(
                "There is no mode of that name.", where=errors.caller(), given=shown(name),
                expected=" or ".join(map(repr, self.tensor.names)),
                fix=f"{self.tensor.names[0]!r}",
            )  # fmt: skip
        return self.tensor.names.index(name)

    def _on(self, rows: Entries) -> tuple[Beliefs, Told, Entries]:
        """The beliefs, what was told, and the rows, on a grid that holds their coordinates."""
        rows = in_order(rows, self.tensor.names)
        grid = together(self.rows, rows)
        told = spread_out(self.told, self.rows, grid, self.tensor.noise.by)
        if all(a.size == b.size for a, b in zip(grid, self.rows.coordinates, strict=True)):
            return self.beliefs, told, placed(rows, grid)
        return believed(self.tensor, self.beliefs, grid, told), told, placed(rows, grid)

    def predict(self, rows: Entries) -> Predicted:
        """The law of what other entries are, each by itself, at any coordinates.

        Functions at new coordinates have the law that the kernels give them. A predictor is
        taken as normal with its exact mean and variance; `draw_entries` does not.

        Raises:
          InvalidArgument: rows are no entries of the model's modes.
        """
        beliefs, _, rows = self._on(rows)
        mean, variance = of_predictor(
            self.tensor, beliefs.means, beliefs.seconds, beliefs.core, beliefs.level, rows.index
        )
        own = self.tensor.of_entries(beliefs.precision, rows.index)
        return Predicted(mean, jnp.sqrt(variance), self.tensor.noise, own)

    def draw_entries(self, key: jax.Array, rows: Entries, n: int = 100) -> jax.Array:
        """n joint draws of what other entries are, `(n, N)`.

        Raises:
          InvalidKey: `key` is not one PRNG key.
          InvalidArgument: n is not positive, or rows are no entries of the model's modes.
        """
        check_count("n", n)
        beliefs, told, rows = self._on(rows)
        tensor = self.tensor

        def one(key: jax.Array) -> jax.Array:
            *keys, for_core, for_level, for_noise, last = jax.random.split(
                key, len(tensor.names) + 4
            )
            parts = zip(keys, tensor.kernels, rows.coordinates, told.modes, strict=True)
            functions = [drawn(kernels, at, sites, key).T for key, kernels, at, sites in parts]
            core = tensor.known_core
            if tensor.has_core and beliefs.core is not None:
                mean, second = beliefs.core
                spread = second - jnp.outer(mean, mean)
                core = jax.random.multivariate_normal(for_core, mean, spread)
            level = beliefs.level[0]
            level = level + jnp.sqrt(beliefs.level[1]) * jax.random.normal(for_level)
            precision = None
            if beliefs.precision is not None:
                draw = jax.random.gamma(for_noise, beliefs.precision.shape)
                precision = draw / beliefs.precision.rate
            predictor = tensor.predictor(functions, core, level, rows)
            own = tensor.of_entries(precision, rows.index)
            return jnp.asarray(tensor.noise.law(predictor, own).sample(last))

        return jax.lax.map(jax.jit(one), jax.random.split(checked_key(key), n))

    def draws(self, key: jax.Array, n: int = 1000) -> Draws:
        """Independent draws of all latent choices from the law found, in one chain.

        `to_datatree` exports them, and `summary` tells of them.

        Raises:
          InvalidKey: `key` is not one PRNG key.
          InvalidArgument: n is not positive.
        """
        check_count("n", n)
        law = self.law
        made = jax.lax.map(
            lambda key: seed(law.simulate)(key).choices, jax.random.split(checked_key(key), n)
        )
        values = jax.tree.map(lambda x: np.asarray(x)[None], made)
        return Draws(values, target=self.target, status=self.status)

    def relevance(self) -> jax.Array:
        """The share of the entries' variance that each component has, `(R,)`; of CP alone.

        It is the variance, over all entries, of the component's mean product.

        Raises:
          InvalidArgument: the model is no `cp`.
        """
        if self.tensor.has_core or self.tensor.known_core is not None:
            raise errors.InvalidArgument(
                "Components by themselves are those of a CP model.", where=errors.caller(),
                given="a Tucker model, whose components meet in a core", expected="a CP model",
                fix="the kernels' learned sigma: found.tensor.kernels",
            )  # fmt: skip
        index = jnp.concatenate([chunk.rows.index for chunk in self.chunks])
        y = jnp.concatenate([chunk.y for chunk in self.chunks])
        return shares(self.beliefs.means, index, y)[: self.tensor.ranks[0]]

    def forget(self) -> Factorization:
        """The same without the entries, of which what they told is kept: for long streams.

        The last chunk is kept, so that the coordinates are.
        """
        *old, last = self.chunks
        held, constant = self.held, self.constant
        for chunk in old:
            held, constant = held + chunk.told, constant + chunk.constant
        return replace(self, chunks=(last,), held=held, constant=constant)
