"""Generated programs for the kill matrix: few static shapes, so that little compiles."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from semantics.generated.finite import Choices, Nested, Path, Program, sites
from semantics.generated.printing import Block, Branch, Site
from semantics.generated.programs import Shape, hidden_markov


def _block(*statements: Any) -> Block:
    return Block(statements, statements[-1].name)


OPTIONAL = Shape(
    _block(Site("a", 3), Branch("m", "a", 1, _block(Site("b", 3))), Site("c", 2, ("m",))),
    (("c",),),
)
"""`b` happens only if `a` is 1, so traces have one or two latents; `c` is observed."""

FORK = Shape(_block(Site("a", 3), Site("b", 3, ("a",)), Site("c", 2, ("a",))), (("c",),))
"""Two children of `a`, one of them observed."""

BRANCHES = Shape(
    _block(
        Site("a", 3),
        Branch("m", "a", 1, _block(Site("b", 3), Site("c", 2, ("b",))), _block(Site("d", 2))),
        Site("e", 2, ("m",)),
    ),
    (("e",),),
)
"""Two choices in one branch, one in the other."""

HIDDEN_MARKOV = hidden_markov(3, 2, 2)
"""Three states, two steps."""


def _table(shape: tuple[int, ...]) -> st.SearchStrategy[Nested]:
    if not shape:
        return st.integers(1, 4)
    return st.tuples(*(_table(shape[1:]) for _ in range(shape[0])))


def _value(size: int, shape: tuple[int, ...]) -> st.SearchStrategy[Nested]:
    if not shape:
        return st.integers(0, size - 1)
    return st.tuples(*(_value(size, shape[1:]) for _ in range(shape[0])))


@st.composite
def positive(draw: Any, *shapes: Shape) -> Program:
    """Programs of these shapes with positive tables, the simplest shape first."""
    shape = draw(st.sampled_from(shapes))
    known = dict(sites(shape.block))
    counts = tuple((info.name, draw(_table(info.table))) for info in known.values())
    seen: list[tuple[Path, Nested]] = [
        (path, draw(_value(known[path].table[-1], known[path].shape))) for path in shape.observed
    ]
    observations: Choices = tuple(seen)
    return Program(shape.block, counts, observations)
