"""Exact expectations of random programs: `integrate`, and the enumeration behind it.

Every path of a program has a number: the outcomes of its draws are the digits of
a mixed-radix integer, split over steps, loop iterations and the elements of a
batch. A construct (a loop, a branch) is one draw whose outcomes are its paths, so
the jittable code that runs is what is enumerated, vectorised by `vmap`; and what
comes before a draw is computed once for all of its outcomes. Outcomes of
probability zero contribute exactly zero, whatever the rest of the program does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import distributions, errors, jumps, quadrature
from .chances import probability
from .continuation import run
from .keys import sizes, with_levels
from .program import DRAW, Branch, Draw, Loop, Map, Program, Step, While, bodies
from .quadrature import Quadrature, check_rule
from .randomness import program_of
from .walk import Result, Rule, construct

PATHS = 1 << 18
"""How many paths are evaluated at once; more are taken in turns of this size."""


MOST_PATHS = 2**31 - 1


def too_many(total: int, limit: int, where: str) -> errors.CannotIntegrate:
    return errors.CannotIntegrate(
        "The program has too many paths to enumerate.",
        where=where,
        given=f"about 10^{math.log10(total):.0f} paths",
        expected=f"at most {limit}",
        fix="shorten the loop or make fewer draws before the result",
    )


LARGEST_LOSS = 0.1
"""If the nodes miss more of the probability than this, nothing is known of an integral."""


class Integral(NamedTuple):
    """A quadrature's value, and an estimate of its error from two node counts.

    The error is the difference between the two, and the share of the value that belongs to
    probability which the nodes miss; it is infinite if they miss a tenth. It is an estimate and
    no bound: where the integrand jumps, two counts can be wrong alike.

    >>> import numpyro.distributions as dist
    >>> from ppl import Integral, draw, integrate
    >>> square = lambda: draw(dist.Normal(1.0, 2.0)) ** 2
    >>> result = integrate(square, nodes=(8, 12))()
    >>> isinstance(result, Integral), f"{result.value:.3f}", bool(result.error < 1e-3)
    (True, '5.000', True)
    """

    value: Any
    error: Any


class _Digits(NamedTuple):
    """One scalar element of a draw: `radix` outcomes, and how to turn digits into values."""

    radix: int
    count: int
    shape: tuple[int, ...]
    table: np.ndarray | None
    kind: str


class _Paths(Rule):
    """Run a program along the path with a given number; sums its log probability."""

    handles = frozenset({DRAW})
    sums = ("log",)

    def __init__(self, using: Quadrature | None, nodes_allowed: bool = True):
        self.quadrature = using
        self.nodes_allowed = nodes_allowed
        self._counts: dict[Any, int] = {}

    def count(self, program: Program) -> int:
        """The number of paths of a program."""
        return math.prod(self.paths(step, program) for step in program.steps)

    def paths(self, step: Step, program: Program) -> int:
        if DRAW not in step.effects:
            return 1
        if step in self._counts:
            return self._counts[step]
        if isinstance(step, Draw):
            digits = self.digits(step, program.constants)
            total = digits.radix**digits.count
        elif isinstance(step, While):
            raise errors.CannotIntegrate(
                "A draw under a `while_loop` of unknown length has unboundedly many paths.",
                where=next(_sources(step), step.source),
                expected="a loop whose length is known before the program runs",
                fix="use lax.scan or a static fori_loop",
            )
        elif isinstance(step, Branch):
            total = max(self.count(b) for b in step.branches)
        else:
            total = self.count(bodies(step)[0]) ** _times(step)
        if total > MOST_PATHS:
            raise too_many(total, MOST_PATHS, next(_sources(step), step.source))
        self._counts[step] = total
        return total

    def digits(self, step: Draw, constants: dict) -> _Digits:
        spec = step.spec
        leaves = [constants.get(i, aval) for i, aval in zip(step.inputs, spec.leaves, strict=True)]
        d = spec.tree.unflatten(leaves)
        shape = quadrature.elements(d)
        discrete = not jnp.issubdtype(spec.dtype, jnp.floating)
        table = quadrature.outcomes(d)
        if shape is not None and table is not None:
            levels = sizes(spec) + shape
            return _Digits(len(table), math.prod(levels), levels, table, "finite")
        if shape is None or discrete or self.quadrature is None:
            if discrete or shape is None:
                fix = "use a distribution with finitely many, known values (a concrete count)"
            elif not self.nodes_allowed:
                fix = "use integrate(f, nodes=16) for an expectation; law needs finite outcomes"
            else:
                fix = "give a number of quadrature nodes: integrate(f, nodes=16)"
            raise errors.CannotIntegrate(
                f"A draw of {spec.kind} cannot be integrated exactly.",
                where=step.place,
                given=f"{spec.kind} with values of shape {spec.shape}, support {spec.support}",
                expected="finitely many outcomes, or a scalar density with quadrature nodes",
                fix=fix,
            )
        base = distributions.base(d)
        kind = base[0] if base is not None and self.quadrature.rule != "trapezoid" else "grid"
        if kind == "grid" and self.quadrature.nodes < 2:
            raise errors.InvalidArgument(
                f"A draw of {spec.kind} takes a grid, which has a spacing.", where=step.place,
                given="nodes=1", expected="at least two nodes", fix="nodes=16",
            )  # fmt: skip
        levels = sizes(spec) + shape
        return _Digits(self.quadrature.nodes, math.prod(levels), levels, None, kind)

    # -- the rule ---------------------------------------------------------------

    def enter(self, program, inputs):
        number, given = inputs, {}
        for step in program.steps:
            if DRAW in step.effects:
                total = self.paths(step, program)
                given[step.name] = (number % total, program)
                number = number // total
        return given

    def inside(self, step, inputs):
        number, _ = inputs[step.name]
        if isinstance(step, (Loop, Map)):
            return _split(number, self.count(step.body), _times(step))
        return number

    def into_branch(self, step, i, inner):
        return inner

    def absent(self, step, i, inner):
        fits = inner < self.count(step.branches[i])
        return {"log": jnp.where(fits, 0.0, -jnp.inf)}

    def weighted(self, step, args, inputs) -> tuple[list, Any]:
        """The value of a draw, and its weight: of finitely many outcomes the probability itself,
        whose derivative at zero is not that of a logarithm."""
        number, program = inputs[step.name]
        spec, digits = step.spec, self.digits(step, program.constants)
        if digits.kind != "finite":
            outs, _, sums = self.visit(step, args, inputs)
            return outs, jnp.exp(sums["log"])
        which = _split(number, digits.radix, digits.count).reshape(digits.shape)

        def one(leaves, which):
            d = distributions.elementwise(spec.tree.unflatten(leaves))
            value = jnp.broadcast_to(jnp.asarray(digits.table)[which], spec.shape)
            value = value.astype(spec.dtype)
            return value, jnp.prod(probability(d, value))

        value, chances = with_levels(one, spec)(args, which)
        return [value], jnp.prod(chances)

    def visit(self, step, args, inputs) -> Result:
        assert isinstance(step, Draw)
        number, program = inputs[step.name]
        spec, digits = step.spec, self.digits(step, program.constants)
        which = _split(number, digits.radix, digits.count).reshape(digits.shape)

        def one(leaves, which):
            d = spec.tree.unflatten(leaves)
            value, log = self.value(d, which, digits)
            value = jnp.broadcast_to(value, spec.shape).astype(spec.dtype)
            return value, jnp.sum(distributions.log_density(d, value) if log is None else log)

        value, log = with_levels(one, spec)(args, which)
        return [value], {}, {"log": jnp.sum(log)}

    def value(self, d, which, digits) -> tuple[Any, Any]:
        """The value with these digits; its log weight, or None for its probability."""
        if digits.kind == "finite":
            return jnp.asarray(digits.table)[which], None
        q = self.quadrature
        assert q is not None
        if digits.kind == "grid":
            if q.rule == "trapezoid":
                z, h = np.linspace(*q.bounds, q.nodes, retstep=True)
                w = np.full(q.nodes, h)
            else:
                z, w = quadrature.sinh_grid(q.nodes)
            value, log = quadrature.log_weight_on_grid(d, jnp.asarray(z)[which])
            return value, log + jnp.log(jnp.asarray(w))[which]
        if q.rule == "midpoint":
            x, w = quadrature.midpoints(digits.kind, q.nodes)
        else:
            x, w = quadrature.gauss(digits.kind, q.nodes)
        base = distributions.base(d)
        assert base is not None
        return base[2](jnp.asarray(x)[which]), jnp.log(jnp.asarray(w))[which]


def _times(step: Any) -> int:
    return step.length if isinstance(step, Loop) else step.size if isinstance(step, Map) else 1


def _split(number: Any, radix: int, count: int) -> Any:
    """The `count` lowest digits of `number`."""
    powers = jnp.asarray([radix**i for i in range(count)], jnp.int32)
    return (number // powers) % radix


def _draws(step: Step) -> Iterator[str]:
    if isinstance(step, Draw):
        yield step.place
    yield from _sources(step)


def _sources(step: Step) -> Iterator[str]:
    for body in bodies(step):
        for inner in body.steps:
            if isinstance(inner, Draw):
                yield inner.place
            yield from _sources(inner)


def enumerate_paths(
    f, args, kwargs, using, combine, finish, nodes_allowed=True, limit: int = MOST_PATHS
) -> Any:
    """Run `f` along all paths; `combine(weights, results)` joins the outcomes of a step."""
    staged, arguments = program_of(f, args, kwargs)
    program, leaves = staged.program, arguments.leaves
    if using is not None:
        program, leaves = jumps.guarded(staged, leaves, using.rule)
    rule = _Paths(using, nodes_allowed)
    counts = {step: rule.paths(step, program) for step in program.steps}
    total = math.prod(counts.values())
    if total > limit:
        sources = (place for step in program.steps for place in _draws(step))
        raise too_many(total, limit, next(sources, errors.caller()))
    order = [s for s in program.steps if DRAW in s.effects]
    after = {s: math.prod(counts[t] for t in order[i + 1 :]) for i, s in enumerate(order)}

    def handle(step, args, k):
        def one(number):
            inputs = {step.name: (number, program)}
            if isinstance(step, Draw):
                outs, weight = rule.weighted(step, args, inputs)
                return weight, k(outs)
            outs, _, sums = construct(step, args, rule, inputs)
            return jnp.exp(sums["log"]), k(outs)

        numbers = jnp.arange(counts[step], dtype=jnp.int32)
        batch = max(1, PATHS // after[step])
        if counts[step] > batch:
            weights, results = jax.lax.map(one, numbers, batch_size=batch)
        else:
            weights, results = jax.vmap(one)(numbers)
        return combine(weights, results)

    return run(program, leaves, handle, lambda outs: finish(staged, outs))


def _sum(weights, results):
    def total(leaf):
        w = weights.reshape(weights.shape + (1,) * (leaf.ndim - 1))
        # what has no probability counts for nothing, unless a number can say how much it would
        counts = (w > 0) | jnp.isfinite(leaf)
        return jnp.sum(jnp.where(counts, w * jnp.where(counts, leaf, 0), 0), 0)

    return jax.tree.map(total, results)


def _floats(staged, outs):
    return staged.rebuild([jnp.asarray(o, jnp.result_type(o, float)) for o in outs])


def integrate(
    f: Callable,
    *,
    nodes: int | tuple[int, int] | None = None,
    rule: str = "gauss",
    bounds: tuple[float, float] = (-8.0, 8.0),
) -> Callable:
    """`integrate(f)(*args)` = E[f(*args)], exactly.

    Draws with finitely many outcomes are summed over, wherever they are: in `scan`,
    `cond`, `switch`, `vmap`, `jit`, static `fori_loop`. The result is the mean of
    every leaf of `f`'s result, a pure function that can be jitted, vmapped and
    differentiated.

    Args:
      nodes: for continuous draws, quadrature nodes per scalar; with two counts the
        result is an `Integral(value, error)`, the value being the second count's.
      rule: `"gauss"`; `"trapezoid"` between `bounds` in unconstrained space (for
        integrands with jumps); or `"midpoint"`, which is exact for programs that are
        constant between multiples of 1 / nodes of each uniform (resampling with weights
        that are such multiples).

    Derivatives. The nodes of `"gauss"` and `"midpoint"` move with the distribution's
    parameters, as reparametrised samples do. That is the most accurate way for smooth
    integrands (a polynomial's derivative is exact), and wrong by what the jump adds where
    nodes cross a jump. So the program is read before it is differentiated, and such a jump
    is an error. The nodes of `"trapezoid"` stay, and their weights carry the derivative;
    with n nodes it is right to a power of the spacing that only smoothness limits: to order
    1/n where the integrand jumps, as its values are.

    Raises:
      CannotIntegrate: names the draw that is neither finite nor given nodes.
      GradientThroughDraw: a derivative is taken and nodes would cross a jump; names both.
      InvalidArgument: another `rule`, or no number of nodes.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw, integrate
    >>> die = lambda: draw(dist.DiscreteUniform(1, 6))
    >>> print(f"{integrate(lambda: die() * die())():.4f}")
    12.2500
    """
    check_rule(rule, nodes)

    def integrated(*args, **kwargs):
        def value(n, finish=_floats):
            q = None if n is None else Quadrature(n, rule, bounds)
            return enumerate_paths(f, args, kwargs, q, _sum, finish)

        if not isinstance(nodes, tuple):
            return value(nodes)

        def with_mass(staged, outs):
            return _floats(staged, outs), jnp.ones(())

        (coarse, low), (fine, high) = value(nodes[0], with_mass), value(nodes[1], with_mass)
        lost = jnp.maximum(jnp.abs(1 - low), jnp.abs(1 - high))

        def error(a, b):
            seen = jnp.abs(a - b) + jnp.abs(b) * lost / (1 - lost)
            return jnp.where(lost < LARGEST_LOSS, seen, jnp.inf)

        return Integral(fine, jax.tree.map(error, coarse, fine))

    return functools.wraps(f, updated=())(integrated)
