"""Covariances that code gives as Cholesky factors, before they were factored.

A normal law keeps the factor of its covariance. Where what is wanted of the factor is the
covariance again, the factor need not be computed, nor its derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl.estimators.nodes import Graph, Operation, graph_of
from ppl.program import Spec

MOST = 2
"""Rows of a covariance that is not factored: that it is one is seen by its determinant."""


def covariances(f: Callable, avals: Sequence[Any]) -> dict[int, Callable]:
    """Of each output of `f` that is the lower factor of a covariance, the covariance.

    >>> import jax, jax.numpy as jnp
    >>> from inference.exact.factored import covariances
    >>> f = lambda s: [s, jnp.linalg.cholesky(s * jnp.eye(2))]
    >>> found = covariances(f, [jax.ShapeDtypeStruct((), float)])
    >>> {i: covariance(4.0).tolist() for i, covariance in found.items()}
    {1: [[4.0, 0.0], [0.0, 4.0]]}
    """
    graph = graph_of(jax.make_jaxpr(f)(*avals))
    made = {slot: node for node in graph.nodes for slot in node.outputs}
    found = {}
    for i, slot in enumerate(graph.outputs):
        factored = _factored(graph, made, slot)
        if factored is None:
            continue
        needed = _ancestors(graph, made, factored)
        if needed is not None:
            found[i] = partial(_valid, _Upto(graph, needed, factored))
    return found


def _valid(f: Callable, *args: Any) -> jax.Array:
    """A covariance, or no numbers where it is none: as its factor would be.

    One that is singular has no factor by this algorithm, but is a covariance.
    """
    found = f(*args)
    variances = jnp.diagonal(found, 0, -2, -1)
    most = variances[..., :, None] * variances[..., None, :]
    rounding = 8 * jnp.finfo(found.dtype).eps
    fine = jnp.all((found**2 <= most * (1 + rounding)) & (most >= 0), (-2, -1))
    fine &= jnp.all(variances >= 0, -1)
    return jnp.where(fine[..., None, None], found, jnp.nan)


def factor_of(spec: Spec) -> int | None:
    """Which parameter of a choice is the factor of its covariance, of `MOST` rows at most."""
    d: Any = spec.tree.unflatten(range(len(spec.leaves)))
    if type(d) is not dist.MultivariateNormal or len(spec.shape) != 1 or spec.shape[0] > MOST:
        return None
    place: Any = d.scale_tril
    return place


def _factored(graph: Graph, made: dict, slot: int) -> int | None:
    """What a slot is the lower factor of."""
    node: Any = made.get(slot)
    if _is(node, "select_n"):  # what is above the diagonal is set to zero
        which, _, slot = node.inputs
        if not _is_lower(graph, made, which):
            return None
        node = made.get(slot)
    return node.inputs[0] if _is(node, "cholesky") else None


def _is(node: Any, name: str) -> bool:
    return isinstance(node, Operation) and node.name == name


def _is_lower(graph: Graph, made: dict, slot: int) -> bool:
    needed = _ancestors(graph, made, slot)
    if needed is None or any(i in graph.inputs for node in needed for i in node.inputs):
        return False
    with jax.ensure_compile_time_eval():
        mask = np.asarray(_Upto(graph, needed, slot)(*graph.inputs))
    return mask.ndim >= 2 and bool((mask == np.tril(np.ones(mask.shape[-2:], bool))).all())


def _ancestors(graph: Graph, made: dict, slot: int) -> list[Operation] | None:
    """The operations that a slot is made by; None if one of them is a construct."""
    needed, ahead = set(), [slot]
    while ahead:
        node = made.get(ahead.pop())
        if node is None or node in needed:
            continue
        if not isinstance(node, Operation):
            return None
        needed.add(node)
        ahead += node.inputs
    return [node for node in graph.nodes if node in needed]  # type: ignore[misc]


class _Upto:
    """A graph, as far as one of its slots."""

    def __init__(self, graph: Graph, needed: list[Operation], slot: int):
        self.graph, self.needed, self.slot = graph, needed, slot

    def __call__(self, *args: Any) -> Any:
        env = {**self.graph.constants, **dict(zip(self.graph.inputs, args, strict=True))}
        for node in self.needed:
            outs = node.evaluate(*[env[slot] for slot in node.inputs])
            env.update(zip(node.outputs, outs, strict=True))
        return env[self.slot]
