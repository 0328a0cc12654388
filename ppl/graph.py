"""The dependency graph of a model, read off its staged program; nothing runs.

Each slot of a program carries the set of addresses whose values it is computed
from: pure code by what its outputs read, loops by a fixpoint over their carry,
branches with the addresses that choose between them. The result never misses a
dependence; code inside one JAX construct without choices (a plain `scan`, say)
counts as depending on all of its inputs.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from . import errors, notebook
from .addresses import as_path, not_found
from .generative import GenerativeFunction
from .program import Branch, Choice, Factor, Loop, Path, Program, Pure, While, bodies
from .sites import Site

Addresses = frozenset[Path]
_NONE: Addresses = frozenset()


@dataclass(frozen=True)
class Graph:
    """Which choices the distribution (or the presence) of each choice depends on.

    An address in a loop is its own parent when it depends on its earlier values.

    Attributes:
      name: the model's name.
      parents: for each address the addresses it depends on directly, in the order
        of the model; given their values, it depends on no other choice.
      factors: for each `factor` or `observe`, its place and what it depends on.
      result: what the return value depends on directly.
      sites: the choices.

    >>> import numpyro.distributions as dist
    >>> from ppl import Graph, dependencies, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("x", dist.Normal(mu, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> graph = dependencies(model)
    >>> isinstance(graph, Graph), graph.children("mu"), graph.ancestors("y")
    (True, (('x',), ('y',)), (('mu',),))
    """

    name: str
    parents: dict[Path, tuple[Path, ...]]
    factors: tuple[tuple[str, tuple[Path, ...]], ...]
    result: tuple[Path, ...]
    sites: dict[Path, Site] = field(repr=False)

    def children(self, address: str | Path) -> tuple[Path, ...]:
        """The addresses that depend on `address` directly.

        Raises:
          AddressNotFound: with the nearest address.
        """
        (path,) = self._known((address,))
        return tuple(p for p, above in self.parents.items() if path in above)

    def ancestors(self, *addresses: str | Path) -> tuple[Path, ...]:
        """Everything that the given choices depend on, directly or not.

        Raises:
          AddressNotFound: with the nearest address.
        """
        found, new = set(), set(self._known(addresses))
        while new:
            new = {p for path in new for p in self.parents[path]} - found
            found |= new
        return tuple(p for p in self.parents if p in found)

    def descendants(self, *addresses: str | Path) -> tuple[Path, ...]:
        """Everything that depends on the given choices, directly or not.

        Raises:
          AddressNotFound: with the nearest address.
        """
        found, new = set(), set(self._known(addresses))
        while new:
            new = {p for p, above in self.parents.items() if new & set(above)} - found
            found |= new
        return tuple(p for p in self.parents if p in found)

    def _known(self, addresses: Iterable[str | Path]) -> tuple[Path, ...]:
        paths = tuple(as_path(a) for a in addresses)
        for path in paths:
            if path not in self.parents:
                raise not_found(path, self.parents, "The graph lookup")
        return paths

    def text(self) -> str:
        """One line per choice and factor, `address <- parents`."""
        return "\n".join(f"{name} <- {above}" if above else name for name, above in self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        """Each choice, factor and the result, with what it depends on directly."""
        rows = [(errors.show(path), above) for path, above in self.parents.items()]
        rows += [(f"factor at {source}", above) for source, above in self.factors]
        rows.append(("return", self.result))
        return [(name, "; ".join(errors.show(p) for p in above)) for name, above in rows]

    def dot(self) -> str:
        """The graph in Graphviz's language: choices are ellipses, factors boxes."""
        number = {path: f"n{i}" for i, path in enumerate(self.parents)}
        lines = [f"digraph {_quote(self.name)} {{"]
        for path, node in number.items():
            site = self.sites[path]
            axes = "".join(f"\n{kind} {size}" for kind, size in site.axes)
            label = _quote(f"{' / '.join(path)}\n{site.kind}{axes}")
            dashed = ", style=dashed" if site.conditional else ""
            lines.append(f"  {node} [label={label}{dashed}];")
        for path, above in self.parents.items():
            lines += [f"  {number[p]} -> {number[path]};" for p in above]
        for i, (source, above) in enumerate(self.factors):
            lines.append(f"  f{i} [shape=box, label={_quote(f'factor at {source}')}];")
            lines += [f"  {number[p]} -> f{i};" for p in above]
        return "\n".join([*lines, "}"])

    def svg(self) -> str:
        """The graph as an SVG image, drawn by Graphviz's `dot`.

        Raises:
          MissingExecutable: `dot` is not installed, or does not work.
        """
        fix = "install Graphviz (apt install graphviz, brew install graphviz), or use text()"
        found = shutil.which("dot")
        if found is None:
            raise errors.MissingExecutable(
                "Drawing a graph needs Graphviz's `dot`, which is not on the PATH.",
                where=errors.caller(),
                fix=fix,
            )
        done = subprocess.run([found, "-Tsvg"], input=self.dot(), capture_output=True, text=True)
        if done.returncode:
            raise errors.MissingExecutable(
                f"`{found}` failed with exit status {done.returncode}.",
                where=errors.caller(),
                given=done.stderr.strip() or None,
                fix=fix,
            )
        return done.stdout

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows: the rows of `text`, in a table."""
        caption = f"Dependencies of {self.name}"
        return notebook.table(self._rows(), caption=caption, head=("", "depends on"))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def dependencies(model: GenerativeFunction, *args: Any, **kwargs: Any) -> Graph:
    """The graph in which p(choices; args) factorises: each address with its parents.

    Args:
      model: a generative function.
      args, kwargs: its arguments; only shapes and dtypes matter.

    Raises:
      DuplicateAddress, PrefixClash, BranchMismatch: faults of the model.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from ppl.graph import dependencies
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     tau = sample("tau", dist.HalfNormal(1.0))
    ...     theta = sample("theta", dist.Normal(mu, tau))
    ...     return sample("y", dist.Normal(theta, 1.0))
    >>> print(dependencies(model))
    "mu"
    "tau"
    "theta" <- "mu"; "tau"
    "y" <- "theta"
    return <- "y"
    """
    run = model._prepare(args, kwargs)
    order = list(run.sites)
    found, result = found_in(run.staged.program)

    def ordered(paths: Iterable[Path]) -> tuple[Path, ...]:
        return tuple(sorted(paths, key=order.index))

    return Graph(
        model.name,
        {path: ordered(found.parents[path]) for path in order},
        tuple((step.source, ordered(above)) for step, above in found.factors.items()),
        ordered(result),
        run.sites,
    )


@dataclass
class Found:
    """What each choice and each factor of a program depends on directly."""

    parents: dict[Path, set[Path]]
    factors: dict[Factor, set[Path]]


@lru_cache(maxsize=256)
def found_in(program: Program) -> tuple[Found, Addresses]:
    """What is found in a program, and what its outputs depend on directly."""
    found = Found({path: set() for path in program.paths}, {})
    outputs = _through(program, [_NONE] * len(program.inputs), _NONE, found)
    return found, _NONE.union(*outputs)


def _through(
    program: Program, operands: list[Addresses], context: Addresses, found: Found
) -> list[Addresses]:
    """What the outputs depend on; `context` is what the program's being run depends on."""
    env: dict[int, Addresses] = dict.fromkeys(program.constants, _NONE)
    env.update(zip(program.inputs, operands, strict=True))
    for step in program.steps:
        args = [env[i] for i in step.inputs]
        together = _NONE.union(*args)
        if isinstance(step, Pure):
            outs = [_NONE.union(*(args[i] for i in reads)) for reads in step.reads]
        elif isinstance(step, Choice):
            found.parents[step.path] |= together | context
            outs = [frozenset({step.path})]
        elif isinstance(step, Factor):
            found.factors.setdefault(step, set()).update(together | context)
            outs = []
        elif isinstance(step, Branch):
            index, rest = args[0], args[1:]
            each = [_through(b, rest, context | index, found) for b in step.branches]
            outs = [index.union(*same) for same in zip(*each, strict=True)]
        elif isinstance(step, Loop):
            outs = _loop(step, args, context, found)
        elif isinstance(step, While):
            outs = _while(step, args, context, found)
        elif bodies(step):  # a map, checkpoint, a custom derivative
            outs = _through(bodies(step)[0], args, context, found)
        else:  # a draw hands on what its parameters depend on
            outs = [together for _ in step.outputs]
        env.update(zip(step.outputs, outs, strict=True))
    return [env[i] for i in program.outputs]


def _loop(step: Loop, args: list[Addresses], context: Addresses, found: Found):
    split = step.constants + step.carries
    constants, carry, xs = args[: step.constants], args[step.constants : split], args[split:]
    while True:
        outs = _through(step.body, [*constants, *carry, *xs], context, found)
        grown = [a | b for a, b in zip(carry, outs[: step.carries], strict=True)]
        if grown == carry:
            return [*carry, *outs[step.carries :]]
        carry = grown


def _while(step: While, args: list[Addresses], context: Addresses, found: Found):
    first, second = step.test_constants, step.test_constants + step.body_constants
    test, constants, carry = args[:first], args[first:second], args[second:]
    while True:
        (again,) = _through(step.test, [*test, *carry], context, found)
        outs = _through(step.body, [*constants, *carry], context | again, found)
        grown = [a | b | again for a, b in zip(carry, outs, strict=True)]
        if grown == carry:
            return carry
        carry = grown
