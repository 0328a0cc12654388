"""The score function less a differentiable function of the noise behind the choice.

A binary value is whether z > 0, z logistic noise about the log odds. With z' drawn given the
value, c(z) - c(z') has mean zero and the derivative of the mean of c; so a c that follows the
rest of the program takes away most of the variance of the score function.

Source: Tucker et al., REBAR (NeurIPS 2017); Grathwohl et al., Backpropagation through the void
(ICLR 2018), where c is any function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ..addresses import nest
from ..effects import box
from ..randomness import draw
from .antithetic import check_binary, logits
from .lanes import Value, along, over, union
from .nodes import DrawNode
from .scores import Score
from .strategies import Made, Site


@dataclass(frozen=True)
class Relax:
    """See `ppl.relax`."""

    control: Callable[[Any, dict[str, Any]], Any]
    several = False
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        check_binary(site.node, "relax()")
        lanes = union(site.parameters)

        def each(*leaves: Any) -> tuple[Any, Any, Any]:
            return site.by_element(lambda d: _relaxed(logits(d)), list(leaves))

        b, z, given = (Value(x, lanes) for x in over(each, site.parameters, lanes))
        value = along(lambda b: b.astype(site.node.spec.dtype), b)
        log = site.log_density(value)
        before = site.before()

        def control(log: Any, z: Any, given: Any, *values: Any) -> Any:
            known = nest(dict(zip(before, values, strict=True)))
            c = jnp.sum(self.control(z, known))
            # of all elements at once: their scores count together
            c = c - box(jnp.sum(log)) * jnp.sum(self.control(given, known))
            # to be taken off; of mean zero whatever the parameters
            share = (c - jax.lax.stop_gradient(c)) / max(log.size, 1)
            return jnp.broadcast_to(share, log.shape)

        made = along(control, log, z, given, *before.values())
        return Made(value, Score(log), made)


def _relaxed(a: Any) -> tuple[Any, Any, Any]:
    """The value, the noise that makes it, and noise given the value; both move with `a`."""
    shape = jnp.shape(a)
    tiny = jnp.finfo(jnp.result_type(a)).tiny

    def uniform() -> Any:
        return jnp.clip(draw(dist.Uniform(0.0, 1.0).expand(shape)), tiny, 1 - 2**-24)

    def logit(u: Any) -> Any:
        return jnp.log(u) - jnp.log1p(-u)

    u, v = uniform(), uniform()
    z = a + logit(u)
    b = jax.lax.stop_gradient(z) > 0
    p = jax.nn.sigmoid(a)
    there = jnp.where(b, (1 - p) + v * p, v * (1 - p))
    return b, z, a + logit(jnp.clip(there, tiny, 1 - 2**-24))
