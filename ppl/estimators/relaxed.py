"""Binary values that pass derivatives on as if they were smooth: biased.

Source: Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic
neurons (2013); Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax (ICLR 2017);
Maddison, Mnih and Teh, The concrete distribution (ICLR 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from .. import errors
from ..randomness import draw
from .antithetic import check_binary, logits
from .lanes import Value, over, union
from .nodes import DrawNode, Node, Operation
from .strategies import Made, Site

_TINY = 2.0**-24


@dataclass(frozen=True)
class Relaxed:
    """See `ppl.gumbel_softmax` and `ppl.straight_through`.

    Attributes:
      temperature: of the softmax whose derivative is passed on; None: that of the mean.
      hard: whether the value itself is binary.
    """

    temperature: float | None
    hard: bool
    several = False
    scored = False
    biased = True

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        name = "straight_through()" if self.temperature is None else "gumbel_softmax()"
        check_binary(site.node, name)
        lanes = union(site.parameters)

        def each(*leaves: Any) -> Any:
            return site.by_element(lambda d: self._value(logits(d)), list(leaves))

        return Made(Value(over(each, site.parameters, lanes), lanes))

    def _value(self, a: Any) -> Any:
        u = jnp.clip(draw(dist.Uniform(0.0, 1.0).expand(jnp.shape(a))), _TINY, 1 - _TINY)
        z = a + jnp.log(u) - jnp.log1p(-u)
        smooth = jax.nn.sigmoid(a if self.temperature is None else z / self.temperature)
        if not self.hard:
            return smooth
        value = (jax.lax.stop_gradient(z) > 0).astype(smooth.dtype)
        return value + (smooth - jax.lax.stop_gradient(smooth))


_MOVES = "reshape broadcast_in_dim transpose squeeze slice rev copy row rows concatenate pad"
_SMOOTH = frozenset(f"{_MOVES} add sub mul neg reduce_sum select_n convert_element_type".split())


def smooth(node: Node, arrays: Sequence[Any], dtypes: Sequence[Any]) -> list[Any]:
    """The operands of a node, which all are floats if one is where a whole number is due.

    Raises:
      NoStrategy: the node needs whole numbers, so that no derivative would pass through it.
    """
    moving = [
        jnp.issubdtype(jnp.result_type(x), jnp.floating) and not jnp.issubdtype(due, jnp.floating)
        for x, due in zip(arrays, dtypes, strict=True)
    ]
    if not any(moving):
        return list(arrays)
    name = node.name if isinstance(node, Operation) else type(node).__name__
    to = node.params.get("new_dtype") if isinstance(node, Operation) else None
    known = name in _SMOOTH and not (name == "select_n" and moving[0])
    if not known or (to is not None and not jnp.issubdtype(to, jnp.floating)):
        raise errors.NoStrategy(
            f"`{name}` needs a whole number, and no derivative passes through it.",
            where=errors.caller(),
            given="the value of a relaxed choice",
            expected="arithmetic of the value as a float, z.astype(float)",
            fix="write `z * a + (1 - z) * b` for `where(z == 1, a, b)`; or take another strategy",
        )
    kind = jnp.result_type(*(x for x, m in zip(arrays, moving, strict=True) if m))
    first = 1 if name == "select_n" else 0
    return [*arrays[:first], *(jnp.asarray(x, kind) for x in arrays[first:])]
