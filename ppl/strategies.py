"""Strategies for `expectation`: how the derivative with respect to a choice's law is estimated.

| strategy | choices | values | what it needs |
| --- | --- | --- | --- |
| `reparam` | continuous | 1 | what follows is smooth |
| `reinforce` | any with a density | 1 (or k) | a support that stays |
| `enumerate_` | finitely many outcomes | all, or some | |
| `measure_valued` | finite, Normal, Poisson, Exponential, Gamma, Beta | 1 and its worlds | |
| `disarm` | binary | 2 | |
| `relax`, `rebar` | binary | 1 | a function of the noise |
| `without_replacement` | finitely many outcomes | k | |
| `straight_through`, `gumbel_softmax` | binary | 1 | `allow_biased=True` |

All but the last row are unbiased, for first and higher derivatives (`order=1`: first).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from . import errors
from .estimators.antithetic import Disarm
from .estimators.control_variates import Relax
from .estimators.enumeration import Enumerate, WithoutReplacement
from .estimators.measure_valued import MeasureValued
from .estimators.pathwise import Reparam
from .estimators.relaxed import Relaxed
from .estimators.score_function import Learned, LeaveOneOut, Reinforce
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
        of the choices before, a nested dict; `leave_one_out(k)`; `learned(f, parameters)`;
        `moving_average(level)`; None for nothing. It never sees the choice itself.

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
    made = isinstance(baseline, LeaveOneOut | Learned)
    if not (baseline is None or callable(baseline) or made):
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


def learned(baseline: Callable[[Any, dict[str, Any]], Any], parameters: Any) -> Learned:
    """A baseline for `reinforce` that is learned, by the same derivatives as all else.

    With respect to `parameters` the derivative of an expectation is not that of its mean, which
    does not depend on them, but that of minus half of E[(R - b)^2], where R is what the score is
    multiplied by and b the baseline: who climbs an objective learns the baseline of least squares.
    First derivatives only.

    Args:
      baseline: `(parameters, before) -> level`, of the choices before, a nested dict.
      parameters: what of it is learned, and of nothing else: a parameter of the law as well
        would be pulled in two directions. They come from outside of the program: strategies by
        address, in a function around `expectation`, or `strategies=` of `fit`.

    Source: Mnih and Gregor, Neural variational inference and learning (ICML 2014).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, learned, reinforce
    >>> price = jnp.array([1.0, 5.0])
    >>> def paid(p, level):
    ...     how = reinforce(learned(lambda level, before: level, level))
    ...     return expectation(lambda p: price[draw(dist.Bernoulli(p), how)])(p)
    >>> slopes = integrate(jax.grad(paid, (0, 1)))(0.25, 1.5)
    >>> [round(float(slope), 4) for slope in slopes]  # 5 - 1; and E[R] - level = 2 - 1.5
    [4.0, 0.5]
    """
    if not callable(baseline):
        raise errors.InvalidArgument(
            "A learned baseline is a function.",
            where=errors.caller(),
            given=repr(baseline),
            expected="a function (parameters, before) -> level",
            fix="learned(lambda level, before: level, level)",
        )
    return Learned(baseline, parameters)


def moving_average(level: Any) -> Learned:
    """A baseline for `reinforce`: the moving average of what it is taken off.

    `level` is a parameter, and its derivative the difference R - level. So an optimizer that adds
    the derivative times 1 - decay (`optax.sgd(1 - decay)` for it, in a `fit`) keeps the average
    with this decay; any other learns it, too.

    Source: Williams (Machine Learning 1992), "reinforcement comparison".

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, moving_average, reinforce, seed
    >>> price = jnp.array([1.0, 5.0])
    >>> def paid(p, level):
    ...     how = reinforce(moving_average(level))
    ...     return expectation(lambda p: price[draw(dist.Bernoulli(p), how)])(p)
    >>> value, gap = jax.value_and_grad(lambda b: seed(paid)(jax.random.key(0), 0.5, b))(2.0)
    >>> float(value - gap)
    2.0
    """
    return Learned(lambda level, before: level, level)


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


def measure_valued(*, order: int | None = None) -> Strategy:
    """The derivative of the law as a difference of two laws, a value from each followed on.

    The values besides the one that happens are worlds, on one axis for all choices of a program:
    n choices of two outcomes cost n + 1 evaluations of what depends on them.

    Args:
      order: 1 for first derivatives only, for less, if all such choices of a program say so.

    Raises:
      NoStrategy: when used on a choice whose derivative is not known in this form.
      GradientThroughDraw: a second derivative, with `order=1`.

    Source: Pflug (Computing 1989); Mohamed et al. (JMLR 2020).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, measure_valued
    >>> price = jnp.array([1.0, 5.0])
    >>> paid = expectation(lambda p: price[draw(dist.Bernoulli(p), measure_valued())])
    >>> print(f"{integrate(jax.grad(paid))(0.25):.4f}")
    4.0000
    """
    if order is not None and (isinstance(order, bool) or order != 1):
        raise _wrong("order", order, "1, or None for derivatives of all orders")
    return MeasureValued(order)


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


def rebar(
    rest: Callable[[Any, dict[str, Any]], Any], *, temperature: float = 0.5, scale: float = 1.0
) -> Strategy:
    """`relax` by what comes after the choice itself, at a smooth version of the value.

    Args:
      rest: what comes after, a function of the value and of the choices before, a nested dict;
        it is called with sigmoid(z / temperature) in place of the binary value.
      temperature: the lower, the closer the smooth value is to a binary one.
      scale: what the control is multiplied by.

    Raises:
      NoStrategy: when used on a choice that is not binary.

    Source: Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein, REBAR (NeurIPS 2017).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, rebar
    >>> def paid(p):
    ...     cost = lambda b, before: (b - 0.45) ** 2
    ...     return cost(draw(dist.Bernoulli(p), rebar(cost)), {})
    >>> slope = integrate(jax.grad(expectation(paid)), nodes=64, rule="midpoint")(0.25)
    >>> print(f"{slope:.2f}")  # 0.55^2 - 0.45^2
    0.10
    """
    relax(rest)
    for name, value in (("temperature", temperature), ("scale", scale)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < float("inf"):
            raise _wrong(name, value, "a number above 0")
    return Relax(lambda z, before: scale * rest(jax.nn.sigmoid(z / temperature), before))


def straight_through() -> Strategy:
    """A binary value that passes derivatives on to its probability: biased.

    The value is what it would be, and its derivative that of its mean. `expectation` takes it
    only with `allow_biased=True`, and no certificate passes.

    Raises:
      NoStrategy: when used on another choice, or where whole numbers are needed: write
        `z * a + (1 - z) * b` in place of `where(z == 1, a, b)`.
      BiasedStrategy: when used without `allow_biased=True`.

    Source: Bengio, Léonard and Courville (2013).

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, expectation, integrate, straight_through
    >>> def squared(p):
    ...     return (draw(dist.Bernoulli(p), straight_through()) - 0.25) ** 2
    >>> slope = jax.grad(expectation(squared, allow_biased=True))
    >>> print(f"{integrate(slope, nodes=64, rule='midpoint')(0.25):.3f}")  # in truth 0.5
    0.000
    """
    return Relaxed(None, True)


def gumbel_softmax(temperature: float = 0.5, *, hard: bool = True) -> Strategy:
    """A binary value with the derivatives of a softmax of its log odds and noise: biased.

    Of two outcomes, for which it is also called the binary concrete relaxation.

    Args:
      temperature: the lower, the less bias and the more variance.
      hard: the value is binary; else it is the softmax itself, and the mean of the
        estimate is another one, too.

    Raises:
      NoStrategy, BiasedStrategy: as for `straight_through`.

    Source: Jang, Gu and Poole (ICLR 2017); Maddison, Mnih and Teh (ICLR 2017).

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import draw, expectation, gumbel_softmax, integrate
    >>> def linear(p):
    ...     return 3.0 * draw(dist.Bernoulli(p), gumbel_softmax(1.0)).astype(float)
    >>> slope = jax.grad(expectation(linear, allow_biased=True))
    >>> print(f"{integrate(slope, nodes=64, rule='midpoint')(0.5):.2f}")  # 3 * 4 * E[y (1 - y)]
    2.00
    """
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < float("inf"):
        raise _wrong("temperature", temperature, "a number above 0")
    return Relaxed(float(temperature), _flag(hard, "hard"))


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
