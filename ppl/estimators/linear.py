"""Operations that are linear in their random operands, so that expectations pass through.

What multiplies the score of a choice is the part of the result that depends on it. A result
is a sum of terms; through additions, and all else that is linear, it is followed back to the
terms, and each gets the scores of its own choices only.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from .nodes import Operation

_SUMS = "add add_any neg sub reduce_sum cumsum"
_MOVES = "broadcast_in_dim reshape transpose squeeze slice pad rev tile real copy row"
_PARTS = "concatenate split stack unstack rows"
_LINEAR = frozenset(f"{_SUMS} {_MOVES} {_PARTS}".split())
_FIRST = frozenset({"div", "gather", "dynamic_slice"})
"""Linear in the first operand where no other is random."""
_BILINEAR = frozenset({"mul", "dot_general", "conv_general_dilated"})


def is_linear(node: Operation, random: Sequence[bool], dtypes: Sequence) -> bool:
    """Whether a result is a linear function of the operands that are `random`.

    `dtypes` are those of the operands, then of the result.
    """
    if node.name in _LINEAR:
        return True
    if node.name in _FIRST:
        return not any(random[1:])
    if node.name in _BILINEAR:
        return sum(random) == 1
    if node.name == "select_n":
        return not random[0]
    if node.name in ("scatter-add", "scatter_add"):
        return not random[1]
    if node.name == "dynamic_update_slice":
        return not any(random[2:])
    if node.name == "convert_element_type":
        return all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
    return False
