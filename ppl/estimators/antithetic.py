"""Two binary values from one uniform, as unlike as they can be.

Source: Dong, Mnih and Tucker, DisARM: an antithetic gradient estimator for binary latent
variables (NeurIPS 2020), equation 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from .. import errors
from ..chances import probability
from ..distributions import elementwise
from ..effects import box, weak
from ..randomness import draw
from .lanes import Lane, ordered, over, union
from .nodes import DrawNode
from .scores import Score
from .strategies import Made, Site


@dataclass(frozen=True)
class Disarm:
    """See `ppl.disarm`."""

    several = True
    scored = True
    biased = False

    def worlds(self, node: DrawNode, apart: bool) -> int:
        return 0

    def make(self, site: Site) -> Made:
        check_binary(site.node, "disarm()")
        lane = Lane(site.node.number, 2)
        lanes = union(site.parameters)

        def each(*leaves: Any) -> tuple[Any, Any]:
            both, half, log = site.by_element(
                lambda d: _pair(probability(d, jnp.ones(d.batch_shape, int))), list(leaves)
            )
            values = jnp.moveaxis(both, -1, 0).astype(site.node.spec.dtype)
            # each pair of elements counts once in second derivatives
            flat = jnp.ravel(log)
            after = jnp.flip(jnp.cumsum(jnp.flip(flat))) - flat
            amount = half * box(after.reshape(jnp.shape(log)))
            return values, jnp.stack([amount, -amount])

        values, amounts = over(each, site.parameters, lanes)
        value, score = (ordered(x, (*lanes, lane)) for x in (values, amounts))
        return Made(value, Score(score, lane, _half, _halves))


def _half(amount: Any) -> Any:
    return (1 + amount) / 2


def _halves(amount: Any) -> Any:
    return jnp.full(amount.shape, 0.5, amount.dtype)


def logits(d: Any) -> Any:
    """The log odds of a Bernoulli distribution."""
    while isinstance(d, dist.ExpandedDistribution):
        d = d.base_dist
    return (
        d.logits if isinstance(d, dist.BernoulliLogits) else jnp.log(d.probs) - jnp.log1p(-d.probs)
    )


def _pair(q: Any) -> tuple[Any, Any, Any]:
    """The two values in the last axis, the amount of the difference, the log probability.

    As of u < q and 1 - u < q for one uniform u: alike with probability |2q - 1|.
    """
    chances = jnp.stack(
        [jnp.maximum(2 * q - 1, 0), jnp.minimum(q, 1 - q), jnp.minimum(q, 1 - q),
         jnp.maximum(1 - 2 * q, 0)], -1,
    )  # fmt: skip
    which = draw(dist.CategoricalProbs(jax.lax.stop_gradient(chances)))
    both = jnp.asarray([[1, 1], [1, 0], [0, 1], [0, 0]])[which]
    sign = (both[..., 0] - both[..., 1]).astype(chances.dtype)
    chance = jnp.take_along_axis(chances, which[..., None], -1)[..., 0]
    log = jnp.log(jnp.where(chance > 0, chance, 1))
    rarer = jnp.where(sign == 0, 1.0, jnp.minimum(q, 1 - q))  # in log odds a: sigmoid(|a|) da
    amount = weak(sign / rarer * box(log), q)
    return both, amount, log


def check_binary(node: DrawNode, name: str) -> None:
    """Raise `NoStrategy` for a choice that is not binary."""
    d = elementwise(node.spec.tree.unflatten(list(node.spec.leaves)))
    while isinstance(d, dist.ExpandedDistribution):
        d = d.base_dist
    if not isinstance(d, dist.BernoulliProbs | dist.BernoulliLogits):
        raise errors.NoStrategy(
            f"{name} is for binary choices.",
            where=node.place,
            given=node.spec.kind,
            expected="a Bernoulli choice",
            fix="measure_valued(), enumerate_() or reinforce()",
        )
