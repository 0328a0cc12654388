"""Rao-Blackwellised steps: choices that are Gaussian or finite, given the others, summed out.

What remains of a step model is a step model of its other choices, whose state holds the law of
the rest: a mean and a covariance, or probabilities. The step is gone through as one of a loop is
by `elimination`, and the state is what that hands on.
"""

from __future__ import annotations

from typing import Any

from ppl import GenerativeFunction, Selection, errors
from ppl.addresses import as_selection
from ppl.quadrature import elements, outcomes

from ..smc.step_models import check_state
from ..validation.objects import check_model
from .believed import Belief, believed
from .enumerated import Enumerated, enumerated


def rao_blackwell(
    model: GenerativeFunction,
    summed: Selection | str | tuple[str, ...],
    init: Any,
    x: Any = None,
) -> tuple[GenerativeFunction, Belief | Enumerated]:
    """The law of a step's other choices, with those of one kind summed out.

    A step model `(belief, x) -> (belief, y)`, exact: at each value of its choices its density
    is that of the model integrated over what is summed out, and the new belief is the law of
    the state given them. It has all the model's addresses but the summed, and goes wherever a
    step model does: into `particle_filter` with its proposals and resampling, `advance`,
    `conditional_filter`. Weights of particles that carry beliefs vary no more than those of
    particles that carry values.

    *Gaussian choices* make the state a `Belief`. They are Normal or MultivariateNormal, and
    their means affine in the summed choices and in what of the state depends on them; scales
    and coefficients may depend on other choices. So is any other choice that depends on them:
    observed or drawn, the belief is conditioned on it. The `y` has the mean of what is Gaussian.

    *Finite choices* make it an `Enumerated`. Other choices and factors may depend on them in
    any way; the next state, on those of its own step. Of an array that it depends on, all
    elements are held together; other choices are summed out one after the other, as by `sum_out`,
    and cost what that does.

    Data that are missing at times go into a `lax.cond` on an input (or `ppl.mask`), and are
    observed by a `Masked` value. Branches are gone through, and may be chosen by another
    choice; and so are loops, and copies under `vmap`, as by `sum_out`.

    Args:
      model: one step, `(state, x) -> (state, y)`.
      summed: the choices to sum out.
      init: a state before the first step, known. For one that is not, `dataclasses.replace` the
        covariance of the `Belief`, or the values and `log_probs` of the `Enumerated`.
      x: an input of a step, as a filter will give it; only shapes and dtypes matter.

    Returns:
      The step model, and the belief before the first step.

    Raises:
      AddressNotFound: the selection names no choice of the model.
      InvalidArgument: a choice, a factor, a branch, the next state or `y` depends on what is
        summed out in another way; a summed choice is of another kind, or of two; or the next state
        has another structure.
      CannotEnumerate: too many outcomes would have to be held together; it says how many.
      ShapeError: raised at a step, when a covariance or `log_probs` is not of the state's size.

    Source: Doucet, de Freitas, Murphy and Russell, Rao-Blackwellised particle filtering for
    dynamic Bayesian networks (UAI 2000); Chen and Liu, Mixture Kalman filters (JRSS B 2000);
    Rabiner, A tutorial on hidden Markov models (1989).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import particle_filter, rao_blackwell
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(state, _):
    ...     z, jumps = state
    ...     jumps = sample("jumps", dist.Bernoulli(jnp.where(jumps == 1, 0.9, 0.1)))
    ...     z = sample("z", dist.Normal(z, jnp.where(jumps == 1, 2.0, 0.1)))
    ...     sample("y", dist.Normal(z, 0.5))
    ...     return (z, jumps), None
    >>> step, start = rao_blackwell(walk, "z", (0.0, 0))
    >>> list(step.sites(start, None))
    [('jumps',), ('y',)]
    >>> ys = {"y": jnp.array([0.1, 0.2, 3.1])}
    >>> found = seed(lambda: particle_filter(step, start, ys, 50))(jax.random.key(0))
    >>> found.particles.value.state[0].shape, found.particles.value.covariance.shape
    ((50,), (50, 1, 1))
    """
    check_model(model)
    check_state(init)
    chosen = as_selection(summed)
    sites = model.sites(init, x)
    chosen.check(sites)
    paths = tuple(path for path in sites if chosen(path))
    finite = [_is_finite(sites[path].distribution) for path in paths]
    if all(finite):
        return enumerated(model, paths, init, x)
    if any(finite):
        kinds = [(path, sites[path].kind) for path in paths]
        raise errors.InvalidArgument(
            "Finite choices and Gaussian ones are not summed out together.",
            where=(*(f"{errors.show(p)} at {sites[p].source}" for p in paths[:2]), errors.caller()),
            given="; ".join(f"{errors.show(p)} of {kind}" for p, kind in kinds),
            expected="choices of one kind: a mixture of Gaussians grows with each step",
            fix="leave the finite ones to the particles",
        )
    return believed(model, paths, init, x)


def _is_finite(d: Any) -> bool:
    return outcomes(d) is not None and elements(d) is not None
