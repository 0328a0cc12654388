"""The law of a choice whose parameters depend on choices that are summed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from ppl import distributions, samplers
from ppl.chances import probability
from ppl.masks import leading
from ppl.program import Spec
from ppl.quadrature import outcomes

from .several import Several, table_of, through
from .tables import Lane, Plate, Table, drawn, lanes_of, plates_of, summed, total


class Mixed(dist.Distribution):
    """The mixture of a choice's laws over the outcomes of what its parameters depend on.

    Elements of which each has a mixture of its own are a batch; those that a summed choice has
    in common are an event.
    """

    arg_constraints: dict = {}  # noqa: RUF012  (numpyro's)
    pytree_data_fields = ("leaves", "tables", "present")
    pytree_aux_fields = ("spec", "apart")

    def __init__(self, spec: Spec, leaves: list, tables: list, present: Any, apart: bool):
        self.spec, self.leaves, self.tables = spec, leaves, tables
        self.present, self.apart = present, apart
        batch, event = (spec.shape, ()) if apart else ((), spec.shape)
        super().__init__(batch_shape=batch, event_shape=event, validate_args=False)

    @staticmethod
    def of(spec: Spec, args: list, tables: list[Table], present: Any = None) -> Mixed:
        """The law of a choice from `args`, given the law of what they depend on, which adds up
        to one; what is not `present` is left out of its density."""
        logs = logs_of(spec, jnp.zeros(spec.shape, spec.dtype), args)
        like = distributions.elementwise(spec.tree.unflatten(spec.leaves))
        axes = {axis for _, axis in logs.axes}
        whole = like.batch_shape == spec.shape
        alone = all(set(lane.plates) == set(plates_of(logs.lanes)) for lane in lanes_of(tables))
        apart = whole and alone and len(axes) == len(spec.shape) and bool(spec.shape)
        return Mixed(spec, list(args), list(tables), present, apart)

    @property
    def support(self) -> Any:
        support: Any = self.spec.tree.unflatten(self.spec.leaves).support
        if self.apart:
            return distributions.elementwise(self.spec.tree.unflatten(self.spec.leaves)).support
        left = len(self.spec.shape) - support.event_dim
        return constraints.independent(support, left) if left else support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return not self.event_shape and self._outcomes() is not None

    def enumerate_support(self, expand: bool = True) -> Any:
        found = jnp.asarray(self._outcomes())
        return found.reshape(-1, *[1] * len(self.batch_shape))

    def _outcomes(self) -> Any:
        return outcomes(self.spec.tree.unflatten(self.spec.leaves))

    def given(self, value: Any) -> list[Table]:
        """The tables, with that of the value."""
        return [*self.tables, table_given(self.spec, value, self.leaves, self.present)]

    def log_prob(self, value: Any) -> jax.Array:
        if not self.apart:
            return total(self.given(value), summed)
        found = self.by_plates(value)
        axes = dict(self._axes())
        return jnp.transpose(found, [list(axes.values()).index(i) for i in range(found.ndim)])

    def by_plates(self, value: Any) -> jax.Array:
        """The log density, of elements that are apart with the axes of a table."""
        tables = self.given(value)
        if not self.apart:
            return total(tables, summed)
        return _by_element(tables, tables[-1].plates)

    def _axes(self) -> tuple:
        zeros = jnp.zeros(self.spec.shape, self.spec.dtype)
        logs = logs_of(self.spec, zeros, self.leaves)
        axes = dict(logs.axes)
        return tuple((plate, axes[plate]) for plate in plates_of(logs.lanes))

    def sample(self, key: Any, sample_shape: tuple = ()) -> jax.Array:
        assert sample_shape == ()
        first, second = jax.random.split(key)
        leaves = [chosen(v, self._marks(first)) if isinstance(v, Several) else v
                  for v in self.leaves]  # fmt: skip
        d = self.spec.tree.unflatten(leaves)
        found = distributions.base(d)
        if found is None:
            return samplers.sample(d, second, self.spec.kind).astype(self.spec.dtype)
        shape = found[1]
        given = distributions.standard(found[0], second, shape, jnp.result_type(float))
        return jnp.broadcast_to(found[2](given), self.spec.shape).astype(self.spec.dtype)

    def _marks(self, key: Any) -> dict[Lane, jax.Array]:
        """A joint draw of what the parameters depend on: 1 at one outcome of each element."""
        return drawn_of(self.tables, key)


def drawn_of(tables: Sequence[Table], key: Any) -> dict[Lane, jax.Array]:
    """A joint draw of all lanes of tables, as marks (outcomes, *plates)."""
    noise, lanes = _noise(key), lanes_of(tables)
    zeros = [jnp.zeros((n.size, *(p.size for p in n.plates))) for n in lanes]

    def mass(tilts: list) -> jax.Array:
        more = [Table((n,), n.plates, t) for n, t in zip(lanes, tilts, strict=True)]
        return total([*tables, *more], drawn(noise))

    return dict(zip(lanes, jax.grad(mass)(zeros), strict=True))


def _noise(key: Any) -> Any:
    count = iter(range(1_000_000))

    def gumbel(shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, next(count)), shape, dtype)

    return gumbel


def of_elements(spec: Spec, f: Callable, value: Any, *leaves: Any) -> list:
    """A function of a distribution and a value, one number for each independent element."""
    d = distributions.elementwise(spec.tree.unflatten(leaves))
    return [jnp.broadcast_to(f(d, value), d.batch_shape)]


def logs_of(spec: Spec, value: Any, args: list, present: Any = None) -> Several:
    """The log density of each independent element of a value, zero where it is not present."""
    return _where_present(spec, value, args, present, distributions.log_density, 0.0)


def has_chances(d: Any) -> bool:
    """Whether probabilities are parameters, which have derivatives where they are zero."""
    while isinstance(d, (dist.Independent, dist.ExpandedDistribution)):
        d = d.base_dist
    return isinstance(d, (dist.BernoulliProbs, dist.CategoricalProbs, dist.BinomialProbs))


def table_given(spec: Spec, value: Any, args: list, present: Any = None) -> Table:
    """The table of a choice's value, some of whose parameters are several."""
    if not has_chances(spec.tree.unflatten(spec.leaves)):
        return table_of(logs_of(spec, value, args, present))
    return table_of(None, _where_present(spec, value, args, present, probability, 1.0))


def _where_present(
    spec: Spec, value: Any, args: list, present: Any, f: Callable, otherwise: float
) -> Several:
    def of(*leaves: Any) -> list:
        (found,) = of_elements(spec, f, value, *leaves)
        if present is None:
            return [found]
        return [jnp.where(leading(present, found.ndim), found, otherwise)]

    return through(of, list(spec.leaves), args)[0]


def chosen(value: Several, marks: dict[Lane, jax.Array]) -> jax.Array:
    """The value where each lane has the outcome that is marked."""
    rank = value.at.ndim - len(value.lanes)
    places = dict(value.axes)
    weight: Any = True
    for lane in value.lanes:
        shape = [1] * rank
        for plate in lane.plates:
            shape[places[plate]] = plate.size
        order = sorted(range(len(lane.plates)), key=lambda j: places[lane.plates[j]])
        mark = jnp.transpose(marks[lane], (0, *(1 + j for j in order))) > 0.5
        own = mark.reshape(lane.size, *shape)
        front = [1] * len(value.lanes)
        front[value.lanes.index(lane)] = lane.size
        weight = weight & own.reshape(*front, *shape)
    chosen = jnp.where(weight, value.at, jnp.zeros((), value.at.dtype))
    axes = tuple(range(len(value.lanes)))
    return jnp.sum(chosen, axes).astype(value.at.dtype)


def _by_element(tables: Sequence[Table], plates: Sequence[Plate]) -> jax.Array:
    """log of the sum over all outcomes, for each element of the plates, which all tables have."""
    bare = {lane: lane._replace(plates=()) for lane in lanes_of(tables)}

    def front(table: Table) -> tuple:
        own = (*table.lanes, *table.plates)
        order = [own.index(name) for name in (*plates, *table.lanes)]
        return tuple(x if x is None else jnp.transpose(x, order)
                     for x in (table.logs, table.chances))  # fmt: skip

    def one(arrays: list) -> jax.Array:
        rows = [
            Table(tuple(bare[lane] for lane in t.lanes), (), x[0], x[1], t.of and bare[t.of])
            for t, x in zip(tables, arrays, strict=True)
        ]
        return total(rows, summed)

    for _ in plates:
        one = jax.vmap(one)
    return one([front(table) for table in tables])
