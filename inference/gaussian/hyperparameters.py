"""What a kernel is made of: numbers, checked where they are given, and leaves of a tree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from ppl import errors

from ..validation.settings import shown

_Class = TypeVar("_Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: _Class) -> _Class:
    """A kernel's class as a frozen dataclass and a pytree, whose constructor alone checks.

    What a transformation of trees puts in, a gradient say, is no hyperparameter, and passes.
    """
    made = dataclass(frozen=True)(cls)
    plain, check = made.__init__, made._check
    names = [each.name for each in fields(made)]
    static = [each.name for each in fields(made) if each.metadata.get("static")]
    traced = [name for name in names if name not in static]

    @wraps(plain)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        check(self)
        for name in traced:  # ints have no gradient
            value = getattr(self, name)
            if isinstance(value, (int, tuple)):
                object.__setattr__(self, name, jax.tree.map(_without_ints, value))

    def flatten(kernel: Any) -> tuple:
        leaves = [(GetAttrKey(name), getattr(kernel, name)) for name in traced]
        return leaves, tuple(getattr(kernel, name) for name in static)

    def unflatten(known: tuple, leaves: Any) -> Any:
        kernel = object.__new__(made)
        for name, value in (*zip(traced, leaves, strict=True), *zip(static, known, strict=True)):
            object.__setattr__(kernel, name, value)
        return kernel

    made.__init__ = checked
    register_pytree_with_keys(made, flatten, unflatten)
    return made


def _without_ints(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def is_number(value: Any) -> bool:
    """Whether `value` is one real number, or is traced as one.

    >>> import jax
    >>> from inference.gaussian.hyperparameters import is_number
    >>> is_number(2), is_number(True), is_number([1.0]), is_number(jax.random.key(0))
    (True, False, False, False)
    """
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        real = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
        return real and value.shape == ()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_LIMITS = {None: "{} > 0", 0.0: "{} >= 0", -math.inf: "{} a number"}


def check_parameters(kernel: Any, least: float | None = None, **values: Any) -> None:
    """Raise `InvalidArgument` unless hyperparameters are positive numbers, as far as known.

    Args:
      least: what they may be at least, if not only positive: 0 or -inf.
    """
    for name, value in values.items():
        if is_number(value) and isinstance(value, jax.core.Tracer):
            continue
        known = _float(value) if is_number(value) else math.nan
        if not math.isfinite(known) or not (known > 0 if least is None else known >= least):
            raise errors.InvalidArgument(
                f"{type(kernel).__name__} has a hyperparameter that is no such number.",
                where=errors.caller(), given=f"{name}={shown(value)}",
                expected=f"{_LIMITS[least].format(name)}, finite", fix=f"{name}=1.0",
            )  # fmt: skip


def _float(value: Any) -> float:
    """The number in the type of floats in use, in which it may be zero, or infinite."""
    with np.errstate(all="ignore"):
        try:
            return float(np.asarray(float(value)).astype(jnp.result_type(float)))
        except OverflowError:
            return math.inf


def as_float(value: Any) -> jax.Array:
    """An array of floats; gaps may be given as ints."""
    return jnp.asarray(value, jnp.result_type(value, 0.0))
