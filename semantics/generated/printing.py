"""Descriptions of finite programs, and the code that they are.

A description is a tree of frozen records: which choices there are, how many values each
has, which earlier values it depends on, and the constructs around it. It has no numbers:
the probabilities are tables, given when the program runs. `model_code` writes a
description out as Python, and `compiled` runs that text, so what a counterexample prints
is what was tested.

Every statement has a value in 0, 1, ..., which later statements may depend on by its
name. Names are unique within a program: they are variables, addresses, and keys of the
tables at once.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from ppl import GenerativeFunction

Form = Literal["jax", "python"]
Loops = Literal["vmap", "scan"]

IMPORTS = """\
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import Target, gen, mask, sample
"""


@dataclass(frozen=True)
class Block:
    """Statements in order; the value is that of the one named `result` (0 if empty).

    >>> from semantics.generated.printing import Block, Site
    >>> Block((Site("a", 3), Site("b", 2, ("a",))), "b").result
    'b'
    """

    statements: tuple[Statement, ...] = ()
    result: str = ""


@dataclass(frozen=True)
class Site:
    """A choice of one of `size` values, with a row of its table for each value of `parents`."""

    name: str
    size: int
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """The choices of `body` below the address `name`; with `on`, only if it is `value`.

    The condition is the combinator `mask`: otherwise no choice is made and the value is 0.
    """

    name: str
    body: Block
    on: str = ""
    value: int = 0


@dataclass(frozen=True)
class Branch:
    """`then` if the variable `on` is `value`, else `otherwise`: `lax.cond`."""

    name: str
    on: str
    value: int
    then: Block
    otherwise: Block = Block()


@dataclass(frozen=True)
class Loop:
    """`length` rounds of `body`, which may depend on their number, called `index`.

    In a `scan` the variable `name` is the value of the round before (0 at first), and in the
    end that of the last. In a `vmap` it is, in the end, the sum modulo the size of a round.
    """

    name: str
    kind: Loops
    length: int
    body: Block
    index: str = "i"


Statement = Site | Call | Branch | Loop


def size(statement: Statement) -> int:
    """How many values a statement has.

    >>> from semantics.generated.printing import Block, Branch, Site, size
    >>> size(Branch("c", "a", 1, Block((Site("b", 3),), "b")))
    3
    """
    if isinstance(statement, Site):
        return statement.size
    if isinstance(statement, Branch):
        return max(result_size(statement.then), result_size(statement.otherwise))
    return result_size(statement.body)


def result_size(block: Block) -> int:
    """How many values a block has.

    >>> from semantics.generated.printing import Block, Site, result_size
    >>> result_size(Block((Site("a", 3),), "a")), result_size(Block())
    (3, 1)
    """
    named = {statement.name: statement for statement in block.statements}
    return size(named[block.result]) if block.result else 1


def inner(statement: Statement) -> tuple[Block, ...]:
    """The blocks within a statement.

    >>> from semantics.generated.printing import Block, Call, inner
    >>> inner(Call("sub", Block()))
    (Block(statements=(), result=''),)
    """
    if isinstance(statement, Site):
        return ()
    if isinstance(statement, Branch):
        return (statement.then, statement.otherwise)
    return (statement.body,)


def free(block: Block) -> tuple[str, ...]:
    """The variables that a block takes from outside, in order of use.

    >>> from semantics.generated.printing import Block, Site, free
    >>> free(Block((Site("b", 2, ("a",)), Site("c", 2, ("b", "i"))), "c"))
    ('a', 'i')
    """
    found: dict[str, None] = {}
    bound: set[str] = set()
    for statement in block.statements:
        used: list[str] = list(statement.parents) if isinstance(statement, Site) else []
        if isinstance(statement, (Branch, Call)) and statement.on:
            used.append(statement.on)
        own = {statement.index, statement.name} if isinstance(statement, Loop) else set()
        for body in inner(statement):
            used += [name for name in free(body) if name not in own]
        found.update(dict.fromkeys(name for name in used if name not in bound))
        bound.add(statement.name)
    return tuple(found)


# -- code ------------------------------------------------------------------------------


def model_code(block: Block, form: Form = "jax") -> str:
    """The definition of `model(tables)`: runnable after `IMPORTS`.

    In the form `"python"`, loops are Python's, and their choices have the addresses
    `name_0`, `name_1`, ... .

    >>> from semantics.generated.printing import Block, Loop, Site, model_code
    >>> walk = Block((Loop("z", "scan", 3, Block((Site("x", 2, ("z",)),), "x")),), "z")
    >>> print(model_code(walk))
    @gen
    def model(tables):
        def z_step(z, i):
            x = sample("x", dist.Categorical(tables["x"][z]))
            return x, None
    <BLANKLINE>
        z, _ = lax.scan(z_step, jnp.asarray(0), jnp.arange(3))
        return z
    <BLANKLINE>
    >>> print(model_code(walk, "python"))
    @gen
    def model(tables):
        z = 0
        for i in range(3):
            x = sample(f"x_{i}", dist.Categorical(tables["x"][z]))
            z = x
        return z
    <BLANKLINE>
    """
    assert form in get_args(Form)
    return "\n".join(["@gen", *_function("model(tables)", block, form, "")]) + "\n"


def _function(head: str, block: Block, form: Form, suffix: str, result: str = "{}") -> list[str]:
    """A function of a block; `suffix` is what the loops around it add to addresses."""
    body = [*_lines(block.statements, form, suffix), "return " + result.format(_result(block))]
    return [f"def {head}:", *_indented(body)]


def _result(block: Block) -> str:
    return block.result or "jnp.asarray(0)"


def _indented(lines: Iterable[str]) -> list[str]:
    return [textwrap.indent(line, "    ") for line in lines]


def _lines(statements: Iterable[Statement], form: Form, suffix: str) -> list[str]:
    lines: list[str] = []
    for statement in statements:
        more = _statement(statement, form, suffix)
        if lines and more[0].startswith(("def ", "@gen")):
            lines.append("")
        lines += more
    return lines


def _statement(statement: Statement, form: Form, suffix: str) -> list[str]:
    if isinstance(statement, Site):
        return [_site(statement, suffix)]
    if isinstance(statement, Call):
        return _call(statement, form, suffix)
    if isinstance(statement, Branch):
        return _branch(statement, form, suffix)
    return _loop(statement) if form == "jax" else _python_loop(statement, suffix)


def _address(name: str, suffix: str) -> str:
    return f'f"{name}{suffix}"' if suffix else f'"{name}"'


def _site(site: Site, suffix: str) -> str:
    table = f'tables["{site.name}"]' + (f"[{', '.join(site.parents)}]" if site.parents else "")
    return f"{site.name} = sample({_address(site.name, suffix)}, dist.Categorical({table}))"


def _call(call: Call, form: Form, suffix: str) -> list[str]:
    name, arguments = f"{call.name}_model", ", ".join(("tables", *free(call.body)))
    made = f"{name}({arguments})"
    if call.on:
        made = f"mask({name})({call.on} == {call.value}, {arguments})"
    definition = ["@gen", *_function(f"{name}({arguments})", call.body, form, "")]
    return [*definition, "", f"{call.name} = sample({_address(call.name, suffix)}, {made})"]


def _branch(branch: Branch, form: Form, suffix: str) -> list[str]:
    then, otherwise = f"{branch.name}_then", f"{branch.name}_otherwise"
    lines = [*_function(f"{then}()", branch.then, form, suffix), ""]
    lines += [*_function(f"{otherwise}()", branch.otherwise, form, suffix), ""]
    test = f"{branch.on} == {branch.value}"
    return [*lines, f"{branch.name} = lax.cond({test}, {then}, {otherwise})"]


def _loop(loop: Loop) -> list[str]:
    name, numbers = loop.name, f"jnp.arange({loop.length})"
    if loop.kind == "vmap":
        body = _function(f"{name}_round({loop.index})", loop.body, "jax", "")
        many = f"jax.vmap({name}_round)({numbers})"
        return [*body, "", f"{name} = {many}.sum() % {result_size(loop.body)}"]
    head = f"{name}_step({name}, {loop.index})"
    body = _function(head, loop.body, "jax", "", "{}, None")
    return [*body, "", f"{name}, _ = lax.scan({name}_step, jnp.asarray(0), {numbers})"]


def _python_loop(loop: Loop, suffix: str) -> list[str]:
    inside = f"{suffix}_{{{loop.index}}}"
    body, value = _lines(loop.body.statements, "python", inside), _result(loop.body)
    if loop.kind == "vmap":
        value = f"({loop.name} + {value}) % {result_size(loop.body)}"
    head = f"for {loop.index} in range({loop.length}):"
    return [f"{loop.name} = 0", head, *_indented([*body, f"{loop.name} = {value}"])]


@functools.cache
def compiled(code: str) -> GenerativeFunction:
    """The `model` that a text defines; the same text gives the same model, compiled once.

    >>> from semantics.generated.printing import Block, Site, compiled, model_code
    >>> code = model_code(Block((Site("a", 2),), "a"))
    >>> compiled(code) is compiled(code), compiled(code)
    (True, <generative function model>)
    """
    names: dict = {}
    exec(compile(IMPORTS + code, "<program>", "exec"), names)
    return names["model"]
