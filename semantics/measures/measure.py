"""Finite measures: a weight for each of finitely many values, in exact or float64 arithmetic.

This is an oracle, so it shares no code with what it judges: it imports the standard
library only, and its errors are its own. Read a `Measure` as an element of the monad M
of synthetic measure theory (Ścibior et al., POPL 2018; Kock, *Commutative monads as a theory
of distributions*, 2012): `dirac` is the unit, `bind` the sequencing, `product` the
commutative strength, `scale` the action of densities, `integrate` the pairing with functions.

**Arithmetic.** The weights of one measure are all `Fraction` (it is *exact*) or all `float`.
Integers become fractions. One float, even a zero, among the weights, densities or kernels
that make up a result turns *all* weights of the result into floats; `exact` tells. Float sums
are `math.fsum`: correctly rounded, so the order of terms never matters.

**Null sets.** A value of weight zero is dropped: it is not in `support`, functions are never
evaluated there, and measures that differ only by zero weights are equal. A float weight
that underflows to zero is lost in the same way.

**Values** are hashable and compared as Python compares them (`1 == 1.0 == True`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational, Real
from types import MappingProxyType
from typing import Any, Generic, TypeVar

X = TypeVar("X", bound=Hashable)
Y = TypeVar("Y", bound=Hashable)
Weight = Fraction | float


class MeasureError(ValueError):
    """What is wrong with a measure or kernel, given against expected, and the fix.

    Attributes:
      what: one sentence.
      value: the value or state that is at fault, if one is.
      given, expected: the two sides of the mismatch, when there is one.
      fix: one concrete thing to do.

    >>> from semantics.measures.measure import MeasureError, Measure
    >>> try:
    ...     Measure({"a": -1})
    ... except MeasureError as error:
    ...     print(error)
    the weight of 'a' is not finite and nonnegative.
      given:    -1
      expected: a finite number >= 0
    """

    def __init__(
        self,
        what: str,
        *,
        value: object = None,
        given: object = None,
        expected: object = None,
        fix: str | None = None,
    ):
        self.what, self.value, self.given = what, value, given
        self.expected, self.fix = expected, fix
        lines = [what]
        for label, text in (("given", given), ("expected", expected), ("fix", fix)):
            if text is not None:
                lines.append(f"  {label + ':':<9} {text}")
        super().__init__("\n".join(lines))


class InvalidMeasure(MeasureError):
    """A weight, density, integrand or value is not what a measure can be made of."""


class ZeroMass(MeasureError):
    """The zero measure was given where only a measure of positive mass makes sense."""


class NotAbsolutelyContinuous(MeasureError):
    """A derivative was asked for, but `value` has weight above and none below."""


def number(given: Any) -> Weight:
    """An exact number as a `Fraction`, any other real number as a `float`.

    Scalars of an array library are read by their `item()`. Infinities pass, NaN does not.

    >>> from semantics.measures.measure import number
    >>> number(3), number(True), number(0.5)
    (Fraction(3, 1), Fraction(1, 1), 0.5)
    """
    plain = given
    if hasattr(given, "item"):
        try:
            plain = given.item()
        except (TypeError, ValueError):
            plain = None  # an array of several numbers
    if isinstance(plain, Rational):
        return Fraction(plain)
    if isinstance(plain, Real) and plain == plain:
        return float(plain)
    expected = "an int, Fraction or float"
    raise InvalidMeasure("this is not a real number.", given=repr(given), expected=expected)


def _weight(value: object, given: Any) -> Weight:
    weight = number(given)
    if 0 <= weight < math.inf:
        return weight
    what = f"the weight of {value!r} is not finite and nonnegative."
    raise InvalidMeasure(what, value=value, given=given, expected="a finite number >= 0")


def total(terms: Iterable[Weight]) -> Weight:
    """The sum, exact if all terms are fractions, else correctly rounded.

    >>> from semantics.measures.measure import total
    >>> total([0.1] * 10), total([])
    (1.0, Fraction(0, 1))
    """
    terms = list(terms)
    if all(isinstance(term, Fraction) for term in terms):
        return sum(terms, Fraction(0))
    try:
        found = math.fsum(terms)
    except ValueError:
        found = math.nan
    if math.isnan(found):
        raise InvalidMeasure("the sum is not defined: it has terms inf - inf or 0 * inf.")
    return found


def _function(given: Callable[[Any], Any] | Mapping[Any, Any]) -> Callable[[Any], Any]:
    return given.__getitem__ if isinstance(given, Mapping) else given


@dataclass(frozen=True, repr=False)
class Measure(Generic[X]):
    """The finite measure Σ_x w(x) δ_x, from a mapping of values x to weights w(x) >= 0.

    Equal when the weights are; hashable, so that measures can be values of measures. Where
    a function is asked for, a mapping does.

    Raises:
      InvalidMeasure: a weight is negative, infinite or no number, or a value is NaN.

    >>> from fractions import Fraction
    >>> from semantics.measures.measure import Measure
    >>> Measure({"a": Fraction(1, 3), "b": 2, "c": 0})
    Measure({'a': 1/3, 'b': 2})
    >>> Measure({"a": Fraction(1, 4), "b": 0.5})  # a float makes all of them floats
    Measure({'a': 0.25, 'b': 0.5})
    """

    weights: Mapping[X, Weight]

    def __post_init__(self) -> None:
        weights = {value: _weight(value, w) for value, w in self.weights.items()}
        for value in weights:
            if value != value:
                raise InvalidMeasure(f"the value {value!r} does not equal itself.", value=value)
        if not all(isinstance(w, Fraction) for w in weights.values()):
            weights = {value: float(w) for value, w in weights.items()}
        kept = {value: w for value, w in weights.items() if w}
        object.__setattr__(self, "weights", MappingProxyType(kept))

    @staticmethod
    def of(weights: Mapping[Y, Any] | Iterable[tuple[Y, Any]]) -> Measure[Y]:
        """Σ_i w_i δ_{x_i} for pairs (x_i, w_i): weights of the same value add up.

        Raises:
          InvalidMeasure: as the constructor, or a value is not hashable.

        >>> from semantics.measures.measure import Measure
        >>> Measure.of([("a", 1), ("b", 2), ("a", 3)])
        Measure({'a': 4, 'b': 2})
        """
        pairs: Any = weights.items() if isinstance(weights, Mapping) else weights
        terms: dict[Y, list[Weight]] = {}
        for value, weight in pairs:
            try:
                same = terms.setdefault(value, [])
            except TypeError:
                what, fix = f"the value {value!r} is not hashable.", "use tuples for arrays"
                raise InvalidMeasure(what, value=value, fix=fix) from None
            same.append(_weight(value, weight))
        return Measure({value: total(each) for value, each in terms.items()})

    def __hash__(self) -> int:
        return hash(frozenset(self.weights.items()))

    def __repr__(self) -> str:
        return f"Measure({{{', '.join(f'{x!r}: {w}' for x, w in self.weights.items())}}})"

    def __getitem__(self, value: X) -> Weight:
        """μ({value}), zero outside the support.

        >>> from semantics.measures.measure import uniform
        >>> uniform("abc")["a"], uniform("abc")["z"]
        (Fraction(1, 3), Fraction(0, 1))
        """
        return self.weights.get(value, Fraction(0) if self.exact else 0.0)

    @property
    def exact(self) -> bool:
        """Whether all weights are fractions. (The zero measure is exact.)"""
        return all(isinstance(w, Fraction) for w in self.weights.values())

    @property
    def support(self) -> tuple[X, ...]:
        """The values of positive weight, in the order in which they came.

        >>> from semantics.measures.measure import Measure
        >>> Measure({"b": 1, "a": 2, "c": 0}).support
        ('b', 'a')
        """
        return tuple(self.weights)

    @property
    def mass(self) -> Weight:
        """μ(X), the sum of all weights.

        >>> from semantics.measures.measure import Measure
        >>> Measure({"a": 1, "b": 2}).mass
        Fraction(3, 1)
        """
        return total(self.weights.values())

    def integrate(self, f: Callable[[X], Any] | Mapping[X, Any]) -> Weight:
        """∫ f dμ = Σ_x μ(x) f(x): exact if μ and all values of f are.

        Raises:
          InvalidMeasure: a value of `f` is no real number, or the sum has inf - inf.

        >>> from semantics.measures.measure import uniform
        >>> uniform([1, 2, 6]).integrate(lambda x: x * x)
        Fraction(41, 3)
        """
        call = _function(f)
        return total(w * number(call(x)) for x, w in self.weights.items())

    def bind(self, kernel: Callable[[X], Measure[Y]] | Mapping[X, Measure[Y]]) -> Measure[Y]:
        """(μ >>= k)(y) = ∫ k(x)(y) μ(dx): draw x from μ, then y from k(x).

        With `kernel` the identity, it flattens a measure on measures: a mixture.

        Raises:
          InvalidMeasure: `kernel` returned something else than a measure.

        >>> from semantics.measures.measure import Measure, dirac, uniform
        >>> uniform([1, 2]).bind(lambda n: uniform(range(n)))
        Measure({0: 3/4, 1: 1/4})
        >>> Measure({uniform("ab"): 1, dirac("a"): 2}).bind(lambda m: m)
        Measure({'a': 5/2, 'b': 1/2})
        """
        call = _function(kernel)
        pairs: list[tuple[Y, Weight]] = []
        for x, weight in self.weights.items():
            row = call(x)
            if not isinstance(row, Measure):
                what = f"the kernel's value at {x!r} is not a measure."
                raise InvalidMeasure(what, value=x, given=repr(row), expected="a Measure")
            pairs += [(y, weight * w) for y, w in row.weights.items()]
        return Measure.of(pairs)

    def product(self, other: Measure[Y]) -> Measure[tuple[X, Y]]:
        """(μ ⊗ ν)(x, y) = μ(x) ν(y), on pairs.

        >>> from semantics.measures.measure import Measure, uniform
        >>> uniform("ab").product(Measure({0: 1, 1: 3}))
        Measure({('a', 0): 1/2, ('a', 1): 3/2, ('b', 0): 1/2, ('b', 1): 3/2})
        """
        pairs = other.weights.items()
        return Measure.of(((x, y), w * v) for x, w in self.weights.items() for y, v in pairs)

    def map(self, f: Callable[[X], Y] | Mapping[X, Y]) -> Measure[Y]:
        """f_*μ, the pushforward: f_*μ(B) = μ(f⁻¹ B). A marginal is the map of a projection.

        >>> from semantics.measures.measure import uniform
        >>> uniform(range(5)).map(lambda n: n % 2)
        Measure({0: 3/5, 1: 2/5})
        """
        call = _function(f)
        return Measure.of((call(x), w) for x, w in self.weights.items())

    def scale(self, density: Callable[[X], Any] | Mapping[X, Any]) -> Measure[X]:
        """f ⊙ μ, the measure of density f with respect to μ: (f ⊙ μ)(x) = f(x) μ(x).

        Raises:
          InvalidMeasure: a value of `density` is negative, infinite or no number.

        >>> from semantics.measures.measure import uniform
        >>> uniform([1, 2, 3]).scale(lambda x: x)
        Measure({1: 1/3, 2: 2/3, 3: 1})
        """
        call = _function(density)
        return Measure.of((x, w * _weight(x, call(x))) for x, w in self.weights.items())

    def restrict(self, event: Callable[[X], Any]) -> Measure[X]:
        """μ(· ∩ A), for A the values at which `event` is true; its `mass` is μ(A).

        >>> from semantics.measures.measure import uniform
        >>> uniform(range(6)).restrict(lambda x: x > 3)
        Measure({4: 1/6, 5: 1/6})
        """
        return Measure({x: w for x, w in self.weights.items() if event(x)})

    def normalized(self) -> Measure[X]:
        """μ / μ(X), a probability measure.

        Raises:
          ZeroMass: μ is the zero measure.

        >>> from semantics.measures.measure import Measure
        >>> Measure({"a": 1, "b": 2}).normalized()
        Measure({'a': 1/3, 'b': 2/3})
        """
        if not self.weights:
            raise ZeroMass("the zero measure cannot be normalized.")
        mass = self.mass
        return Measure({x: w / mass for x, w in self.weights.items()})

    def derivative(self, other: Measure[X]) -> dict[X, Weight]:
        """dμ/dν, the Radon-Nikodym derivative: the density f with f ⊙ ν = μ.

        It is unique on the support of ν, and has no entry elsewhere.

        Raises:
          NotAbsolutelyContinuous: μ has weight at a value (named) where ν has none.

        >>> from semantics.measures.measure import Measure, uniform
        >>> Measure({"a": 1, "b": 3}).derivative(uniform("abcd"))
        {'a': Fraction(4, 1), 'b': Fraction(12, 1), 'c': Fraction(0, 1), 'd': Fraction(0, 1)}
        """
        for x, w in self.weights.items():
            if x not in other.weights:
                what = f"the measure has weight at {x!r}, where the reference has none."
                raise NotAbsolutelyContinuous(what, value=x, given=f"{w} against 0")
        return {x: self[x] / v for x, v in other.weights.items()}

    def total_variation(self, other: Measure[X]) -> Weight:
        """sup_A |μ(A) - ν(A)|, the larger of the masses of (μ - ν)⁺ and (μ - ν)⁻.

        For probability measures it is half the L1 distance, and at most one; for finite
        measures of different masses it is more than half, and a metric all the same.

        >>> from semantics.measures.measure import Measure, uniform
        >>> uniform("ab").total_variation(uniform("bc"))
        Fraction(1, 2)
        >>> Measure({"a": 1}).total_variation(Measure({"a": 1, "b": 3}))
        Fraction(3, 1)
        """
        gaps = [self[x] - other[x] for x in {**self.weights, **other.weights}]
        above = total(gap for gap in gaps if gap > 0)
        below = total(-gap for gap in gaps if gap < 0)
        return max(above, below)

    def __add__(self, other: Measure[X]) -> Measure[X]:
        """(μ + ν)(A) = μ(A) + ν(A).

        >>> from semantics.measures.measure import Measure
        >>> Measure({"a": 1, "b": 1}) + Measure({"b": 2})
        Measure({'a': 1, 'b': 3})
        """
        return Measure.of([*self.weights.items(), *other.weights.items()])


def dirac(value: X) -> Measure[X]:
    """δ_value, the unit of `bind`: all mass, one, at `value`.

    >>> from semantics.measures.measure import dirac
    >>> dirac("a")
    Measure({'a': 1})
    """
    return Measure.of([(value, 1)])


def zero() -> Measure[Any]:
    """The measure with no mass.

    >>> from semantics.measures.measure import zero
    >>> zero(), zero().mass
    (Measure({}), Fraction(0, 1))
    """
    return Measure({})


def uniform(values: Iterable[X]) -> Measure[X]:
    """Probability 1/n for each of the n `values`; one listed twice has twice as much.

    Raises:
      ZeroMass: there are no values.

    >>> from semantics.measures.measure import uniform
    >>> uniform("abb")
    Measure({'a': 1/3, 'b': 2/3})
    """
    return Measure.of([(value, 1) for value in values]).normalized()
