"""Whether two targets are the same measure, and in what they differ.

A kernel that leaves one posterior invariant says nothing of another, and a program made of both
would report the one as the other. Targets are compared by what they are made of: identity first,
then equality, of what is known; traced values are not looked at. Nothing is copied or kept.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ppl import GenerativeFunction, Target, Trace, errors
from ppl.arguments import is_array

_Pairs = set[tuple[int, int]]


def check_same(who: str, its: Target | None, target: Target, due: str, fix: str) -> None:
    """Raise `InvalidArgument` if a part that was made for the target `its` meets another.

    Args:
      who: the part, at the start of a sentence: "The kernel nuts".
      its: None for what does not say what it was made for: a function.
      due: what the target is here: "the target of the run".

    >>> import numpyro.distributions as dist
    >>> from inference.validation.same import check_same
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     sample("y", dist.Normal(sample("mu", dist.Normal(0.0, 1.0)), 1.0))
    >>> one, other = Target(model, (), {"y": 1.0}), Target(model, (), {"y": 2.0})
    >>> check_same("The kernel", one, Target(model, (), {"y": 1.0}), "the run's", "make it again")
    >>> try:
    ...     check_same("The kernel", one, other, "that of the run", "make it again")
    ... except ValueError as error:
    ...     print(error.what, error.expected)
    The kernel was made for another target. that of the run: observation "y": 2.0
    """
    if its is None or its is target:
        return
    found = difference(its, target)
    if found is not None:
        what, mine, theirs = found
        verb = "were" if who.startswith("These") else "was"
        raise errors.InvalidArgument(
            f"{who} {verb} made for another target.",
            where=errors.caller(),
            given=f"made for: {what}{mine}",
            expected=f"{due}: {what}{theirs}",
            fix=fix,
        )


def check_trace(who: str, target: Target | None, trace: Any, stacked: bool) -> None:
    """Raise `InvalidArgument` if a kernel of `target` meets a trace of another model or arguments.

    Args:
      stacked: whether the trace is a population, whose arguments have an axis in front.
    """
    if target is None or not isinstance(trace, Trace):
        return
    found: tuple[str, str, str] | None = None
    if not _alike(target.model, trace.model, set()):
        found = ("", _model(target.model), _model(trace.model))
    elif not stacked and _whole(trace.arguments):
        found = _arguments(target, trace.arguments.args)
    if found is not None:
        what, mine, theirs = found
        raise errors.InvalidArgument(
            f"{who} was made for another target than the trace is of.",
            where=errors.caller(),
            given=f"a trace of: {what}{theirs}",
            expected=f"{what}{mine}",
            fix="make the kernel for the target whose traces it moves",
        )


def _whole(arguments: Any) -> bool:
    """Whether arguments are those of a target: in order, and all there (see `Blocks`)."""
    if arguments is None or any(leaf is None for leaf in arguments.leaves):
        return False
    return not arguments.kwargs


def difference(one: Target, other: Target) -> tuple[str, str, str] | None:
    """What is different, and as what in each; None if nothing is known to be.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.validation.same import difference
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def line(x):
    ...     sample("y", dist.Normal(x * sample("slope", dist.Normal(0.0, 1.0)), 1.0))
    >>> x = jnp.arange(3.0)
    >>> one = Target(line, (x,), {"y": x})
    >>> difference(one, Target(line, (jnp.arange(3.0),), {"y": x})) is None
    True
    >>> difference(one, Target(line, (x,), {"y": x.at[1].set(5.0)}))
    ('observation "y", 1 of 3 values, the first at [1]: ', '1.0', '5.0')
    """
    if one is other:
        return None
    if not _alike(one.model, other.model, set()):
        return "", _model(one.model), _model(other.model)
    found = _arguments(one, other.args)
    if found is not None:
        return found
    mine, theirs = one.observed, other.observed
    if set(mine) != set(theirs):
        shown = lambda seen: "; ".join(map(errors.show, seen)) or "nothing"  # noqa: E731
        return "observed are ", shown(mine), shown(theirs)
    for path in mine:
        found = _values(f"observation {errors.show(path)}", mine[path], theirs[path])
        if found is not None:
            return found
    return None


def _model(model: GenerativeFunction) -> str:
    return f"model {model.name} at {errors.defined(model.fn)}"


def _arguments(target: Target, args: tuple) -> tuple[str, str, str] | None:
    """The first argument that differs."""
    if len(target.args) != len(args):
        return "number of arguments: ", str(len(target.args)), str(len(args))
    for i, (mine, theirs) in enumerate(zip(target.args, args, strict=True)):
        found = _values(f"argument {i} of {target.model.name}", mine, theirs)
        if found is not None:
            return found
    return None


def _values(what: str, mine: Any, theirs: Any) -> tuple[str, str, str] | None:
    """The first array of two trees that differs, or that the trees do."""
    if mine is theirs:
        return None
    ours, one = jax.tree.flatten_with_path(mine)
    others, two = jax.tree.flatten_with_path(theirs)
    if one != two:
        # what is static is compared by value, which may call equal functions unlike
        kinds = [type(x).__name__ for x in (mine, theirs)]
        if not _alike(mine, theirs, set()):
            ours_told, theirs_told = kinds if kinds[0] != kinds[1] else (str(one), str(two))
            return f"{what}: ", ours_told, theirs_told
        return None
    for (key, a), (_, b) in zip(ours, others, strict=True):
        name = what + jax.tree_util.keystr(key)
        if not (is_array(a) and is_array(b)):
            if not _alike(a, b, set()):
                return f"{name}: ", _short(a), _short(b)
        elif np.shape(a) != np.shape(b):
            return f"{name}, of shape ", str(np.shape(a)), str(np.shape(b))
        else:
            found = _apart(a, b)
            if found is not None:
                where, first, second = found
                return f"{name}{where}: ", first, second
    return None


def _apart(a: Any, b: Any) -> tuple[str, str, str] | None:
    """Where two arrays of one shape differ, as far as they are known."""
    if a is b or not (_known(a) and _known(b)):
        return None
    x, y = _host(a), _host(b)
    unlike = x != y
    if x.dtype.kind in "fc" and y.dtype.kind in "fc":
        unlike &= ~(np.isnan(x) & np.isnan(y))
    count = int(np.count_nonzero(unlike))
    if not count:
        return None
    at = np.unravel_index(int(np.argmax(unlike)), x.shape)
    where = ""
    if x.ndim:
        index = ",".join(str(int(i)) for i in at)
        where = f", {count} of {x.size} values, the first at [{index}]"
    return where, str(x[at]), str(y[at])


def _known(x: Any) -> bool:
    """Whether the values can be looked at, on this host."""
    if isinstance(x, jax.core.Tracer):
        return False
    if isinstance(x, jax.Array):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return not key and x.is_fully_addressable
    return True


def _host(x: Any) -> np.ndarray:
    """On the host, in the type that JAX has it in."""
    array = np.asarray(x)
    with np.errstate(over="ignore"):
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- programs ----------------------------------------------------------------------------------


def _alike(a: Any, b: Any, seen: _Pairs) -> bool:
    """Whether nothing is known in which two objects differ: functions by code and closure.

    A model that a function makes anew, of the same data, is the same model.
    """
    if a is b or (id(a), id(b)) in seen:  # the first difference ends it: no pair is met twice
        return True
    seen.add((id(a), id(b)))
    if is_array(a) and is_array(b):
        return np.shape(a) == np.shape(b) and _apart(a, b) is None
    if type(a) is not type(b):
        return False
    mine, theirs = _parts(a), _parts(b)
    if mine is not None and theirs is not None:
        return len(mine) == len(theirs) and all(
            _alike(x, y, seen) for x, y in zip(mine, theirs, strict=True)
        )
    return _equal(a, b)


def _parts(x: Any) -> list[Any] | None:
    """What an object is made of, if that is known."""
    if isinstance(x, GenerativeFunction):
        return [x.fn, x.fixed]
    if isinstance(x, Target):
        return [x.model, x.args, x.observations]
    if isinstance(x, types.FunctionType):
        cells = [_content(cell) for cell in x.__closure__ or ()]
        return [x.__code__, x.__defaults__, x.__kwdefaults__, *cells]
    if isinstance(x, types.MethodType):
        return [x.__func__, x.__self__]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, Mapping):
        return [frozenset(x), *(x[key] for key in sorted(x, key=repr))]
    if isinstance(x, Sequence) and not isinstance(x, (str, bytes, range)):
        return list(x)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return [getattr(x, field.name, None) for field in dataclasses.fields(x)]
    if hasattr(x, "__wrapped__"):  # jax.jit
        return [x.__wrapped__]  # type: ignore[union-attr]
    if type(x).__eq__ is object.__eq__ and hasattr(x, "__dict__") and not isinstance(x, type):
        return [vars(x)]
    return None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None


def _equal(a: Any, b: Any) -> bool:
    """By `==`, where that says yes or no; an object with an identity alone is given the doubt."""
    if type(a).__eq__ is object.__eq__:
        return True
    try:
        return bool(a == b)
    except Exception:
        return True
