"""A normalising flow in the unconstrained space of a target, by flowjax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, errors
from ppl.randomness import checked_key

from ..mcmc.space import Space
from ..targets.stochastic import Stochastic
from ..validation.objects import check_callable
from ..validation.packages import extra
from ..validation.settings import check_count, shown
from .joint import check_scale, joint, noise, space_of, standard, started
from .triangular import vectors


def flow(
    key: jax.Array,
    target: Target,
    start: Mapping[str, Any] | None = None,
    *,
    build: Callable[..., Any] | None = None,
    layers: int = 4,
    width: int = 32,
    scale: float = 0.1,
) -> tuple[Stochastic, dict[str, Any]]:
    """`(guide, parameters)`: a normalising flow in unconstrained space.

    z = loc + exp(log_scale) * f(x), with x from standard normals and f a bijection of flowjax.
    As for all of these guides, draws have the density that `assess` gives them.

    Args:
      key: for the weights with which f starts.
      target: a target whose latents are continuous and always made.
      start: latents at which `loc` starts; by default 0 in unconstrained space.
      build: `(key, n) -> bijection` of flowjax, of shape (n,), smooth in its parameters and in
        x. By default an inverse autoregressive flow of `layers` affine layers, each by a network
        of one hidden layer of `width` units: draws are quick, the density of given latents takes
        n steps a layer. For one coordinate it is affine, no more than `mean_field`.
      layers, width: of the default.
      scale: what `log_scale` starts as the log of.

    Returns:
      The guide, a `Stochastic` whose density is exact; and its parameters: `loc` and `log_scale`,
      nested dicts by address, and `flow`, the trainable arrays of the bijection.

    Raises:
      MissingPackage: flowjax is not installed; it is in the extra `flows`.
      InvalidArgument: as for `mean_field`; or `build` makes no bijection of that shape.

    Source: Kingma et al., Improving variational inference with inverse autoregressive flow
    (NeurIPS 2016); Ward, flowjax.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import flow
    >>> from ppl import Target, gen, sample, seed
    >>> @gen
    ... def banana():
    ...     x = sample("x", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(x**2, 0.5))
    >>> guide, parameters = flow(jax.random.key(0), Target(banana))
    >>> trace = seed(guide.simulate)(jax.random.key(1), parameters)
    >>> score, _ = seed(guide.assess)(jax.random.key(2), trace.choices, parameters)
    >>> bool(abs(score - trace.score) < 1e-4)
    True
    """
    key = checked_key(key)
    check_scale(scale)
    check_count("layers", layers)
    check_count("width", width)
    space = space_of(target)
    if build is not None:
        check_callable("build", build, "a function (key, n) -> bijection", "build=None")
    made = _default(key, space.size, layers, width) if build is None else build(key, space.size)
    _check_bijection(made, space.size)
    wrappers = extra("paramax", "flows", "A flow")

    def kept(leaf: Any) -> bool:
        return isinstance(leaf, wrappers.NonTrainable)

    trained, rest = eqx.partition(made, eqx.is_inexact_array, is_leaf=kept)
    arrays, others = eqx.partition(rest, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    leaves, tree = jax.tree.flatten(others)
    parameters = {**started(space, start, scale), "flow": trained}
    return joint(target, Flow(arrays, tuple(leaves), tree), "flow"), parameters


def _default(key: jax.Array, size: int, layers: int, width: int) -> Any:
    flows = extra("flowjax.flows", "flows", "A flow")
    base = extra("flowjax.distributions", "flows", "A flow").StandardNormal((size,))
    return flows.masked_autoregressive_flow(
        key,
        base_dist=base,
        flow_layers=layers,
        nn_width=width,
        nn_activation=jnp.tanh,
        invert=False,
    ).bijection


def _check_bijection(made: Any, size: int) -> None:
    bijections = extra("flowjax.bijections", "flows", "A flow")
    fits = isinstance(made, bijections.AbstractBijection) and (made.shape, made.cond_shape)
    if fits != ((size,), None):
        raise errors.InvalidArgument(
            "`build` makes no bijection of the unconstrained space.",
            where=errors.caller(),
            given=shown(made) if fits is False else f"shapes {made.shape} and {made.cond_shape}",
            expected=f"a bijection of flowjax, of shape ({size},), without a condition",
            fix="of a distribution of flowjax, give its `bijection`",
        )


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["others", "tree"])
@dataclass(frozen=True, eq=False)
class Flow:
    """A bijection of noise, without its trainable arrays; then a location and scales.

    Attributes:
      arrays: those of the bijection that are not trained.
      others: the leaves that are no arrays, of a tree of the shape `tree`.
    """

    arrays: Any
    others: tuple[Any, ...]
    tree: Any

    def drawn(self, space: Space, parameters: Any) -> tuple[jax.Array, jax.Array]:
        loc, log_scale = vectors(space, parameters)
        x = noise(space, space.size)
        y, log_det = self._bijection(parameters).transform_and_log_det(x)
        return loc + jnp.exp(log_scale) * y, standard(x) - log_det - jnp.sum(log_scale)

    def log_density(self, space: Space, parameters: Any, z: jax.Array) -> jax.Array:
        loc, log_scale = vectors(space, parameters)
        y = (z - loc) * jnp.exp(-log_scale)
        x, log_det = self._bijection(parameters).inverse_and_log_det(y)
        return standard(x) + log_det - jnp.sum(log_scale)

    def _bijection(self, parameters: Any) -> Any:
        others = jax.tree.unflatten(self.tree, self.others)
        made = eqx.combine(parameters["flow"], self.arrays, others)
        return extra("paramax", "flows", "A flow").unwrap(made)
