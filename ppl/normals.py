"""Random programs as functions of standard normals: each draw by its quantile function.

With u a vector of independent standard normals, `on_normals(f)(u)` has the law of `f()`, and
depends on u as smoothly as its draws' quantiles do. What moves u reversibly for its law moves
the randomness of f: correlated estimates, for one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from . import distributions, errors
from .arithmetic import shaped
from .keys import sizes, with_levels
from .program import DRAW, Draw, Loop, Map, Path, Program, Step, While, bodies
from .quadrature import outcomes
from .randomness import program_of
from .walk import Result, Rule, walk


def normals_of(f: Callable, *args: Any) -> int:
    """How many standard normals `on_normals(f)` takes at arguments like these.

    Raises:
      CannotIntegrate: a draw has no quantile function, or is under a `while_loop` of
        unknown length.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw
    >>> from ppl.normals import normals_of
    >>> normals_of(lambda: draw(dist.Normal(0.0, 1.0).expand([3])) + draw(dist.Bernoulli(0.5)))
    4
    """
    found = _draws(program_of(f, args, {})[0].program)
    return sum(math.prod(each.shape) for each in found.values())


def on_normals(f: Callable) -> Callable:
    """`on_normals(f)(u, *args)` ~ f(*args) when u ~ N(0, I), of `normals_of(f, *args)` scalars.

    A draw with a normal base is that function of its normals; any other is its quantile at
    their distribution function: finite ones by inversion, others by `icdf`.

    Raises:
      CannotIntegrate: as for `normals_of`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw
    >>> from ppl.normals import on_normals
    >>> f = lambda p: draw(dist.Normal(3.0, 2.0)) + 10 * draw(dist.Bernoulli(p))
    >>> on_normals(f)(jnp.array([1.0, 0.1]), 0.5).tolist()  # P(N < 0.1) is above 0.5
    5.0
    """

    @functools.wraps(f, updated=())
    def run(u: jax.Array, *args: Any) -> Any:
        staged, arguments = program_of(f, args, {})
        found = _draws(staged.program)
        given, at = {}, 0
        for path, each in found.items():
            size = math.prod(each.shape)
            given[path] = u[at : at + size].reshape(each.shape)
            at += size
        rule = _OnNormals({path: each.table for path, each in found.items()})
        return staged.rebuild(walk(staged.program, arguments.leaves, rule, given)[0])

    return run


class _OnNormals(Rule):
    """Resolve draws by the normals of their names; `tables` has their outcomes, if finite."""

    handles = frozenset({DRAW})

    def __init__(self, tables: dict[Path, Any]):
        self.tables = tables

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        spec, table = step.spec, self.tables[step.name]

        def one(leaves: list, z: jax.Array) -> jax.Array:
            value = _quantile(spec.tree.unflatten(leaves), table, z.astype(_floating(spec.dtype)))
            return shaped(value, spec.shape, spec.dtype)

        return [with_levels(one, spec)(args, inputs[step.name])], {}, {}


def _floating(dtype: Any) -> Any:
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


class _Normals(NamedTuple):
    """The normals of a draw: their shape, with the axes of the loops around it in front, and
    the outcomes of the draw, if they are finitely many."""

    shape: tuple[int, ...]
    table: Any


def _draws(program: Program) -> dict[Path, _Normals]:
    """The draws of a program by name."""
    found: dict[Path, _Normals] = {}
    for step in program.steps:
        if DRAW not in step.effects:
            continue
        if isinstance(step, Draw):
            table = _checked(step, program)
            found[step.name] = _Normals(sizes(step.spec) + step.spec.shape, table)
        elif isinstance(step, While):
            raise errors.CannotIntegrate(
                "Draws under a `while_loop` of unknown length are of no fixed number.",
                where=_first_place(step),
                expected="scan, or fori_loop of static length",
                fix="bound the loop: lax.scan with a flag that says which steps count",
            )
        else:
            front = (step.length,) if isinstance(step, Loop) else ()
            front = (step.size,) if isinstance(step, Map) else front
            for body in bodies(step):
                found.update(
                    {p: _Normals(front + d.shape, d.table) for p, d in _draws(body).items()}
                )
    return found


def _first_place(step: Step) -> str:
    """Where the first draw of a construct is made."""
    if isinstance(step, Draw):
        return step.place
    inner = (each for body in bodies(step) for each in body.steps)
    return _first_place(next(each for each in inner if DRAW in each.effects))


def _checked(step: Draw, program: Program) -> Any:
    """The outcomes of a draw, if they are finitely many, after checking that it has quantiles."""
    spec = step.spec
    leaves = [program.constants.get(i, a) for i, a in zip(step.inputs, spec.leaves, strict=True)]
    table = outcomes(spec.tree.unflatten(leaves))
    z = jax.ShapeDtypeStruct(spec.shape, _floating(spec.dtype))
    try:
        jax.eval_shape(
            lambda ls, z: _quantile(spec.tree.unflatten(ls), table, z), list(spec.leaves), z
        )
    except (NotImplementedError, ImportError) as error:
        raise errors.CannotIntegrate(
            f"A draw of {spec.kind} is no function of standard normals that is known.",
            where=step.place,
            given=f"{spec.kind}, which has no quantile function",
            expected="a distribution with a normal or uniform base, with finitely many outcomes, "
            "or with icdf",
            fix="write it as a function of normals and uniforms",
        ) from error
    return table


def _quantile(d: Any, table: Any, z: jax.Array) -> Any:
    """The value at these standard normals, which have its shape.

    Raises:
      NotImplementedError: there is none.
    """
    inner: Any = d
    base = distributions.base(d)
    while isinstance(inner, (dist.Independent, dist.ExpandedDistribution)):
        inner = inner.base_dist
    if base is not None:
        return base[2](z if base[0] == "normal" else _uniform(z))
    if isinstance(inner, dist.MultivariateNormal):
        factor: Any = inner.scale_tril
        return inner.loc + (factor @ z[..., None])[..., 0]
    if isinstance(inner, dist.Delta):
        return inner.v
    if table is not None:
        return _inverted(inner, table, z)
    if inner.event_shape or inner.support.is_discrete:
        raise NotImplementedError
    return inner.icdf(_uniform(z))


def _uniform(z: jax.Array) -> jax.Array:
    """The distribution function, in [0, 1) also when it rounds to 1."""
    return jnp.minimum(jax.scipy.special.ndtr(z), 1 - jnp.finfo(z.dtype).epsneg)


def _inverted(d: Any, table: Any, z: jax.Array) -> jax.Array:
    """The first outcome up to which the probabilities exceed that of z."""
    shape = jnp.broadcast_shapes(d.batch_shape, z.shape)
    logs = [distributions.log_density(d, jnp.full(d.batch_shape, value)) for value in table]
    probs = jnp.stack([jnp.broadcast_to(jnp.exp(log), shape) for log in logs], -1)
    index = distributions.base(dist.CategoricalProbs(probs))
    assert index is not None
    return jnp.asarray(table)[index[2](_uniform(z))]
