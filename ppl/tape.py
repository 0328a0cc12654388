"""Running random programs without a key: on a recorded tape, or at the boundary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from . import distributions, errors
from .keys import abstract_base, base_dtype, sizes, with_levels
from .program import DRAW, Draw
from .randomness import Seed, checked_key, program_of
from .walk import Result, Rule, walk


def record(f: Callable) -> Callable:
    """`record(f)(key, *args)` is `(result, tape)`: a run, with the values of its draws.

    The tape is a dict from the draw's name to its value (stacked along loops); it
    is a pytree, and `replay` runs the program on it. Draws under a `while_loop`
    of unknown length are run but not recorded.

    Raises:
      InvalidKey: `key` is not one PRNG key.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, record, replay
    >>> f = lambda: draw(dist.Normal(0.0, 1.0)) ** 2
    >>> y, tape = record(f)(jax.random.key(0))
    >>> bool(replay(f, tape)() == y)
    True
    """

    @functools.wraps(f, updated=())
    def recorded(key, *args, **kwargs):
        staged, arguments = program_of(f, args, kwargs)
        run = walk(staged.program, arguments.leaves, Seed(record=True), checked_key(key))
        tape = {path[0]: value for path, value in run[1].get("draws", {}).items()}
        return staged.rebuild(run[0]), tape

    return recorded


class _Replay(Rule):
    """Resolve draws by name from a tape, or by a function of the draw."""

    handles = frozenset({DRAW})

    def __init__(self, resolve: Callable | None = None):
        self.resolve = resolve

    def visit(self, step, args, inputs) -> Result:
        assert isinstance(step, Draw)
        if self.resolve is not None:
            return [self.resolve(step, args)], {}, {}
        value, spec = inputs.get(step.name), step.spec
        expected = sizes(spec) + spec.shape
        if value is None or jnp.shape(value) != expected:
            raise errors.TapeMismatch(
                "The tape does not fit the program.",
                where=step.place,
                given="no value" if value is None else f"shape {jnp.shape(value)}",
                expected=f"a value of shape {expected}",
                fix="record the tape from the same program and arguments",
            )
        discrete = not jnp.issubdtype(spec.dtype, jnp.inexact)
        if discrete and jnp.issubdtype(jnp.result_type(value), jnp.inexact):
            raise errors.TapeMismatch(
                "The tape does not fit the program.",
                where=step.place,
                given=str(jnp.result_type(value)),
                expected=f"a value of dtype {spec.dtype}",
                fix="record the tape from the same program and arguments",
            )
        return [jnp.asarray(value, spec.dtype)], {}, {}


def replay(f: Callable, tape: dict[str, Any]) -> Callable:
    """The deterministic function that `f` is once its draws have the tape's values.

    Raises:
      TapeMismatch: the tape lacks a draw of `f`, has another shape or dtype, or has
        draws too many.

    >>> import numpyro.distributions as dist
    >>> from ppl import draw, replay
    >>> f = lambda x: x + 10 * draw(dist.Normal(0.0, 1.0)) + draw(dist.Bernoulli(0.5))
    >>> float(replay(f, {"#0": 2.0, "#1": 1})(0.5))
    21.5
    """
    if not isinstance(tape, Mapping):
        raise errors.TapeMismatch(
            "A tape is a dict from the draws' names to their values.",
            where=errors.caller(),
            given=type(tape).__name__,
            expected='{"#0": value, ...}',
            fix="result, tape = record(f)(key, *args)",
        )

    @functools.wraps(f, updated=())
    def replayed(*args, **kwargs):
        staged, arguments = program_of(f, args, kwargs)
        surplus = [name for name in tape if (name,) not in staged.program.paths]
        if surplus:
            raise errors.TapeMismatch(
                "The tape has draws that the program does not make.",
                where=errors.caller(),
                given=", ".join(surplus),
                fix="record the tape from the same program and arguments",
            )
        inputs = {(name,): value for name, value in tape.items()}
        return staged.rebuild(walk(staged.program, arguments.leaves, _Replay(), inputs)[0])

    return replayed


def at_boundary(f: Callable, where: str) -> Callable:
    """`f` with the uniform behind every draw at an end of its range: for robustness tests.

    Args:
      where: `"zero"` (u = 0), `"smallest"` (the smallest positive u), `"one"` (1 - ulp).

    Raises:
      CannotIntegrate: a draw is no function of one uniform or normal.
      InvalidArgument: another `where`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import at_boundary, draw
    >>> naive = lambda: -jnp.log(draw(dist.Uniform(0.0, 1.0)))
    >>> float(at_boundary(naive, "zero")()), bool(at_boundary(naive, "one")() > 0)
    (inf, True)
    """
    if where not in ("zero", "smallest", "one"):
        raise errors.InvalidArgument(
            "Unknown boundary.", where=errors.caller(), given=repr(where),
            expected='"zero", "smallest" or "one"', fix='at_boundary(f, "zero")',
        )  # fmt: skip

    def resolve(step, args):
        spec, found = step.spec, abstract_base(step.spec)
        if found is None:
            raise errors.CannotIntegrate(
                f"A draw of {spec.kind} is no function of one uniform.",
                where=step.place,
                fix="use a distribution with an inverse distribution function here",
            )
        dtype = base_dtype(spec)
        info = jnp.finfo(dtype)
        u = {"zero": 0.0, "smallest": info.tiny, "one": 1 - info.epsneg}[where]
        if found[0] == "normal":  # the ends of the range of jax.random.normal
            u = jax.scipy.special.ndtri(jnp.clip(jnp.asarray(u, dtype), info.tiny, 1 - info.epsneg))
        given = jnp.full(sizes(spec) + found[1], u, dtype)

        def one(leaves, given):
            value = distributions.base(spec.tree.unflatten(leaves))[2](given)  # type: ignore[index]
            return jnp.broadcast_to(value, spec.shape).astype(spec.dtype)

        return with_levels(one, spec)(args, given)

    @functools.wraps(f, updated=())
    def bounded(*args, **kwargs):
        staged, arguments = program_of(f, args, kwargs)
        return staged.rebuild(walk(staged.program, arguments.leaves, _Replay(resolve), {})[0])

    return bounded
