"""Random programs: `draw`, and the eliminators that run them with a key or a tape.

A function that may `draw` is a random program: it denotes a Markov kernel from
its arguments to its results, and no key appears in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from . import distributions, errors
from .arguments import Arguments
from .effects import draw_p, guard
from .program import (
    CHOICE,
    DRAW,
    FACTOR,
    Branch,
    Choice,
    Draw,
    Loop,
    Map,
    Path,
    Program,
    Spec,
    While,
    bodies,
)
from .staging import Staged, stage
from .walk import Result, Rule, walk

# Keys of a loop are derived in the caller's one split while they are few; longer
# loops get one key a step and split it there, so that memory stays bounded.
_FLAT_KEYS = 1 << 16


def draw(distribution: Any) -> jax.Array:
    """One value v ~ distribution, independent of every other draw.

    Args:
      distribution: any numpyro distribution.

    Returns:
      An array of the distribution's batch and event shape.

    Raises:
      MissingSeed: the program around it is run without `seed` (or `integrate`, ...).
      InvalidDistribution: a parameter is known and invalid.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, seed
    >>> def two_dice():
    ...     return draw(dist.DiscreteUniform(1, 6)) + draw(dist.DiscreteUniform(1, 6))
    >>> bool(2 <= seed(two_dice)(jax.random.key(0)) <= 12)
    True
    """
    at = errors.caller()
    leaves, params = bind_parameters(distribution, at, "draw")
    return draw_p.bind(*leaves, **params, levels=(), source=at)


def bind_parameters(distribution: Any, at: str, name: str) -> tuple[list, dict]:
    """Operands and static parameters of a draw or choice from `distribution`."""
    if not isinstance(distribution, dist.Distribution):
        raise errors.InvalidDistribution(
            f"{name} needs a distribution.",
            where=at,
            given=repr(distribution),
            expected="a numpyro distribution, or a call of a generative function",
            fix="e.g. dist.Normal(0., 1.) from numpyro.distributions",
        )
    distributions.check_parameters(distribution, at, name)
    leaves, tree = jax.tree.flatten(distribution)
    return leaves, {"tree": tree, **distributions.describe(distribution, leaves)}


def program_of(f: Callable, args: tuple, kwargs: dict) -> tuple[Staged, Arguments]:
    """Stage a random program; choices outside a model are an error.

    A method with a `__check__` (of a generative function, say) first sees the values
    that are known here: while staging, every argument is traced, but for those that
    its `__fixed__` says are static.
    """
    owner, fixed = getattr(f, "__self__", None), frozenset()
    if owner is not None:
        check, static = getattr(f, "__check__", None), getattr(f, "__fixed__", None)
        if check is not None:
            check(owner, *args, **kwargs)
        if static is not None:
            fixed = static(owner)
    arguments = Arguments.of(args, kwargs, fixed)
    staged = stage(f, arguments)
    if staged.program.effects & {CHOICE, FACTOR}:
        step = next(s for s in staged.program.steps if s.effects & {CHOICE, FACTOR})
        while bodies(step):
            step = next(s for b in bodies(step) for s in b.steps if s.effects & {CHOICE, FACTOR})
        name = f"{errors.show(step.path)} at " if isinstance(step, Choice) else ""
        what = "makes an addressed choice" if name else "scores with factor/observe"
        raise errors.OutsideModel(
            f"A random program {what} outside a generative function.",
            where=f"{name}{step.source}",
            expected="a function decorated with @gen, run through one of its methods",
            fix="decorate it with @gen and use seed(model.simulate)(key, *args), or use draw()",
        )
    return staged, arguments


def with_levels(one: Callable, spec: Spec) -> Callable:
    """`one(leaves, extra)` under the `vmap`s around a draw; `extra` is mapped in front."""
    for size, in_axes in spec.levels:
        one = jax.vmap(one, in_axes=(list(in_axes), 0), axis_size=size)
    return one


def sizes(spec: Spec) -> tuple[int, ...]:
    return tuple(size for size, _ in reversed(spec.levels))


# -- seed ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def abstract_base(spec: Spec) -> tuple[str, tuple[int, ...]] | None:
    found = distributions.base(spec.tree.unflatten(spec.leaves))
    return None if found is None else found[:2]


def base_dtype(spec: Spec) -> Any:
    return spec.dtype if jnp.issubdtype(spec.dtype, jnp.floating) else jnp.result_type(float)


@lru_cache(maxsize=4096)
def _plan(program: Program) -> tuple[dict, list, list, int]:
    """How the keys of one execution of a block are spent: groups, singles, constructs."""
    groups: dict[tuple[str, Any], list[Draw]] = {}
    singles: list[Draw] = []
    constructs: list[tuple[Any, int]] = []
    for step in program.steps:
        if DRAW not in step.effects:
            continue
        if isinstance(step, Draw):
            found = abstract_base(step.spec)
            if found is None:
                singles.append(step)
            else:
                groups.setdefault((found[0], base_dtype(step.spec)), []).append(step)
        else:
            constructs.append((step, _keys_of(step)))
    need = len(groups) + len(singles) + sum(count for _, count in constructs)
    return groups, singles, constructs, need


def _need(program: Program) -> int:
    return _plan(program)[3]


def _copies(step: Any) -> int:
    return step.length if isinstance(step, Loop) else step.size


def _predrawn(step: Any) -> bool:
    """Whether a loop's base randomness is drawn at once, outside: when it takes no more
    memory than the keys would, and is not too much altogether."""
    if not isinstance(step, (Loop, Map)):
        return False
    groups, singles, constructs, _ = _plan(step.body)
    if singles or constructs or not groups:
        return False
    each = sum(_total(steps) for steps in groups.values())
    return each <= 4 and each * _copies(step) <= _FLAT_KEYS


def _keys_of(step: Any) -> int:
    if isinstance(step, While):
        return 1
    if isinstance(step, Branch):
        return max(_need(b) for b in step.branches)
    inner = _need(bodies(step)[0])
    if _predrawn(step):
        return inner
    if isinstance(step, (Loop, Map)):
        flat = _copies(step) * inner
        return flat if flat <= _FLAT_KEYS else _copies(step)
    return inner


class Seed(Rule):
    """Resolve draws with keys. Inputs of a block: one key, or all the keys it needs."""

    handles = frozenset({DRAW})

    def __init__(self, record: bool = False):
        self.record = record

    def enter(self, program, inputs):
        groups, singles, constructs, need = _plan(program)
        if isinstance(inputs, dict):  # a loop whose base randomness was drawn outside
            return _slices(groups, inputs)
        keys = inputs
        if inputs.ndim == 0 and need > 1:
            keys = jax.random.split(inputs, need)

        def one(i):  # a block that needs a single key takes the one it was given
            return keys if keys.ndim == 0 else keys[i]

        def some(i, count):
            return keys[None] if keys.ndim == 0 else keys[i : i + count]

        given: dict[Path, Any] = {}
        i = 0
        drawn = {}
        for group, steps in groups.items():
            drawn[group] = distributions.standard(group[0], one(i), _shared(steps), group[1])
            i += 1
        given.update(_slices(groups, drawn))
        for step in singles:
            given[step.name] = one(i)
            i += 1
        for step, count in constructs:
            given[step.name] = self.for_construct(step, some(i, count))
            i += count
        return given

    def for_construct(self, step, keys):
        """The randomness of a construct, from its keys."""
        if _predrawn(step):
            groups = _plan(step.body)[0]
            return {
                group: distributions.standard(
                    group[0], key, (_copies(step), *_shared(steps)), group[1]
                )
                for (group, steps), key in zip(groups.items(), keys, strict=True)
            }
        if isinstance(step, (Loop, Map)):
            each = len(keys) // _copies(step)
            return keys if each == 1 else keys.reshape(_copies(step), each)
        return keys if isinstance(step, Branch) or len(keys) > 1 else keys[0]

    def inside(self, step, inputs):
        return inputs[step.name]

    def into_branch(self, step, i, inner):
        return inner[: _need(step.branches[i])]

    def visit(self, step, args, inputs) -> Result:
        spec, given = step.spec, inputs[step.name]
        d = spec.tree.unflatten(args) if not spec.levels else None
        if not jnp.issubdtype(spec.dtype, jnp.inexact):
            args = [guard(a, step.source) for a in args]

        def one(leaves, given):
            d = spec.tree.unflatten(leaves)
            found = distributions.base(d)
            value = distributions.sample(d, given) if found is None else found[2](given)
            return jnp.broadcast_to(value, spec.shape).astype(spec.dtype)

        del d
        if abstract_base(spec) is None and spec.levels:
            given = jax.random.split(given, sizes(spec))
        value = with_levels(one, spec)(args, given)
        return [value], ({"draws": {step.name: value}} if self.record else {}), {}

    def while_loop(self, step, args, key) -> Result:
        split = step.test_constants + step.body_constants
        of_test, of_body = args[: step.test_constants], args[step.test_constants : split]

        def test(state):
            key, carry = state
            return walk(step.test, [*of_test, *carry], self, jax.random.fold_in(key, 0))[0][0]

        def body(state):
            key, carry = state
            key, mine = jax.random.split(jax.random.fold_in(key, 1))
            return key, walk(step.body, [*of_body, *carry], self, mine)[0]

        _, outs = jax.lax.while_loop(test, body, (key, args[split:]))
        return outs, {}, {}


def _shape(step: Draw) -> tuple[int, ...]:
    found = abstract_base(step.spec)
    assert found is not None
    return sizes(step.spec) + found[1]


def _total(steps: list[Draw]) -> int:
    """How many scalars of base randomness the draws need."""
    return sum(math.prod(_shape(step)) for step in steps)


def _shared(steps: list[Draw]) -> tuple[int, ...]:
    """Shape of the base randomness of draws that are made together."""
    return _shape(steps[0]) if len(steps) == 1 else (_total(steps),)


def _slices(groups: dict, everything: dict) -> dict:
    """The base randomness of each draw, cut from that of its group."""
    given = {}
    for group, steps in groups.items():
        if len(steps) == 1:
            given[steps[0].name] = everything[group]
            continue
        start = 0
        for step in steps:
            end = start + math.prod(_shape(step))
            given[step.name] = everything[group][start:end].reshape(_shape(step))
            start = end
    return given


def checked_key(key: Any) -> jax.Array:
    """`key` as a typed scalar key.

    Raises:
      InvalidKey: an int, a batch of keys, or no key at all.
    """
    ok = isinstance(key, jax.Array)
    if isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    if ok and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim == 0:
            return key
    elif ok and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(key)
    shape = key.shape if ok else ()
    of_keys = ok and (key.dtype == jnp.uint32 or jnp.issubdtype(key.dtype, jax.dtypes.prng_key))
    batched = of_keys and key.ndim > 0
    raise errors.InvalidKey(
        "seed needs one PRNG key.",
        where=errors.caller(),
        given=f"an array of {key.dtype}{list(shape)}" if ok else f"{type(key).__name__} {key!r}",
        expected="jax.random.key(seed), a scalar",
        fix="jax.vmap(seed(f)) over the keys" if batched else "jax.random.key(0)",
    )


def seed(f: Callable) -> Callable:
    """`seed(f)(key, *args)` ~ f(*args): run a random program with one key.

    All keys of a block are derived in one split, and its normal and uniform base
    randomness is drawn at once. The result is a pure function: it composes with
    `jit`, `vmap` (over keys or arguments), `grad` (pathwise; through a discrete
    draw it is an error, not 0), `scan`, and sharding.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      OutsideModel: `f` makes addressed choices without being a generative function.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, seed
    >>> f = lambda x: x + draw(dist.Normal(0.0, 1.0))
    >>> jax.vmap(seed(f), (0, None))(jax.random.split(jax.random.key(0), 5), 1.0).shape
    (5,)
    """

    @functools.wraps(f, updated=())
    def seeded(key, *args, **kwargs):
        key = checked_key(key)
        staged, arguments = program_of(f, args, kwargs)
        outs, _, _ = walk(staged.program, arguments.leaves, Seed(), key)
        return staged.rebuild(outs)

    return seeded
