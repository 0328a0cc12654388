"""Steps whose Gaussian choices are summed out: the state holds means, with a covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, errors
from ppl.program import Path

from .belief_steps import NAME, avals_of, form_of_state, named, taken, values_of
from .elimination import Sums
from .gaussian_states import Form
from .gaussians import Gaussians
from .linear import Bent, GaussianLaw, at_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Belief:
    """A state of which some leaves are Gaussian: N(their values in `state`, `covariance`).

    Attributes:
      state: as of the model; the Gaussian leaves have their means.
      covariance: shape (d, d), of the d scalars of the Gaussian leaves in the order of
        `jax.tree.leaves`; singular where something is known.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Belief, rao_blackwell
    >>> from ppl import gen, sample
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> step, start = rao_blackwell(walk, "z", 0.0)
    >>> trace, _ = step.generate({"y": 1.0}, start, None)
    >>> belief: Belief = trace.retval[0]  # half way from 0 to 1
    >>> round(float(belief.state), 4), belief.covariance.round(4).tolist()
    (0.5, [[0.5]])
    """

    state: Any
    covariance: jax.Array


def believed(
    model: GenerativeFunction, summed: tuple[Path, ...], init: Any, x: Any
) -> tuple[GenerativeFunction, Belief]:
    """The step with these Gaussian choices summed out, and the belief before the first step."""
    of = _Filtered(model, summed, ())
    form = form_of_state(
        of.form(jax.tree.leaves(init)),
        lambda form: replace(of, gaussian=form.linear).following(init, x),
    )
    of = replace(of, gaussian=form.linear)
    step = GenerativeFunction(of, model.fixed, f"rao_blackwell({model.name})")
    start = of.start(init)
    step.sites(start, x)  # what is refused is refused here
    return step, start


@partial(
    jax.tree_util.register_dataclass, data_fields=["model"], meta_fields=["summed", "gaussian"]
)
@dataclass(frozen=True, eq=False)
class _Filtered:
    """A step of Kalman's filter; `gaussian` are the leaves of the state that are."""

    model: GenerativeFunction
    summed: tuple[Path, ...]
    gaussian: tuple[int, ...]

    def __call__(self, before: Belief, x: Any) -> tuple[Belief, Any]:
        (state, y), law, sums = self.taken(before, x)
        leaves, covariance = _moments(values_of(state), law, sums)
        means, _ = _moments(values_of(y), law, sums)
        after, beside = jax.tree.structure(state), jax.tree.structure(y)
        kind = jnp.result_type(float, before.covariance)
        return Belief(after.unflatten(leaves), covariance.astype(kind)), beside.unflatten(means)

    def start(self, init: Any) -> Belief:
        """A state that is known."""
        state = self._in_floats(init)
        leaves = jax.tree.leaves(state)
        own = [leaves[i] for i in self.gaussian]
        d = sum(map(jnp.size, own))
        return Belief(state, jnp.zeros((d, d), jnp.result_type(float, *own)))

    def form(self, leaves: list) -> Form:
        """How the state is packed."""
        shapes = tuple((aval.shape, aval.dtype) for aval in avals_of(leaves))
        return Form(NAME, self.gaussian, (), (), shapes)

    def following(self, init: Any, x: Any) -> Form:
        """The form of the state after one that is known."""
        (state, _), law, sums = self.taken(self.start(init), x)
        avals = avals_of(jax.tree.leaves(init))
        return sums.form(law, values_of(state), avals, frozenset(), NAME)

    def taken(self, before: Belief, x: Any) -> tuple[tuple[Any, Any], GaussianLaw, Sums]:
        """A step of the model: what it returns, and the law of what that depends on."""
        state = self._in_floats(before.state)
        leaves = jax.tree.leaves(state)
        form = self.form(leaves)
        d = sum(map(form.size, self.gaussian))
        if jnp.shape(before.covariance) != (d, d):
            raise errors.ShapeError(
                "The covariance of a belief is not of the size of its Gaussian leaves.",
                where=(errors.defined(self.model.fn), errors.caller()),
                given=f"shape {jnp.shape(before.covariance)}",
                expected=f"shape {(d, d)}",
                fix="step, start = rao_blackwell(model, summed, init), and replace its covariance",
            )
        mean, covariance = jnp.zeros(d), jnp.asarray(before.covariance, float)
        packed = mean, covariance, jnp.zeros(()), None, leaves
        kind = partial(Gaussians, frozenset(self.summed))
        result, law, sums = taken(self.model, state, x, packed, form, kind)
        for name, value in named(result):
            if isinstance(value, Bent):
                raise self._bent(name, value.why)
        return result, law, sums

    def _in_floats(self, state: Any) -> Any:
        """The state with arrays in the place of what is Gaussian, whole numbers as floats."""
        leaves, tree = jax.tree.flatten(state)
        for i in self.gaussian:
            whole = not jnp.issubdtype(jnp.result_type(leaves[i]), jnp.inexact)
            leaves[i] = jnp.asarray(leaves[i], float if whole else None)
        return tree.unflatten(leaves)

    def _bent(self, name: str, why: str) -> errors.InvalidArgument:
        names = "; ".join(map(errors.show, self.summed))
        return errors.InvalidArgument(
            f"A step returns what is not affine in {names}, which is summed out.",
            where=(errors.defined(self.model.fn), errors.caller()),
            given=f"{name}, made by `{why}`",
            expected="a state and a y that are affine in what is summed out",
            fix="leave it out of what is returned; or leave the choice to the particles",
        )


def _moments(values: list, law: GaussianLaw, sums: Sums) -> tuple[list, jax.Array]:
    """The values, Gaussian ones by their means, and the covariance of these."""
    form = sums.form(law, values, avals_of(map(at_of, values)), frozenset(), NAME)
    _, covariance, _, _, means = sums.pack(law, values, form)
    rows = enumerate(zip(values, means, strict=True))
    return [mean if i in form.linear else value for i, (value, mean) in rows], covariance
