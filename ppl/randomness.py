"""Random programs: `draw`, and the eliminators that run them with a key or a tape.

A function that may `draw` is a random program: it denotes a Markov kernel from
its arguments to its results, and no key appears in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from . import arithmetic, distributions, errors, samplers
from .arguments import Arguments, is_array
from .effects import draw_p, guard
from .keys import abstract_base, copies, plan_of, shared, sizes, slices, with_levels
from .masks import leading
from .mistakes import needs_value, of_distribution
from .program import CHOICE, DRAW, FACTOR, Branch, Choice, Loop, Map, Path, While, bodies
from .staging import Staged, stage
from .supports import check_parameters, inner_distributions
from .walk import Result, Rule, walk


def draw(distribution: Any, strategy: Any = None) -> jax.Array:
    """One value v ~ distribution, independent of every other draw.

    Args:
      distribution: any numpyro distribution.
      strategy: how `expectation` estimates the derivative with respect to its parameters;
        None for the distribution's default. Nothing else looks at it.

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
    if strategy is not None and not hasattr(strategy, "make"):
        raise errors.InvalidArgument(
            "draw takes a distribution, and a strategy if any.",
            where=at,
            given=f"draw({type(distribution).__name__}, {type(strategy).__name__})",
            expected="draw(distribution), or draw(distribution, reinforce())",
            fix="draw takes a distribution alone; seed(f)(key, *args) gives it its key",
        )
    leaves, params = bind_parameters(distribution, at, "draw")
    return draw_p.bind(*leaves, **params, levels=(), source=at, strategy=strategy)


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
    _check_arrays(distribution, at, name)
    check_parameters(distribution, at, name)
    leaves, tree = jax.tree.flatten(distribution)
    try:
        described = distributions.describe(distribution, leaves)
    except errors.PPLError:
        raise
    except Exception as error:  # numpyro's samplers raise anything
        kind = type(distribution).__name__
        ours = of_distribution(error, kind, f"{name} at {at}")
        if ours is None:
            raise
        raise ours from error
    return leaves, {"tree": tree, **described}


def _check_arrays(d: Any, at: str, name: str) -> None:
    """Raise for a shape that is still traced, and for a parameter that is no array."""
    for inner in (d, *inner_distributions(d)):
        for parameter in inner.arg_constraints:
            value = inner.__dict__.get(parameter, 0.0)
            if not is_array(value) or jnp.iscomplexobj(value):
                raise errors.InvalidDistribution(
                    f"{type(inner).__name__} has a parameter `{parameter}` that is no "
                    + ("real array." if is_array(value) else "array."),
                    where=f"{name} at {at}",
                    given=f"{parameter} = {value}",
                    expected="real numbers, one or an array",
                    fix=f"{parameter}=jnp.array([...])"
                    if isinstance(value, (list, tuple))
                    else f'sample it first: {parameter} = sample("{parameter}", ...)'
                    if isinstance(value, dist.Distribution)
                    else f"give a number or an array for {parameter}",
                )
    sizes = (*d.batch_shape, *d.event_shape)
    if any(isinstance(size, jax.core.Tracer) for size in sizes):
        raise needs_value(f"{name} at {at}", f"the shape {sizes} of {type(d).__name__}")


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
    arguments = Arguments.entering(args, kwargs, fixed, f)
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


class Seed(Rule):
    """Resolve draws with keys. Inputs of a block: one key, or all the keys it needs."""

    handles = frozenset({DRAW})

    def __init__(self, record: bool = False):
        self.record = record

    def enter(self, program, inputs):
        plan = plan_of(program)
        if isinstance(inputs, dict):  # a loop whose base randomness was drawn outside
            return slices(plan.groups, inputs)
        keys = inputs
        if inputs.ndim == 0 and plan.need > 1:
            keys = jax.random.split(inputs, plan.need)

        def one(i):  # a block that needs a single key takes the one it was given
            return keys if keys.ndim == 0 else keys[i]

        def some(i, count):
            return keys[None] if keys.ndim == 0 else keys[i : i + count]

        i = 0
        drawn = {}
        for group, members in plan.groups.items():
            drawn[group] = distributions.standard(group[0], one(i), shared(members), group[1])
            i += 1
        given: dict[Path, Any] = slices(plan.groups, drawn)
        for step in plan.singles:
            given[step.name] = one(i)
            i += 1
        for step, count in plan.constructs:
            given[step.name] = self.for_construct(step, some(i, count))
            i += count
        return given

    def for_construct(self, step, keys):
        """The keys of a construct, by iteration where it has some."""
        if isinstance(step, (Loop, Map)):
            n = copies(step)
            if not n:
                return keys[:0]
            each = len(keys) // n  # one that is split inside, where an iteration needs many
            return keys if each == 1 else keys.reshape(n, each)
        return keys if isinstance(step, Branch) or len(keys) > 1 else keys[0]

    def inside(self, step, inputs):
        return inputs[step.name]

    def into_branch(self, step, i, inner):
        return inner[: plan_of(step.branches[i]).need]

    def visit(self, step, args, inputs) -> Result:
        spec, given = step.spec, inputs[step.name]
        if not jnp.issubdtype(spec.dtype, jnp.inexact):
            args = [guard(a, step.source) for a in args]

        def one(leaves, given):
            d = spec.tree.unflatten(leaves)
            found = distributions.base(d)
            if found is None:
                value = samplers.sample(d, given, step.source)
            else:
                value = found[2](given)
            return arithmetic.shaped(value, spec.shape, spec.dtype)

        if abstract_base(spec) is None and spec.levels:
            given = jax.random.split(given, sizes(spec))
        value = with_levels(one, spec)(args, given)
        return [value], ({"draws": {step.name: value}} if self.record else {}), {}

    def while_loop(self, step, args, key) -> Result:
        first, turn = self.turns(step, args)
        _, _, outs = jax.lax.while_loop(lambda state: jnp.any(state[1]), turn, first(key))
        return outs, {}, {}

    def turns(self, step: While, args: list) -> tuple[Callable, Callable]:
        """A `while_loop` as `first(key)`, the state before it, and `turn(state)`, one turn on.

        A state is the key of the rest, whether the test holds, and the carry.
        """
        split = step.test_constants + step.body_constants
        of_test, of_body = args[: step.test_constants], args[step.test_constants : split]

        def going(key, carry):
            return walk(step.test, [*of_test, *carry], self, key)[0][0]

        def first(key):
            key, mine = jax.random.split(key)
            carry = args[split:]
            return key, going(mine, carry), carry

        def turn(state):
            key, alive, carry = state
            key, of_test, mine = jax.random.split(key, 3)
            moved = walk(step.body, [*of_body, *carry], self, mine)[0]
            # under `vmap` a copy whose test has failed once waits for the others
            if alive.ndim:
                moved = [_where(alive, x, y) for x, y in zip(moved, carry, strict=True)]
            return key, alive & going(of_test, moved), moved

        return first, turn


def _where(rows: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """`x` in the rows that are true, else `y`; the axes of `rows` come first."""
    return jnp.where(leading(rows, jnp.ndim(x)), x, y)


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
