"""What a loop or a branch hands on of finite choices: a fixed form of tables and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from .several import Several, Unsaid
from .tables import (
    Lane,
    Plate,
    Reduce,
    Table,
    aligned,
    check_size,
    connected,
    joined,
    lanes_of,
    log_weights,
    plates_of,
    refuse_plates,
    without,
)


@dataclass(frozen=True)
class Group:
    """Values that depend on the same outcomes: `size` of them, for each element of plates.

    Attributes:
      leaves: which of the values.
      axes: for each of these, the axes that the plates are.
    """

    leaves: tuple[int, ...]
    size: int
    plates: tuple[Plate, ...]
    axes: tuple[tuple[int, ...], ...]
    source: str


@dataclass(frozen=True)
class Form:
    """How values and the law of what they depend on are packed.

    Attributes:
      name: of the loop or branch.
      lost: values that nothing may use, with why.
      groups: the others that depend on what is summed out.
      blocks: groups, by number, and lanes from outside that depend on each other.
      avals: of all values.
      exact: whether tables have chances of their own, beside logarithms.
    """

    name: tuple
    lost: tuple[tuple[int, str], ...]
    groups: tuple[Group, ...]
    blocks: tuple[tuple[tuple[int, ...], tuple[Lane, ...]], ...]
    avals: tuple[tuple[tuple[int, ...], Any], ...]
    exact: bool = False

    def lane(self, i: int) -> Lane:
        group = self.groups[i]
        return Lane((*self.name, i), group.size, group.plates, group.source)

    def merged(self, other: Form) -> Form:
        """The smallest form that holds what either holds."""
        classes: list[set[int]] = []
        for group in (*self.groups, *other.groups):
            own = set(group.leaves)
            mine = [c for c in classes if c & own]
            classes = [c for c in classes if not c & own] + [own.union(*mine)]
        classes.sort(key=min)
        groups = tuple(_merged(leaves, self, other) for leaves in classes)
        links = []
        for form in (self, other):
            for members, lanes in form.blocks:
                leaves = {leaf for i in members for leaf in form.groups[i].leaves}
                links.append(({i for i, c in enumerate(classes) if leaves & c}, set(lanes)))
        lost = dict((*self.lost, *other.lost))
        return replace(self, lost=tuple(sorted(lost.items())), groups=groups,
                       blocks=_blocks(links, len(groups)),
                       exact=self.exact or other.exact)  # fmt: skip


def _merged(leaves: set[int], *forms: Form) -> Group:
    """The group of these values, with room for the outcomes that any of the forms has."""
    each = [[g for g in form.groups if leaves.issuperset(g.leaves)] for form in forms]
    groups = [group for some in each for group in some]
    size = max(math.prod(group.size for group in some) for some in each)
    first = groups[-1]
    for group in groups:
        if group.plates != first.plates:
            refuse_plates([Lane((str(i),), g.size, g.plates, g.source)
                           for i, g in enumerate((group, first))])  # fmt: skip
    axes = {i: a for group in groups for i, a in zip(group.leaves, group.axes, strict=True)}
    order = tuple(sorted(leaves))
    return Group(order, size, first.plates, tuple(axes[i] for i in order), first.source)


def _blocks(
    links: list[tuple[set[int], set[Lane]]], count: int
) -> tuple[tuple[tuple[int, ...], tuple[Lane, ...]], ...]:
    """Groups and lanes that are linked to each other, in order."""
    blocks: list[tuple[set[int], set[Lane]]] = []
    for places, lanes in [*links, *(({i}, set()) for i in range(count))]:
        mine = [b for b in blocks if b[0] & places or b[1] & lanes]
        blocks = [b for b in blocks if b not in mine]
        for other in mine:
            places, lanes = places | other[0], lanes | other[1]
        blocks.append((places, lanes))
    return tuple(sorted((tuple(sorted(p)), tuple(sorted(ls))) for p, ls in blocks))


def form(
    tables: Sequence[Table],
    values: Sequence[Any],
    avals: Sequence[Any],
    outside: frozenset,
    name: tuple,
) -> Form:
    """The form of these values and of what they depend on, with the lanes that outside reads."""
    groups: list[Group] = []
    lanes: list[set[Lane]] = []
    lost = []
    for i, value in enumerate(values):
        if isinstance(value, Unsaid):
            lost.append((i, value.why))
        if not isinstance(value, Several):
            continue
        axes, own = dict(value.axes), set(value.lanes)
        plates = plates_of(value.lanes)
        for lane in value.lanes:
            if set(lane.plates) != set(plates):
                refuse_plates(list(value.lanes))
        plates = tuple(sorted(plates))
        source = value.lanes[-1].source
        size = math.prod(lane.size for lane in value.lanes)
        group = Group((i,), size, plates, (tuple(axes[p] for p in plates),), source)
        shared = [j for j, other in enumerate(lanes) if other & own]
        for j in shared:
            group, own = _shared(groups[j], group, lanes[j] | own), lanes[j] | own
        groups = [g for j, g in enumerate(groups) if j not in shared] + [group]
        lanes = [ls for j, ls in enumerate(lanes) if j not in shared] + [own]
    order = sorted(range(len(groups)), key=lambda j: groups[j].leaves)
    groups, lanes = [groups[j] for j in order], [lanes[j] for j in order]
    links = []
    for j, own in enumerate(lanes):
        near = set(lanes_of(connected(tables, own)[0])) | own
        links.append(({k for k, other in enumerate(lanes) if other & near} | {j},
                      near & outside))  # fmt: skip
    for lane in lanes_of(tables):
        if lane in outside:
            near = set(lanes_of(connected(tables, [lane])[0]))
            links.append((set(), near & outside))
    shapes = tuple((tuple(a.shape), a.dtype) for a in avals)
    kept = {lane for own in lanes for lane in own} | outside
    exact = any(t.chances is not None and kept.issuperset(t.lanes) for t in tables)
    return Form(name, tuple(lost), tuple(groups), _blocks(links, len(groups)), shapes, exact)


def _shared(one: Group, other: Group, lanes: set[Lane]) -> Group:
    """Two groups some of whose lanes are the same, as one."""
    axes = dict(zip((*one.leaves, *other.leaves), (*one.axes, *other.axes), strict=True))
    if one.plates != other.plates:
        refuse_plates(sorted(lanes))
    size = math.prod(lane.size for lane in lanes)
    leaves = tuple(sorted(axes))
    return Group(leaves, size, one.plates, tuple(axes[i] for i in leaves), other.source)


def pack(
    tables: Sequence[Table], values: Sequence[Any], form: Form, reduce: Reduce
) -> tuple[list[Table], list]:
    """The tables of a form's blocks, and arrays of the values.

    What else the tables are of is summed out; tables without lanes are left in front.
    """
    own: list[list[Lane]] = []
    for group in form.groups:
        some = [values[i] for i in group.leaves if isinstance(values[i], Several)]
        own.append(sorted({lane for value in some for lane in value.lanes}))
    kept = {lane for lanes in own for lane in lanes}
    kept |= {lane for _, lanes in form.blocks for lane in lanes}
    gone = [lane for lane in lanes_of(tables) if lane not in kept]
    left = without(tables, gone, reduce)
    if stuck := [lane for lane in lanes_of(left) if lane in gone]:
        refuse_plates(stuck)
    found = [table for table in left if not table.lanes]
    for members, outer in form.blocks:
        mine = {lane for i in members for lane in own[i]} | set(outer)
        if len({frozenset(lane.plates) for lane in mine}) > 1:
            refuse_plates(sorted(mine))
        block = joined([table for table in left if mine & set(table.lanes)])
        # what the state was made of before may have the names of what it is made of now
        lanes = (*outer, *(form.lane(i) for i in members))
        check_size(lanes)
        new = {i: form.lane(i)._replace(name=(*form.name, i, "new")) for i in members}
        for i in members:
            block = _grouped(block, own[i], new[i], set(outer))
        names = (*outer, *new.values(), *plates_of(lanes))

        def whole(x: Any, block: Table = block, names: tuple = names) -> Any:
            if x is None:
                return None
            x = aligned(x, (*block.lanes, *block.plates), names)
            return jnp.broadcast_to(x, tuple(name.size for name in names))

        found.append(Table(lanes, plates_of(lanes), whole(block.logs), whole(block.chances)))
    leaves = [
        _leaf(value, *form.avals[i], *_group_of(form, i, own)) for i, value in enumerate(values)
        if i not in dict(form.lost)
    ]  # fmt: skip
    return found, leaves


def _group_of(form: Form, i: int, own: list[list[Lane]]) -> tuple[Group | None, list[Lane]]:
    for group, lanes in zip(form.groups, own, strict=True):
        if i in group.leaves:
            return group, lanes
    return None, []


def _grouped(block: Table, lanes: list[Lane], lane: Lane, outer: set[Lane]) -> Table:
    """A table in which some lanes are one, with as many outcomes as `lane`."""
    names = [*block.lanes, *block.plates]
    copies = {each: each._replace(name=(*each.name, "copy")) for each in lanes if each in outer}
    front = [copies.get(each, each) for each in lanes]
    rest = [name for name in names if name not in front]
    count = math.prod(each.size for each in lanes)
    more = [plate for plate in lane.plates if plate not in rest]

    def grouped(x: Any, nothing: float) -> Any:
        if x is None:
            return None
        own = list(names)
        for each, copy in copies.items():  # it is read outside as well: both are the same
            at = own.index(each)
            same = jnp.eye(each.size, dtype=bool)
            same = same.reshape(*[each.size if j == at else 1 for j in range(len(own))], -1)
            x = jnp.where(same, x[..., None], nothing)
            own.append(copy)
        x = aligned(x, own, (*front, *rest))
        x = x.reshape(count, *x.shape[len(front) :])
        if lane.size > count:
            widths = [(0, lane.size - count), *[(0, 0)] * (x.ndim - 1)]
            x = jnp.pad(x, widths, constant_values=nothing)
        for plate in more:  # a constant is the same for all elements
            x = jnp.broadcast_to(x[..., None], (*x.shape, plate.size))
        return x

    logs = block.logs
    if logs is None and (copies or lane.size > count or block.chances is None):
        logs = jnp.zeros([name.size for name in names])
    kept = tuple(name for name in rest if isinstance(name, Lane))
    plates = (*(name for name in rest if isinstance(name, Plate)), *more)
    return Table((lane, *kept), plates, grouped(logs, -jnp.inf), grouped(block.chances, 1.0))


def _leaf(
    value: Any, shape: tuple[int, ...], dtype: Any, group: Group | None, lanes: list[Lane]
) -> Any:
    """The array of a value: as it is, or one for each outcome of its group."""
    if group is None:
        return jnp.asarray(value, dtype)
    if not isinstance(value, Several):
        return jnp.broadcast_to(jnp.asarray(value, dtype), (group.size, *shape))
    at = aligned(value.at, value.lanes, lanes)
    at = jnp.broadcast_to(at, (*(lane.size for lane in lanes), *shape))
    at = at.reshape(-1, *shape).astype(dtype)
    missing = group.size - len(at)
    return jnp.concatenate([at, jnp.broadcast_to(at[:1], (missing, *shape))]) if missing else at


def arrays_of(tables: Sequence[Table], form: Form) -> list[tuple[Any, Any]]:
    """The log weights and the chances of a form's tables; those alone if it is not exact."""
    if not form.exact:
        return [(log_weights(table), None) for table in tables]
    both = []
    for table in tables:
        like = log_weights(table)
        logs = jnp.zeros_like(like) if table.logs is None else table.logs
        both.append((logs, jnp.ones_like(like) if table.chances is None else table.chances))
    return both


def unpack(arrays: Sequence[Any], leaves: Sequence[Any], form: Form) -> tuple[list[Table], list]:
    """The tables and the values of a form."""
    tables = []
    for (members, outer), (logs, chances) in zip(form.blocks, arrays, strict=True):
        lanes = (*outer, *(form.lane(i) for i in members))
        tables.append(Table(lanes, plates_of(lanes), logs, chances))
    lost, rest = dict(form.lost), iter(leaves)
    values: list[Any] = []
    for i in range(len(form.avals)):
        if i in lost:
            values.append(Unsaid(lost[i]))
            continue
        array = next(rest)
        values.append(array)
        for j, group in enumerate(form.groups):
            if i in group.leaves:
                axes = group.axes[group.leaves.index(i)]
                pairs = tuple(zip(group.plates, axes, strict=True))
                values[-1] = Several(array, (form.lane(j),), pairs)
    return tables, values
