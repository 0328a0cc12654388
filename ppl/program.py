"""The staged form of a program: a list of steps over numbered slots.

Staging turns a Python function into a :class:`Program`; interpreters walk over
it (`ppl.walk`) and transformations cut it down (`ppl.change`). A step is either
`Pure` (JAX code without randomness) or one of the few things that an interpreter
gives meaning to. Nothing here knows JAX's own representation.

Names. Every choice has its full address path; every draw and every construct has
a name `("#3",)`, unique in the whole program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str, ...]
DRAW, CHOICE, FACTOR = "draw", "choice", "factor"


@dataclass(frozen=True, eq=False)
class Spec:
    """What a draw or a choice is made from, without its parameters' values.

    `tree.unflatten(leaves)` is the distribution; `shape` and `dtype` are those
    of one value; `levels` are the `vmap`s around a draw, innermost first, each
    `(size, axes of the leaves)`; `kind` and `support` describe it to people.
    """

    tree: Any = field(repr=False)
    shape: tuple[int, ...]
    dtype: Any
    kind: str = ""
    support: str = ""
    leaves: tuple[Any, ...] = field(default=(), repr=False)
    levels: tuple = ()
    strategy: Any = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step: reads slots `inputs`, writes slots `outputs`.

    `effects` says which of draw, choice and factor happen inside, `paths` which
    addresses, and `evaluate` runs the step as plain JAX code (effects included,
    left to whoever interprets the surrounding program).
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    evaluate: Callable[..., list] = field(repr=False)
    effects: frozenset[str] = frozenset()
    paths: frozenset[Path] = frozenset()
    source: str = "<unknown>"
    name: Path = ()
    spec: Any = None


@dataclass(frozen=True, eq=False)
class Pure(Step):
    """JAX code. `reads[i]` are the positions in `inputs` that output i depends on."""

    reads: tuple[frozenset[int], ...] = ()
    narrow: Callable[[tuple[bool, ...]], Pure] | None = field(default=None, repr=False)
    # outputs that are an input plus a constant: {output position: (input position, constant)}
    counter: dict[int, tuple[int, Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Draw(Step):
    """Anonymous randomness: one value of the distribution in `spec`.

    Its `source` starts with the address when it makes the value of a choice.
    """

    @property
    def place(self) -> str:
        """The draw's name, address (if any), file and line, for people."""
        where = f", {self.source}" if self.source.startswith('"') else f" at {self.source}"
        return f"draw {self.name[0]}{where}"


@dataclass(frozen=True, eq=False)
class Choice(Step):
    """An addressed choice. `scored=False` marks one that only hands on its value."""

    path: Path = ()
    scored: bool = True


@dataclass(frozen=True, eq=False)
class Factor(Step):
    """A log weight, belonging to the generative function at `path`."""

    path: Path = ()


@dataclass(frozen=True, eq=False)
class Loop(Step):
    """`lax.scan`: inputs are constants, carry, then per-step inputs.

    With `first`, only that many leading steps are run, and the choices in them are
    only scored.
    """

    body: Program = None  # type: ignore[assignment]
    constants: int = 0
    carries: int = 0
    length: int = 0
    reverse: bool = False
    unroll: Any = 1
    first: int | None = None


@dataclass(frozen=True, eq=False)
class Branch(Step):
    """`lax.switch`: the first input is the index."""

    branches: tuple[Program, ...] = ()


@dataclass(frozen=True, eq=False)
class Map(Step):
    """`vmap` of a region with choices: independent copies, stacked in front."""

    body: Program = None  # type: ignore[assignment]
    in_axes: tuple[int | None, ...] = ()
    size: int = 0
    axis_name: Any = None


@dataclass(frozen=True, eq=False)
class While(Step):
    """`lax.while_loop` with draws inside: constants of the test, of the body, carry."""

    test: Program = None  # type: ignore[assignment]
    body: Program = None  # type: ignore[assignment]
    test_constants: int = 0
    body_constants: int = 0


@dataclass(frozen=True, eq=False)
class Remat(Step):
    """`jax.checkpoint`."""

    body: Program = None  # type: ignore[assignment]
    policy: Any = None
    prevent_cse: bool = True


@dataclass(frozen=True, eq=False)
class Custom(Step):
    """A function with a custom derivative rule that makes choices or draws."""

    body: Program = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order; `constants` fill slots before the inputs do."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    constants: dict[int, Any]
    avals: dict[int, Any] = field(repr=False)
    draws: int = 0

    @property
    def effects(self) -> frozenset[str]:
        return frozenset().union(*(step.effects for step in self.steps))

    @property
    def paths(self) -> frozenset[Path]:
        return frozenset().union(*(step.paths for step in self.steps))


def bodies(step: Step) -> tuple[Program, ...]:
    """The programs inside a step."""
    if isinstance(step, Branch):
        return step.branches
    if isinstance(step, While):
        return (step.test, step.body)
    if isinstance(step, (Loop, Map, Remat, Custom)):
        return (step.body,)
    return ()
