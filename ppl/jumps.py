"""Jumps that quadrature nodes are carried across when a parameter changes.

A sum over nodes has the derivative of the integral if, at each node, the integrand varies
smoothly with the parameter. Where a node and a parameter both enter what decides a jump (a
comparison that selects, `floor`, `sign`, `argmax`, a cast to integers), nodes cross the jump as
the parameter moves; the integral changes, and the sum's derivative does not know. So before a
derivative is taken the program is read for such a jump. Comparisons that the ranges of their
sides decide are none, and continuous functions that are written in pieces inside
JAX (`jax.nn`, `jax.scipy.special`) and in densities, or that have a derivative of their own, count
as smooth; so do comparisons with supports in the scope `INSIDE`. What
is not decided counts as a jump: an answer "none" is never wrong about code that is read.

Nodes that stay put are the cure where the jump stays too: their weights are smooth in the
parameter. Whether a rule's nodes stay is read off the same way, from the code that places them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from . import distributions, errors, quadrature, ranges
from .program import Program
from .ranges import LINE, Range
from .staging import Staged, scan_arity


@dataclass(frozen=True)
class Jump:
    """What decides the jump, the user's line, and the draw whose nodes are carried across."""

    operation: str
    source: str
    draw: str


@dataclass(frozen=True)
class Mark:
    """What a value depends on: the nodes of a draw, the parameter; whether it jumps; its range."""

    draw: str | None = None
    moves: bool = False
    jump: Jump | None = None
    range: Range = LINE


NOTHING = Mark()

_COMPARE = frozenset({"lt", "le", "gt", "ge", "lt_to", "le_to"})
_STEPS = frozenset({"floor", "ceil", "round", "sign", "argmax", "argmin", "rem"})
_LEVEL = frozenset({"eq", "ne", "is_finite", "eq_to"})  # they differ on a set of measure zero
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"})
_OWN_DERIVATIVE = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
_CONTINUOUS_FILES = (
    "jax/_src/nn/functions.py",
    "jax/_src/scipy/special.py",
    "numpyro/distributions/util.py",
    "ppl/beta_tails.py",
    "ppl/edge_derivatives.py",
    "ppl/large_counts.py",
)
_SUPPORT_FILES = ("numpyro/distributions/constraints.py", "ppl/distributions.py")
"""Where values are compared with the ends of supports."""

INSIDE = "inside all supports"
"""The name of a scope (`jax.named_scope`) in which choices are known to be inside the supports of
all that they are weighed by, so that comparisons with ends of supports decide nothing."""


def find(
    jaxpr: Any,
    parameters: Sequence[bool],
    constants: Sequence[bool],
    rule: str | Callable[[Any], str],
) -> Any:
    """The first jump that reaches a result of the random program `jaxpr`, or None.

    `parameters` and `constants` say which of its operands are differentiated; `rule` how nodes
    are placed, or for the equation of a draw whether its value `"moves"` with all of its
    parameters, `"stays"`, or is not looked at (`""`).
    """
    search = _Search(rule)
    given = [Mark(moves=moves) for moves in parameters]
    closed = [
        Mark(moves=moves, range=ranges.of_value(value))
        for moves, value in zip(constants, jaxpr.consts, strict=True)
    ]
    outs = search.marks(jaxpr.jaxpr, given, closed, None)
    return search.reached or next((mark.jump for mark in outs if mark.jump), None)


def watched(x: Any, look: Callable[[], None]) -> Any:
    """`x`; `look` runs before a derivative with respect to it is taken."""
    if not isinstance(x, jax.core.Tracer) or not jnp.issubdtype(x.dtype, jnp.inexact):
        return x  # no derivative

    @jax.custom_jvp
    def same(x):
        return x

    @same.defjvp
    def derivative(primals, tangents):
        look()
        return primals[0], tangents[0]

    return same(x)


def guarded(staged: Staged, leaves: Sequence[Any], rule: str) -> tuple[Program, list]:
    """The program and its arguments, of which no derivative is taken across a jump.

    What the program closes over is differentiated like its arguments.
    """
    jaxpr, constants = staged.jaxpr, dict(staged.program.constants)

    def refused(jump: Jump, which: tuple) -> errors.GradientThroughDraw:
        return refuse(jump, rule, find(jaxpr, which[0], which[1], "trapezoid") is None)

    closed, safe = looked_at(jaxpr, leaves, rule, refused)
    for value, watched_value in zip(jaxpr.consts, closed, strict=True):
        if value is not watched_value:
            constants |= {slot: watched_value for slot, x in constants.items() if x is value}
    return dataclasses.replace(staged.program, constants=constants), safe


def looked_at(
    jaxpr: Any,
    leaves: Sequence[Any],
    rule: str | Callable[[Any], str],
    refused: Callable[[Jump, tuple], Exception],
) -> tuple[list, list]:
    """What a program closes over, and its arguments: the same, watched.

    Where a derivative with respect to one of them would be taken across a jump, `refused` of the
    jump is raised.
    """
    closed = len(jaxpr.consts)

    def look(leaf: int | None, constant: int | None) -> None:
        which = [i == leaf for i in range(len(leaves))], [i == constant for i in range(closed)]
        jump = find(jaxpr, which[0], which[1], rule)
        if jump is not None:
            raise refused(jump, which)

    constants = [watched(x, partial(look, None, i)) for i, x in enumerate(jaxpr.consts)]
    return constants, [watched(x, partial(look, i, None)) for i, x in enumerate(leaves)]


def refuse(jump: Jump, rule: str, stays: bool) -> errors.GradientThroughDraw:
    """The error; `stays` says that no jump is crossed with `rule="trapezoid"`."""
    if stays:
        fix = (
            'integrate(..., rule="trapezoid"), whose nodes stay, with hundreds of nodes; '
            "or write a continuous function without a comparison: jnp.maximum, jnp.abs, jnp.clip"
        )
    else:
        fix = (
            "let the parameter enter the distribution, draw(dist.Normal(t, 1.0)), so that the "
            'jump stays where it is, and use rule="trapezoid"; or write a continuous function '
            "without a comparison: jnp.maximum, jnp.abs, jnp.clip"
        )
    return errors.GradientThroughDraw(
        "A derivative of a quadrature whose nodes cross a jump: it would miss what the jump adds.",
        where=(f"`{jump.operation}` at {jump.source}", jump.draw),
        given=f'rule="{rule}"; what decides the jump depends on the draw and on the parameter',
        expected="an integrand without jumps, or nodes and jumps that stay as the parameter moves",
        fix=fix,
    )


class _Search:
    """Reads a program forwards; `reached` is a jump that decides the law of a draw."""

    def __init__(self, rule: str | Callable[[Any], str]):
        self.rule = rule if callable(rule) else lambda _: rule
        self.reached: Jump | None = None

    def marks(self, jaxpr: Any, given: Sequence[Mark], constants: Any, at: str | None) -> list:
        """The marks of the outputs; `at` is the user's line of a call around the code."""
        closed = getattr(jaxpr, "consts", ())
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        if constants is None:
            constants = [Mark(range=ranges.of_value(value)) for value in closed]
        known = dict(zip(jaxpr.constvars, constants, strict=True))
        known.update(zip(jaxpr.invars, given, strict=True))

        def read(atom: Any) -> Mark:
            return Mark(range=ranges.of_value(atom.val)) if hasattr(atom, "val") else known[atom]

        for eqn in jaxpr.eqns:
            outs = self.outputs(eqn, [read(atom) for atom in eqn.invars], at or _line(eqn))
            known.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def outputs(self, eqn: Any, given: list[Mark], at: str) -> list[Mark]:
        name, p, n = eqn.primitive.name, eqn.params, len(eqn.outvars)
        if name == "draw":
            return [self.draw(eqn, given)]
        if name in _CALLS and ("jaxpr" in p or "call_jaxpr" in p):
            return self.marks(p["jaxpr"] if "jaxpr" in p else p["call_jaxpr"], given, None, at)
        if name == "cond":
            each = [self.marks(branch, given[1:], None, at) for branch in p["branches"]]
            outs = [_either(same) for same in zip(*each, strict=True)]
            return [_jumping(out, given[0].jump) for out in outs]
        if name == "scan":
            return self.scan(p, given, at)
        if name == "while":
            return self.loop(p, given, at)
        both = _both(given)
        crossed = both.draw is not None and both.moves
        if name in _COMPARE and len(given) == 2 and ranges.decided(*(m.range for m in given)):
            crossed = False
        steps = name in _COMPARE or name in _STEPS or _to_integers(eqn)
        if name in ("sort", "top_k", "approx_top_k"):  # values vary continuously, places jump
            keys = p.get("num_keys", 1)
            jump = both.jump or (Jump(name, at, both.draw or "") if crossed else None)
            kept = [_anywhere(mark) for mark in given[:keys]] if name == "sort" else [both]
            return [*kept, *[Mark(jump=jump)] * (n - len(kept))]
        if steps or name in _LEVEL or not _is_float(eqn.outvars[0]):
            jump = both.jump
            if jump is None and steps and crossed and not _continuous(eqn):
                jump = Jump(name, at, both.draw or "")
            return [Mark(jump=jump)] * n  # constant where it does not jump
        if name == "select_n":
            return [_jumping(_either(given[1:]), given[0].jump)]
        if name in _OWN_DERIVATIVE:
            return [both] * n
        found = ranges.of_operation(name, p, [mark.range for mark in given])
        return [dataclasses.replace(both, range=found)] * n

    def draw(self, eqn: Any, given: list[Mark]) -> Mark:
        """The value of a draw; its parameters' jumps jump in its law."""
        self.reached = self.reached or _both(given).jump
        if not _is_float(eqn.outvars[0]):
            return NOTHING
        p, rule = eqn.params, self.rule(eqn)
        if not rule:
            return NOTHING
        source = p["source"]
        where = f"draw {source}" if source.startswith('"') else f"draw at {source}"
        leaves = [_single(a.aval, m) for a, m in zip(eqn.invars, _axes(eqn), strict=True)]
        support = _range_of(p["tree"].unflatten(leaves))
        if rule == "moves":
            return Mark(draw=where, moves=_both(given).moves, range=support)

        def value(leaves, x):
            d = p["tree"].unflatten(leaves)
            placed = distributions.base(d) if rule not in ("trapezoid", "stays") else None
            return placed[2](x) if placed else quadrature.value_on_grid(d, x)

        node = jax.ShapeDtypeStruct(tuple(p["shape"]), p["dtype"])
        jaxpr = jax.make_jaxpr(value)(leaves, node)
        (out,) = self.marks(jaxpr, [*given, Mark(draw=where)], None, source)
        return dataclasses.replace(out, range=support)

    def scan(self, p: dict, given: list[Mark], at: str) -> list[Mark]:
        first, carries = scan_arity(p)
        constants, xs = given[:first], given[first + carries :]
        carry = [_anywhere(mark) for mark in given[first : first + carries]]
        while True:
            outs = self.marks(p["jaxpr"], [*constants, *carry, *xs], None, at)
            grown = [_anywhere(_either(pair)) for pair in zip(carry, outs[:carries])]  # noqa: B905
            if grown == carry:
                return [*carry, *outs[carries:]]
            carry = grown

    def loop(self, p: dict, given: list[Mark], at: str) -> list[Mark]:
        tests, bodies = p["cond_nconsts"], p["body_nconsts"]
        test, body = given[:tests], given[tests : tests + bodies]
        carry = [_anywhere(mark) for mark in given[tests + bodies :]]
        while True:
            (again,) = self.marks(p["cond_jaxpr"], [*test, *carry], None, at)
            outs = self.marks(p["body_jaxpr"], [*body, *carry], None, at)
            grown = [
                _anywhere(_jumping(_either(pair), again.jump))
                for pair in zip(carry, outs, strict=True)
            ]
            if grown == carry:
                return carry
            carry = grown


def _range_of(d: Any) -> Range:
    """Where the values of a distribution with abstract parameters are, as far as that is known."""
    try:
        return ranges.of_support(d.support)
    except (TypeError, AttributeError):  # ends that are computed of parameters without values
        return LINE


def _both(marks: Sequence[Mark]) -> Mark:
    """What a smooth function of all of them depends on."""
    return Mark(
        next((mark.draw for mark in marks if mark.draw is not None), None),
        any(mark.moves for mark in marks),
        next((mark.jump for mark in marks if mark.jump is not None), None),
    )


def _either(marks: Sequence[Mark]) -> Mark:
    hull = ranges.hull([mark.range for mark in marks])
    return dataclasses.replace(_both(marks), range=hull)


def _jumping(mark: Mark, jump: Jump | None) -> Mark:
    return mark if jump is None or mark.jump else dataclasses.replace(mark, jump=jump)


def _anywhere(mark: Mark) -> Mark:
    return dataclasses.replace(mark, range=LINE)


def _is_float(var: Any) -> bool:
    return bool(jnp.issubdtype(var.aval.dtype, jnp.inexact))


def _to_integers(eqn: Any) -> bool:
    """Whether an operation makes integers of numbers: a cast, a search, whatever it is called."""
    if eqn.primitive.name in _LEVEL or _is_float(eqn.outvars[0]):
        return False
    return any(_is_float(atom) for atom in eqn.invars)


def _axes(eqn: Any) -> list[int]:
    """How many mapped axes each parameter of a draw has in front."""
    return [
        sum(axes[i] is not None for _, axes in eqn.params["levels"]) for i in range(len(eqn.invars))
    ]


def _single(aval: Any, mapped: int) -> Any:
    return jax.ShapeDtypeStruct(aval.shape[mapped:], aval.dtype)


def _continuous(eqn: Any) -> bool:
    """Whether a function that is continuous, though in pieces, made an operation; or a comparison
    with a support that holds."""
    for name, _ in _frames(eqn):
        file = name.replace("\\", "/")
        if errors.is_users(name):
            return False
        if file.endswith(_SUPPORT_FILES):
            return INSIDE in str(eqn.source_info.name_stack)
        if file.endswith(_CONTINUOUS_FILES):
            return True
    return False


def _line(eqn: Any) -> str:
    """The innermost line of the user's own code that made an operation."""
    for name, line in _frames(eqn):
        if errors.is_users(name):
            return errors.place(name, line)
    return "<unknown>"


def _frames(eqn: Any) -> list[tuple[str, int]]:
    traceback = getattr(eqn.source_info, "traceback", None)
    return [(f.file_name, f.line_num) for f in traceback.frames] if traceback is not None else []
