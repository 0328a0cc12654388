"""Hypothesis strategies of programs whose measures are known exactly.

`discrete`, `nested`, `state_space` and `guides` make finite programs (`generated.finite`):
a static shape from a short list (or, for `nested`, a random one), and tables of small
integers. `conjugate`, `linear_gaussian` and `mixed` make programs with continuous choices
whose posterior and evidence have closed forms (`semantics.generated.closed_forms`).

Every shape but the empty one has something of size 3, and no row of a table is uniform:
what is wrong can be invariant at size 2, or under a symmetry. All strategies shrink to
the first shape and to small integers, and a program's `repr` is code that makes it.

>>> from hypothesis import given, settings
>>> from semantics import programs
>>> @settings(max_examples=5, database=None)
... @given(programs.discrete())
... def total_mass_is_one(program):
...     assert program.prior().mass == 1
>>> total_mass_is_one()
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from .closed_forms import (
    ClosedForm,
    beta_bernoulli,
    branching_normal,
    gamma_poisson,
    linear_regression,
    normal_normal,
    random_walk,
)
from .finite import Nested, Program, Shape, sites
from .hidden_markov import StateSpace, hidden_markov
from .printing import Block, Branch, Call, Loop, Site, Statement, inner

Draw = Callable[[st.SearchStrategy], Any]
Rows = Literal["any", "positive", "certain"]


def _shape(*statements: Statement, observed: str = "") -> Shape:
    return Shape(Block(statements, statements[-1].name), ((observed,),) if observed else ())


def _body(*statements: Statement) -> Block:
    return Block(statements, statements[-1].name)


SHAPES: dict[str, Shape] = {
    "empty": Shape(Block()),
    "one": _shape(Site("a", 3)),
    "pair": _shape(Site("a", 3), Site("b", 2), observed="a"),
    "chain": _shape(Site("a", 2), Site("b", 3, ("a",)), Site("c", 2, ("b",)), observed="c"),
    "fork": _shape(Site("a", 3), Site("b", 2, ("a",)), Site("c", 3, ("a",)), observed="c"),
    "collider": _shape(Site("a", 3), Site("b", 2), Site("c", 3, ("a", "b")), observed="c"),
    "diamond": _shape(
        Site("a", 2), Site("b", 3, ("a",)), Site("c", 2, ("a",)), Site("d", 2, ("b", "c")),
        observed="d",
    ),
    "branch": _shape(
        Site("a", 3),
        Branch("m", "a", 1, _body(Site("b", 3)), _body(Site("c", 2, ("a",)))),
        Site("d", 2, ("m",)),
        observed="d",
    ),
    "call": _shape(
        Site("a", 2),
        Call("sub", _body(Site("b", 3, ("a",)), Site("c", 2, ("b",)))),
        Site("d", 2, ("sub",)),
        observed="d",
    ),
    "mask": _shape(
        Site("a", 3),
        Call("sub", _body(Site("b", 2, ("a",)), Site("c", 3, ("b",))), "a", 2),
        Site("d", 2, ("a", "sub")),
        observed="d",
    ),
    "vmap": _shape(
        Site("a", 2),
        Loop("v", "vmap", 3, _body(Site("b", 2, ("a", "i")))),
        Site("c", 3, ("v",)),
        observed="c",
    ),
    "scan": hidden_markov(2, 3, 3),
}  # fmt: skip
"""The shapes of `discrete`, the simplest first."""

_BRANCHES = _body(Branch("m", "i", 1, _body(Site("b", 2)), _body(Site("c", 2))))
LARGER: dict[str, Shape] = {
    "vmap of branches": _shape(
        Site("a", 2), Loop("v", "vmap", 3, _BRANCHES), Site("d", 2, ("a", "v")), observed="d"
    ),
    "scan of branches": _shape(
        Site("a", 2), Loop("v", "scan", 3, _BRANCHES), Site("d", 2, ("a", "v")), observed="d"
    ),
}
"""Shapes with hundreds of paths, which `discrete` makes when they are named: in a loop, choices
that not every round makes, whose sum is used by what follows."""


# -- tables and observations -------------------------------------------------------------


def _tuples(array: np.ndarray) -> Nested:
    return tuple(map(_tuples, array)) if array.ndim else int(array)


def _table(shape: tuple[int, ...], rows: Rows) -> st.SearchStrategy[Nested]:
    """Small integers, none of whose rows is uniform (so none is zero), if it has two columns."""
    if rows == "certain":
        which = stn.arrays(int, shape[:-1], elements=st.integers(0, shape[-1] - 1))
        return which.map(lambda index: _tuples(np.eye(shape[-1], dtype=int)[index]))

    def skewed(counts: np.ndarray) -> Nested:
        counts = counts.copy()
        counts[..., -1] += (counts == counts[..., :1]).all(-1)
        return _tuples(counts)

    least = 1 if rows == "positive" else 0
    return stn.arrays(int, shape, elements=st.integers(least, 4), fill=st.nothing()).map(skewed)


def _tables(draw: Draw, block: Block, rows: Rows) -> tuple[tuple[str, Nested], ...]:
    return tuple((info.name, draw(_table(info.table, rows))) for _, info in sites(block))


def _program(draw: Draw, shape: Shape, rows: Rows) -> Program:
    """A program of a shape; its observations are possible."""
    program = Program(shape.block, _tables(draw, shape.block, rows))
    if not shape.observed:
        return program
    possible = {
        tuple((path, value) for path, value in choices if path in shape.observed)
        for choices in program.prior().support
    }
    return Program(program.block, program.counts, draw(st.sampled_from(sorted(possible))))


# -- strategies of finite programs -------------------------------------------------------


@st.composite
def discrete(
    draw: Draw, shapes: Sequence[str] = tuple(SHAPES), rows: Rows | None = None
) -> Program:
    """Programs of up to four sites with two or three values, of a dozen static shapes.

    The evidence is positive.

    Args:
      shapes: which of `SHAPES` and `LARGER`.
      rows: tables with zeros ("any"), positive ones, or "certain" ones, which make the
        program deterministic; None: each program has one of the three.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import discrete
    >>> program = find(discrete(), lambda program: len(program.sites) == 2)
    >>> len(program.sites), program.prior().mass, program.posterior().mass > 0
    (2, Fraction(1, 1), True)
    """
    shape = (SHAPES | LARGER)[draw(st.sampled_from(shapes))]
    return _program(draw, shape, rows or draw(st.sampled_from(["any", "positive", "certain"])))


@st.composite
def nested(draw: Draw, depth: int = 3, paths: int = 200) -> Program:
    """Programs of random structure: `vmap`, `scan`, `cond`, calls and `mask`, nested.

    Each compiles anew, so take few. One choice that always happens may be observed.

    Args:
      depth: how deep constructs nest.
      paths: a bound on the number of runs.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import nested
    >>> find(nested(), lambda program: len(program.sites) > 1).prior().mass
    Fraction(1, 1)
    """
    block, _ = _Grower(draw).block(depth, (), paths, "ijk"[:depth])
    certain = [path for path, info in sites(block) if not info.conditional]
    seen = draw(st.sampled_from([None, *certain]))
    return _program(draw, Shape(block, () if seen is None else (seen,)), "any")


class _Grower:
    """Random blocks with unique names, and bounds on how many runs they have."""

    def __init__(self, draw: Draw):
        self.draw = draw
        self.names = iter([c for c in string.ascii_lowercase if c not in "ijk"])

    def block(
        self, depth: int, scope: tuple[str, ...], budget: int, indices: str
    ) -> tuple[Block, int]:
        statements: list[Statement] = []
        paths = 1
        for _ in range(self.draw(st.integers(1, 2))):
            statement, more = self.statement(depth, scope, budget // paths, indices)
            statements.append(statement)
            scope, paths = (*scope, statement.name), paths * more
        return Block(tuple(statements), statements[-1].name), paths

    def statement(
        self, depth: int, scope: tuple[str, ...], budget: int, indices: str
    ) -> tuple[Statement, int]:
        kinds = ["site", "call", "vmap", "scan"] + (["cond", "mask"] if scope else [])
        kind = self.draw(st.sampled_from(kinds))
        name = next(self.names)
        if kind == "site" or not depth or budget < 9:
            parents = (
                self.draw(st.lists(st.sampled_from(scope), max_size=2, unique=True))
                if scope
                else []
            )
            values = min(self.draw(st.sampled_from([3, 2])), max(1, budget))
            return Site(name, values, tuple(parents)), values
        if kind in ("vmap", "scan"):
            length = self.draw(st.sampled_from([3, 2]))
            inside = (*scope, indices[0], *([name] if kind == "scan" else []))
            body, paths = self.block(depth - 1, inside, int(budget ** (1 / length)), indices[1:])
            return Loop(name, kind, length, body, indices[0]), paths**length
        body, paths = self.block(depth - 1, scope, budget, indices)
        if kind == "call":
            return Call(name, body), paths
        on, value = self.draw(st.sampled_from(scope)), self.draw(st.integers(0, 1))
        if kind == "mask":
            return Call(name, body, on, value), paths
        other, others = self.block(depth - 1, scope, budget, indices)
        return Branch(name, on, value, body, other), max(paths, others)


@st.composite
def guides(draw: Draw) -> tuple[Program, Program]:
    """Pairs of a program and a guide: a finite program over exactly its latent choices.

    The guide has the program's constructs without the observed choices, and positive
    tables, so that its support covers the posterior's.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import guides
    >>> program, guide = find(guides(), lambda pair: len(pair[0].sites) == 3)
    >>> set(guide.sites) < set(program.sites), guide.observations
    (True, ())
    """
    shapes = [shape for shape in SHAPES.values() if len(sites(shape.block)) > len(shape.observed)]
    shape = draw(st.sampled_from(shapes))
    program = _program(draw, shape, "any")
    guide = _without(shape.block, frozenset(path[-1] for path in shape.observed))
    return program, Program(guide, _tables(draw, guide, "positive"))


def _without(block: Block, names: frozenset[str]) -> Block:
    """A block without the sites of these names, and without dependence on them."""
    kept: list[Statement] = []
    for statement in block.statements:
        if isinstance(statement, Site):
            parents = tuple(name for name in statement.parents if name not in names)
            if statement.name not in names:
                kept.append(replace(statement, parents=parents))
        elif isinstance(statement, Branch):
            then, otherwise = (_without(body, names) for body in inner(statement))
            kept.append(replace(statement, then=then, otherwise=otherwise))
        else:
            kept.append(replace(statement, body=_without(statement.body, names)))
    last = kept[-1].name if kept else ""
    return Block(tuple(kept), last if block.result in names else block.result)


# -- state-space programs ----------------------------------------------------------------


@st.composite
def state_space(draw: Draw) -> StateSpace:
    """Hidden Markov programs with two or three states, symbols and steps.

    Table entries are 1 to 5 before they are normalised, so all weights are bounded:
    see `StateSpace.bounds`.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import state_space
    >>> hmm = find(state_space(), lambda hmm: True)
    >>> exact = hmm.program.posterior().mass
    >>> abs(hmm.evidence - float(exact)) < 1e-12
    True
    """
    sizes = draw(st.sampled_from([(2, 2, 3), (3, 2, 2), (2, 3, 2), (3, 3, 3)]))
    return StateSpace(_program(draw, hidden_markov(*sizes), "positive"))


# -- programs with continuous choices ----------------------------------------------------

_small, _scale, _data = st.integers(-2, 2), st.integers(1, 3), st.integers(-3, 3)


def _three(elements: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(elements, elements, elements)


def conjugate() -> st.SearchStrategy[ClosedForm]:
    """Normal-normal, beta-Bernoulli and gamma-Poisson programs with three data.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import conjugate
    >>> program = find(conjugate(), lambda program: "Beta" in program.source)
    >>> (latent,) = program.components
    >>> 0 < float(latent.posterior.mean) < 1 and program.log_evidence < 0
    True
    """
    return st.one_of(
        st.builds(normal_normal, _small, _scale, _scale, _three(_data)),
        st.builds(beta_bernoulli, st.integers(1, 4), st.integers(1, 4), _three(st.integers(0, 1))),
        st.builds(gamma_poisson, st.integers(1, 4), st.integers(1, 4), _three(st.integers(0, 4))),
    )


def linear_gaussian() -> st.SearchStrategy[ClosedForm]:
    """A random walk seen with noise, and a regression of three data on two coefficients.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import linear_gaussian
    >>> program = find(linear_gaussian(), lambda program: True)
    >>> program.components[0].posterior.loc.ndim  # jointly normal
    1
    """
    design = st.tuples(*(st.tuples(_small, _small) for _ in range(3)))
    return st.one_of(
        st.builds(random_walk, _small, _small, _scale, _scale, _three(_data)),
        st.builds(linear_regression, design, st.tuples(_scale, _scale), _scale, _three(_data)),
    )


def mixed() -> st.SearchStrategy[ClosedForm]:
    """A choice `k` of how many continuous choices there are: none, one or two.

    >>> from hypothesis import find
    >>> from semantics.generated.programs import mixed
    >>> program = find(mixed(), lambda program: len(program.components) == 3)
    >>> [component.latents for component in program.components]
    [(), ('mu',), ('mu', 'nu')]
    """
    weights = _table((3,), "any")
    return st.builds(branching_normal, weights, _small, _scale, _scale, _three(_data))
