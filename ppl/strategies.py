"""Strategies for `expectation`: how the derivative with respect to a choice's law is estimated.

| strategy | choices | values | what it needs |
| --- | --- | --- | --- |
| `reparam` | continuous | 1 | what follows is smooth |
| `reinforce` | any with a density | 1 (or k) | a support that stays |
| `enumerate_` | finitely many outcomes | all, or some | |
| `measure_valued` | finite, Normal, Poisson, Exponential, Gamma, Beta | 1 and its worlds | |
| `disarm` | binary | 2 | |
| `relax` | binary | 1 | a function of the noise |
| `without_replacement` | finitely many outcomes | k | |

Each is unbiased, for first and higher derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import errors
from .estimators.antithetic import Disarm
from .estimators.control_variates import Relax
from .estimators.enumeration import Enumerate, WithoutReplacement
from .estimators.measure_valued import MeasureValued
from .estimators.pathwise import Reparam
from .estimators.score_function import LeaveOneOut, Reinforce
from .estimators.strategies import Strategy


def reparam(*, allow_jump: bool = False) -> Strategy:
    """The value is a differentiable function of its parameters and of noise.

    By location and scale or the inverse distribution function where there is one, by gamma
    variables (Gamma, Beta, Dirichlet, Student's t), or implicitly, the value moving so that its
    distribution function stays (mixtures). What the value is used for must not jump, or the
    derivative would miss what a jump adds.

    Args:
      allow_jump: go through jumps all the same; the derivative is then biased.

    Raises:
      NoStrategy: when used on a choice for which there is no such function.
      GradientThroughDraw: when a derivative is taken through a jump; names both places.

    Source: Kingma and Welling (ICLR 2014); Figurnov, Mohamed and Mnih (NeurIPS 2018).

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, expectation, reparam, seed
    >>> square = expectation(lambda m: draw(dist.Normal(m, 1e-3), reparam()) ** 2)
    >>> slope = jax.grad(lambda m: seed(square)(jax.random.key(0), m))(3.0)
    >>> bool(abs(slope - 6) < 0.02)
    True
    """
    return Reparam(_flag(allow_jump, "allow_jump"))


def reinforce(baseline: Any = None) -> Strategy:
    """What depends on the value is multiplied by its score, less a baseline.

    Args:
      baseline: what is taken off, close to the mean of what comes after: a number; a function
        of the choices before, a nested dict; `leave_one_out(k)`; None for nothing. It never
        sees the choice itself.

    Raises:
      GradientThroughDraw: when the support moves with a parameter.

    Source: Williams (Machine Learning 1992); credit by Schulman et al. (NeurIPS 2015).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, reinforce
    >>> price = jnp.array([1.0, 5.0])
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), reinforce(baseline=3.0))])
    >>> print(f"{integrate(jax.grad(paid))(0.25):.4f}")  # 5 - 1
    4.0000
    """
    if not (baseline is None or callable(baseline) or isinstance(baseline, LeaveOneOut)):
        baseline = _number(baseline)
    return Reinforce(baseline)


def leave_one_out(samples: int) -> LeaveOneOut:
    """A baseline for `reinforce`: of `samples` values side by side, the mean of the others.

    Source: Kool, van Hoof and Welling (2019); Salimans and Knowles (2014).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, leave_one_out, reinforce
    >>> price = jnp.array([1.0, 5.0])
    >>> how = reinforce(leave_one_out(2))
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), how)])
    >>> print(f"{integrate(jax.grad(paid))(0.25):.4f}")
    4.0000
    """
    return LeaveOneOut(_count(samples, "samples", 2))


def enumerate_(top: int | None = None) -> Strategy:
    """All outcomes side by side, weighted by their probabilities: no variance is left.

    Elements that no term depends on together are enumerated together; of others all
    combinations are. A chain of such choices makes a tree of outcomes, computed by one program.

    Args:
      top: only the so many likeliest outcomes, and one sampled from the rest.

    Raises:
      CannotEnumerate: when used on a choice with infinitely many outcomes, or too many.

    Source: Liu et al., Rao-Blackwellized stochastic gradients (ICML 2019), for `top`.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, enumerate_, expectation, seed
    >>> price = jnp.array([1.0, 5.0])
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), enumerate_())])
    >>> float(jax.grad(lambda p: seed(paid)(jax.random.key(0), p))(0.25))
    4.0
    """
    return Enumerate(None if top is None else _count(top, "top", 1))


def measure_valued() -> Strategy:
    """The derivative of the law as a difference of two laws, a value from each followed on.

    The values besides the one that happens are worlds; all choices of a program share one axis
    of them, so n choices of two outcomes cost n + 1 evaluations of what depends on them.

    Raises:
      NoStrategy: when used on a choice whose derivative is not known in this form.

    Source: Pflug (Computing 1989); Mohamed et al. (JMLR 2020).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, measure_valued
    >>> price = jnp.array([1.0, 5.0])
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), measure_valued())])
    >>> print(f"{integrate(jax.grad(paid))(0.25):.4f}")
    4.0000
    """
    return MeasureValued()


def disarm() -> Strategy:
    """Two binary values from one uniform, as unlike as can be.

    Raises:
      NoStrategy: when used on a choice that is not binary.

    Source: Dong, Mnih and Tucker, DisARM (NeurIPS 2020).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import disarm, draw, expectation, seed
    >>> price = jnp.array([1.0, 5.0])
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), disarm())])
    >>> slope = lambda key: jax.grad(lambda p: seed(paid)(key, p))(0.5)
    >>> float(slope(jax.random.key(0)))  # at 1/2 the two values are never alike
    4.0
    """
    return Disarm()


def relax(control: Callable[[Any, dict[str, Any]], Any]) -> Strategy:
    """The score function less a function of the noise behind a binary choice.

    Args:
      control: a function of the noise z, a log odds for each element (the value is z > 0), and of
        the choices before, a nested dict. The closer it is to what comes after, the less
        variance is left; with any it is unbiased.

    Raises:
      NoStrategy: when used on a choice that is not binary.

    Source: Grathwohl et al., Backpropagation through the void (ICLR 2018).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, relax
    >>> price = jnp.array([1.0, 5.0])
    >>> near = relax(lambda z, before: 1 + 4 * jax.nn.sigmoid(3 * z))
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), near)])
    >>> slope = integrate(jax.grad(paid), nodes=64, rule="midpoint")(0.25)
    >>> print(f"{slope:.2f}")
    4.00
    """
    if not callable(control):
        raise errors.InvalidArgument(
            "relax needs a function of the noise.",
            where=errors.caller(),
            given=repr(control),
            expected="a function (z, before) -> number",
            fix="relax(lambda z, before: jax.nn.sigmoid(z))",
        )
    return Relax(control)


def without_replacement(samples: int) -> Strategy:
    """Different outcomes side by side, drawn without replacement.

    Args:
      samples: how many; with as many as there are outcomes this is `enumerate_()`.

    Raises:
      CannotEnumerate: when used on a choice with infinitely many outcomes.

    Source: Kool, van Hoof and Welling (ICLR 2020), the unordered set estimator.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, law, without_replacement
    >>> price, odds = jnp.array([1.0, 5.0, 2.0]), jnp.array([0.2, 0.3, 0.5])
    >>> how = without_replacement(3)
    >>> paid = expectation(lambda q: price[draw(dist.Categorical(probs=q), how)])
    >>> print(f"{law(paid)(odds).values[0]:.4f}")  # 0.2 + 1.5 + 1
    2.7000
    """
    return WithoutReplacement(_count(samples, "samples", 1))


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "True or False")
    return value


def _count(value: Any, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(name, value, f"a whole number, at least {least}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise _wrong("baseline", value, "a number, a function of the choices before, or "
                     "leave_one_out(k)")  # fmt: skip
    return float(value)


def _wrong(name: str, value: Any, expected: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"A strategy's `{name}` is out of range.",
        where=errors.caller(),
        given=f"{name}={value!r}",
        expected=expected,
        fix=f"give {expected}",
    )
