"""Finite programs with exact measures: a description, tables of small integers, observations.

The measure comes from a plain enumeration of the description in fractions. It shares no
code with `ppl`, whose model is the same description written out (`semantics.generated.printing`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target

from ..measures.measure import Measure
from .printing import (
    IMPORTS,
    Block,
    Branch,
    Call,
    Loop,
    Site,
    Statement,
    compiled,
    inner,
    model_code,
    size,
)

Path = tuple[str, ...]
Nested = int | tuple["Nested", ...]
Choices = tuple[tuple[Path, Nested], ...]
"""A choice map that can be hashed: a sorted tuple of paths and values, arrays as tuples."""


class Spot(NamedTuple):
    """Where a value of a site is: its path, and its index along the loops around it.

    `unrolled` is its path when the loops are Python's.
    """

    path: Path
    index: tuple[int, ...]
    unrolled: Path


class Run(NamedTuple):
    """One run of a program: its probability, the values it chose, and its result."""

    probability: Fraction
    values: Mapping[Spot, int]
    result: int


class Place(NamedTuple):
    """The address and the loops in which a block runs."""

    prefix: Path = ()
    index: tuple[int, ...] = ()
    unrolled: Path = ()
    suffix: str = ""

    def spot(self, name: str) -> Spot:
        return Spot((*self.prefix, name), self.index, (*self.unrolled, name + self.suffix))

    def below(self, name: str) -> Place:
        spot = self.spot(name)
        return Place(spot.path, spot.index, spot.unrolled)

    def round(self, i: int) -> Place:
        return self._replace(index=(*self.index, i), suffix=f"{self.suffix}_{i}")


class SiteInfo(NamedTuple):
    """What is known of a choice before anything runs.

    `table` is the shape of its table, `shape` that of its values; `conditional` tells
    whether a branch around it may not be taken.
    """

    name: str
    table: tuple[int, ...]
    shape: tuple[int, ...]
    conditional: bool


def frozen(choices: Mapping[str, Any]) -> Choices:
    """A choice map as a value that can be hashed and looked up in a `Measure`.

    >>> import numpy as np
    >>> from semantics.generated.finite import frozen
    >>> frozen({"b": np.array([0, 2]), "a": {"x": 1}})
    ((('a', 'x'), 1), (('b',), (0, 2)))
    """
    found: list[tuple[Path, Nested]] = []
    for name, value in choices.items():
        if isinstance(value, Mapping):
            found += [((name, *path), leaf) for path, leaf in frozen(value)]
        else:
            found.append(((name,), _tuples(np.asarray(value).tolist())))
    return tuple(sorted(found))


def _tuples(value: Any) -> Nested:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def thawed(choices: Choices) -> dict[str, Any]:
    """The choice map, as nested dicts of integer arrays; the inverse of `frozen`.

    >>> from semantics.generated.finite import thawed
    >>> thawed(((("a", "x"), 1), (("b",), (0, 2))))
    {'a': {'x': array(1)}, 'b': array([0, 2])}
    """
    nested: dict[str, Any] = {}
    for path, value in choices:
        level = nested
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = np.asarray(value)
    return nested


class Shape(NamedTuple):
    """What is static of a program: its description, and which choices are observed."""

    block: Block
    observed: tuple[Path, ...] = ()


@dataclass(frozen=True, repr=False)
class Program:
    """A finite program: p(choices; tables), some of the choices observed.

    Attributes:
      block: its static shape, for which alone the model compiles.
      counts: for each site, by name, a table of small integers; the last axis, normalised,
        is the distribution of the site.
      observations: the observed choices and their values.

    `args` and `observed` are arrays of the same shapes for all programs of one shape, so
    that a function of them compiles once.

    >>> from semantics.generated.finite import Program
    >>> from semantics.generated.printing import Block, Site
    >>> block = Block((Site("a", 2), Site("b", 3, ("a",))), "b")
    >>> program = Program(block, (("a", (1, 2)), ("b", ((1, 0, 1), (0, 1, 3)))), ((("b",), 2),))
    >>> program.posterior()
    Measure({((('a',), 0),): 1/6, ((('a',), 1),): 1/2})
    >>> score, _ = program.model.assess({"a": 1, "b": 2}, *program.args)
    >>> print(f"{score:.4f}")  # log 1/2
    -0.6931
    """

    block: Block
    counts: tuple[tuple[str, Nested], ...]
    observations: Choices = ()

    # -- as a generative function and a target -------------------------------------------

    @property
    def model(self) -> GenerativeFunction:
        """The generative function of the tables; the same for all programs of one shape."""
        return compiled(model_code(self.block))

    @property
    def unrolled(self) -> GenerativeFunction:
        """The same with Python's loops, whose choices have addresses of their own."""
        return compiled(model_code(self.block, "python"))

    @property
    def args(self) -> tuple[dict[str, Any]]:
        """The arguments of the model: the tables, normalised."""
        return ({name: jnp.asarray(_rows(table)) for name, table in self.counts},)

    @property
    def observed(self) -> dict[str, Any]:
        """The observations as a choice map."""
        return thawed(self.observations)

    @property
    def target(self) -> Target:
        """The posterior as the library has it."""
        return Target(self.model, self.args, self.observed)

    @property
    def sites(self) -> dict[Path, SiteInfo]:
        """The choices in the order of the program."""
        return dict(sites(self.block))

    # -- the exact measure ----------------------------------------------------------------

    def runs(self) -> list[Run]:
        """All runs of positive probability."""
        tables = {name: np.asarray(table, int) for name, table in self.counts}
        return list(_block(self.block, tables, {}, Place()))

    def choices(self, run: Run) -> Choices:
        """All choices of a run; those that it did not make are 0."""
        arrays = {path: np.zeros(info.shape, int) for path, info in self.sites.items()}
        for spot, value in run.values.items():
            arrays[spot.path][spot.index] = value
        return tuple(sorted((path, _tuples(array.tolist())) for path, array in arrays.items()))

    def prior(self) -> Measure[Choices]:
        """The probability measure of all choices."""
        return Measure({self.choices(run): run.probability for run in self.runs()})

    def posterior(self) -> Measure[Choices]:
        """The measure of the latent choices, not normalised: its mass is the evidence."""
        seen = dict(self.observations)
        kept = self.prior().restrict(lambda choices: seen.items() <= dict(choices).items())
        return kept.map(self.latent)

    def latent(self, choices: Choices) -> Choices:
        """The choices that are not observed."""
        seen = dict(self.observations)
        return tuple((path, value) for path, value in choices if path not in seen)

    # -- as code --------------------------------------------------------------------------

    def code(self) -> str:
        """Runnable code that defines the same `model` and `target`.

        >>> from semantics.generated.finite import Program
        >>> from semantics.generated.printing import Block, Site
        >>> print(Program(Block((Site("a", 2),), "a"), (("a", (1, 2)),), ((("a",), 1),)).code())
        import jax
        import jax.numpy as jnp
        import numpyro.distributions as dist
        from jax import lax
        <BLANKLINE>
        from ppl import Target, gen, mask, sample
        <BLANKLINE>
        @gen
        def model(tables):
            a = sample("a", dist.Categorical(tables["a"]))
            return a
        <BLANKLINE>
        counts = {"a": [1, 2]}
        tables = {k: jnp.array(c) / jnp.array(c).sum(-1, keepdims=True) for k, c in counts.items()}
        target = Target(model, (tables,), {"a": jnp.array(1)})
        <BLANKLINE>
        """
        counts = ", ".join(f'"{name}": {_lists(table)}' for name, table in self.counts)
        return (
            f"{IMPORTS}\n{model_code(self.block)}\n"
            f"counts = {{{counts}}}\n"
            "tables = {k: jnp.array(c) / jnp.array(c).sum(-1, keepdims=True)"
            " for k, c in counts.items()}\n"
            f"target = Target(model, (tables,), {_map_code(self.observed)})\n"
        )

    def __repr__(self) -> str:
        return f"\n{self.code()}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print the fields


def _rows(table: Nested) -> np.ndarray:
    counts = np.asarray(table, float)
    return counts / counts.sum(-1, keepdims=True)


def _lists(value: Nested) -> str:
    return str(np.asarray(value).tolist())


def _map_code(choices: Mapping[str, Any]) -> str:
    parts = [
        f'"{name}": '
        + (_map_code(value) if isinstance(value, Mapping) else f"jnp.array({value.tolist()})")
        for name, value in choices.items()
    ]
    return f"{{{', '.join(parts)}}}"


# -- static knowledge --------------------------------------------------------------------


@functools.cache
def sites(block: Block) -> tuple[tuple[Path, SiteInfo], ...]:
    """The choices of a block.

    >>> from semantics.generated.finite import sites
    >>> from semantics.generated.printing import Block, Loop, Site
    >>> dict(sites(Block((Loop("z", "scan", 3, Block((Site("x", 2, ("z", "i")),), "x")),), "z")))
    {('x',): SiteInfo(name='x', table=(2, 3, 2), shape=(3,), conditional=False)}
    """
    return tuple(_sites(block, {}, (), (), False))


def _sites(
    block: Block, sizes: dict[str, int], prefix: Path, shape: tuple[int, ...], conditional: bool
) -> Iterator[tuple[Path, SiteInfo]]:
    sizes = dict(sizes)
    for statement in block.statements:
        if isinstance(statement, Site):
            table = (*(sizes[parent] for parent in statement.parents), statement.size)
            info = SiteInfo(statement.name, table, shape, conditional)
            yield (*prefix, statement.name), info
        within, around, where, maybe = dict(sizes), shape, prefix, conditional
        if isinstance(statement, Loop):
            around = (*shape, statement.length)
            within[statement.index] = statement.length
            within[statement.name] = size(statement)
        elif isinstance(statement, Call):
            where, maybe = (*prefix, statement.name), conditional or bool(statement.on)
        elif isinstance(statement, Branch):
            maybe = True
        for body in inner(statement):
            yield from _sites(body, within, where, around, maybe)
        sizes[statement.name] = size(statement)


# -- enumeration -------------------------------------------------------------------------

Tables = Mapping[str, np.ndarray]
Names = Mapping[str, int]


def _block(block: Block, tables: Tables, names: Names, place: Place) -> Iterator[Run]:
    partial = [(Run(Fraction(1), {}, 0), names)]
    for statement in block.statements:
        partial = [
            (
                Run(run.probability * more.probability, {**run.values, **more.values}, 0),
                {**known, statement.name: more.result},
            )
            for run, known in partial
            for more in _statement(statement, tables, known, place)
        ]
    for run, known in partial:
        yield run._replace(result=known[block.result] if block.result else 0)


def _statement(statement: Statement, tables: Tables, names: Names, place: Place) -> Iterator[Run]:
    if isinstance(statement, Site):
        row = tables[statement.name][tuple(names[parent] for parent in statement.parents)]
        for value, count in enumerate(row.tolist()):
            if count:
                probability = Fraction(count, int(row.sum()))
                yield Run(probability, {place.spot(statement.name): value}, value)
    elif isinstance(statement, Loop):
        yield from _loop(statement, tables, names, place)
    elif isinstance(statement, Branch):
        taken = names[statement.on] == statement.value
        yield from _block(statement.then if taken else statement.otherwise, tables, names, place)
    elif not statement.on or names[statement.on] == statement.value:
        yield from _block(statement.body, tables, names, place.below(statement.name))
    else:
        yield Run(Fraction(1), {}, 0)


def _loop(loop: Loop, tables: Tables, names: Names, place: Place) -> list[Run]:
    runs = [Run(Fraction(1), {}, 0)]
    for i in range(loop.length):
        longer = []
        for run in runs:
            known = {**names, loop.index: i, loop.name: run.result}
            for more in _block(loop.body, tables, known, place.round(i)):
                added = (run.result + more.result) % size(loop)
                longer.append(
                    Run(
                        run.probability * more.probability,
                        {**run.values, **more.values},
                        more.result if loop.kind == "scan" else added,
                    )
                )
        runs = longer
    return runs
