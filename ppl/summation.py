"""Running sums that lose nothing to rounding: for scores and weights along loops.

In float32 a plain sum of a million terms of one sign is off by a hundredth of itself, always
to the same side. Here what an addition has lost is carried beside the total and goes into the
next (Kahan 1965): the error is at most 2 eps times the sum of the absolute terms, however many
there are. In float64 the plain sum of a billion terms has seven digits, and nothing is carried.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import arithmetic


class Sum(NamedTuple):
    """A running sum: its total, and what rounding has kept out of it so far (None: nothing).

    Attributes:
      total: an array.
      lost: an array of the same shape and dtype, or None.
    """

    total: jax.Array
    lost: jax.Array | None

    @property
    def value(self) -> jax.Array:
        """The sum, rounded once."""
        return self.total if self.lost is None else self.total + self.lost


def nothing(like: jax.Array) -> Sum:
    """The empty sum, a zero of the shape and dtype of `like`.

    >>> import jax.numpy as jnp
    >>> from ppl.summation import nothing
    >>> nothing(jnp.ones(2)).value.tolist()
    [0.0, 0.0]
    """
    zero = jnp.zeros_like(like)
    return Sum(zero, zero if jnp.finfo(zero.dtype).bits < 64 else None)


def plus(total: Sum, amount: Any) -> Sum:
    """`total` and one more term.

    Infinite terms and those that are no number do to the sum what they do to a plain one. The
    derivative is that of the plain sum: what is lost is a constant of it.

    >>> import jax, jax.numpy as jnp
    >>> from ppl.summation import nothing, plus
    >>> terms = jnp.full(100_000, 0.1, jnp.float32)
    >>> start = jnp.zeros((), jnp.float32)
    >>> add = lambda total, x: (plus(total, x), None)
    >>> plain = jax.lax.scan(lambda total, x: (total + x, None), start, terms)[0]
    >>> float(plain), float(jax.lax.scan(add, nothing(start), terms)[0].value)
    (9998.556640625, 10000.0)
    """
    if total.lost is None:
        return Sum(arithmetic.add(total.total, amount), None)
    term = arithmetic.add(total.lost, amount)
    new = arithmetic.add(total.total, term)
    was, all_of_it, now = (lax.stop_gradient(x) for x in (total.total, term, new))
    lost = all_of_it - (now - was)
    return Sum(new, jnp.where(lost == lost, lost, 0))  # infinity less infinity is no number


def total(terms: jax.Array) -> jax.Array:
    """The sum over the first axis, as exact as `plus` makes it: in 32 bits what each addition of
    two halves has lost is added up, too.

    >>> import jax.numpy as jnp
    >>> from ppl.summation import total
    >>> float(total(jnp.full(100_000, 0.1, jnp.float32)))
    10000.0
    """
    if jnp.finfo(terms.dtype).bits == 64 or len(terms) < 2:
        return terms.sum(0)
    lost = jnp.zeros_like(terms)
    while len(terms) > 1:
        if len(terms) % 2:
            terms, lost = (jnp.concatenate([x, jnp.zeros_like(x[:1])]) for x in (terms, lost))
        half = len(terms) // 2
        a, b = terms[:half], terms[half:]
        terms = a + b
        x, y, z = (lax.stop_gradient(each) for each in (a, b, terms))
        back = z - x
        off = (x - (z - back)) + (y - back)
        lost = lost[:half] + lost[half:] + jnp.where(off == off, off, 0)
    return terms[0] + lost[0]
