"""What was summed out, given what was not: joint draws, laws, and the likeliest values."""

from __future__ import annotations

from typing import Any

from ppl import GenerativeFunction, Trace, errors
from ppl.addresses import nest
from ppl.execute import Given

from .finite import Finite
from .finite_recovery import FiniteGiven
from .gaussian_recovery import GaussianGiven
from .summed_out import SummedOut


def restore(quiet: GenerativeFunction, trace: Trace) -> Trace:
    """A random program: a trace of the model, with what was summed out drawn given the rest.

    The draw is joint, from the exact law. So if `trace` is drawn from the summed model, the
    result has the law of the model. The trace's missing elements keep the values they have.

    Args:
      quiet: the result of `sum_out`.
      trace: one of its traces.

    Raises:
      InvalidArgument: `quiet` is no result of `sum_out`, or `trace` is no trace of it.

    Source: forward filtering and backward sampling in any order of elimination, by derivatives
    (Rush, Torch-Struct, ACL 2020); for Gaussian choices a simulation and its correction (Durbin
    and Koopman, A simple and efficient simulation smoother, Biometrika 2002).

    >>> import jax, numpyro.distributions as dist
    >>> from inference import restore, sum_out
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def model():
    ...     z = sample("z", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    >>> quiet = sum_out(model, "z")
    >>> trace, _ = quiet.generate({"y": 2.0})
    >>> draws = jax.vmap(lambda key: seed(restore)(key, quiet, trace)["z"])(
    ...     jax.random.split(jax.random.key(0), 4000))
    >>> round(float(draws.mean()), 1), round(float(draws.var()), 1)  # of N(1, 1/2)
    (1.0, 0.5)
    """
    given = _given(quiet, trace)
    if given.inner is None:
        return given.drawn()
    return restore(given.inner, given.drawn())


def most_likely(quiet: GenerativeFunction, trace: Trace) -> Trace:
    """The model's trace with the likeliest values of all that was summed out, given the rest.

    Its score is the log density there: the maximum over all values (Viterbi's path, for a hidden
    Markov model; the smoothed means, for Gaussian choices). Of several, one of them.

    Raises:
      InvalidArgument: as for `restore`; or both finite and Gaussian choices were summed out.

    Source: Viterbi, Error bounds for convolutional codes (IEEE Trans. Inform. Theory 1967).

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import most_likely, sum_out
    >>> from ppl import gen, sample
    >>> @gen
    ... def model():
    ...     z = sample("z", dist.Bernoulli(0.25))
    ...     sample("y", dist.Bernoulli(jnp.where(z == 1, 0.75, 0.125)))
    >>> quiet = sum_out(model, "z")
    >>> trace, _ = quiet.generate({"y": 1})
    >>> most_likely(quiet, trace)  # 1/4 * 3/4 against 3/4 * 1/8
    Trace(model; "z": 1, "y": 1; score=-1.674)
    """
    given = _given(quiet, trace)
    if given.inner is not None:
        raise _both("The likeliest values of finite and Gaussian choices together are not known.")
    return given.likeliest()


def beliefs(quiet: GenerativeFunction, trace: Trace) -> dict[str, Any]:
    """The law of each element of what was summed out, given the rest of a trace.

    Returns:
      Distributions in a nested dict, as choices are: Bernoulli, categorical or `Outcomes` for
      finite choices, one for each element; Normal or MultivariateNormal for Gaussian ones, one
      for each iteration of the loops around them.

    Raises:
      InvalidArgument: as for `most_likely`.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import beliefs, sum_out
    >>> from ppl import gen, sample
    >>> @gen
    ... def model():
    ...     z = sample("z", dist.Bernoulli(0.25))
    ...     sample("y", dist.Bernoulli(jnp.where(z == 1, 0.75, 0.125)))
    >>> quiet = sum_out(model, "z")
    >>> trace, _ = quiet.generate({"y": 1})
    >>> print(f'{beliefs(quiet, trace)["z"].probs:.4f}')  # 3/16 of 3/16 + 3/32
    0.6667
    """
    given = _given(quiet, trace)
    if given.inner is not None:
        raise _both("The laws of Gaussian choices, over all values of finite ones, are mixtures.")
    return nest(given.laws())


def _both(title: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        title,
        where=errors.caller(),
        given="a model in which both were summed out",
        expected="choices of one kind",
        fix="sum out one kind alone; or take draws by restore(quiet, trace)",
    )


def _given(quiet: Any, trace: Any) -> FiniteGiven | GaussianGiven:
    """The model of a summed one, with what its trace has given.

    Raises:
      InvalidArgument: it is no summed model, or no trace of it.
    """
    fn = getattr(quiet, "fn", None)
    if not isinstance(fn, SummedOut):
        raise errors.InvalidArgument(
            "A model with choices summed out was expected.",
            where=errors.caller(),
            given=repr(quiet),
            expected="the result of sum_out",
            fix='quiet = sum_out(model, "z"), and a trace of quiet',
        )
    if not isinstance(trace, Trace):
        raise errors.InvalidArgument(
            "A trace was expected.",
            where=errors.caller(),
            given=type(trace).__name__,
            expected="a trace of the summed model",
            fix="trace, _ = seed(quiet.generate)(key, observations, *args)",
        )
    own = quiet._prepare((trace.arguments,), {})
    old = own.old(trace)
    prepared, sums = fn.planned(trace.arguments)
    there = fn.present(fn.model._prepare((trace.arguments,), {}))
    values = {
        path: Given(given.value, counts=there[path].counts if path in there else None)
        for path, given in old.items()
    }
    inner = prepared.model if isinstance(prepared.model.fn, SummedOut) else None
    if isinstance(sums, Finite):
        return FiniteGiven(prepared, sums, values, inner)
    return GaussianGiven(prepared, sums, values, inner)
