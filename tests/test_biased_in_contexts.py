"""Biased strategies are refused in every construct, unless they are asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from test_expectation import CONTEXTS

from ppl import expectation, gumbel_softmax, seed, straight_through
from ppl.errors import BiasedStrategy, NoStrategy

HOW = {"straight through": straight_through(), "gumbel softmax": gumbel_softmax(0.5)}
NEEDS_WHOLE_NUMBERS = {"straight", "branch", "read_by_rows", "two_read_by_rows"}
"""Programs that compare the value, through which no derivative passes."""


@pytest.mark.parametrize("name", HOW)
@pytest.mark.parametrize("context", CONTEXTS, ids=lambda f: f.__name__)
def test_a_biased_strategy_is_refused_where_it_was_not_asked_for(context, name):
    program = partial(context, HOW[name])
    run = partial(seed(expectation(program)), jax.random.key(0))
    with pytest.raises(BiasedStrategy, match="biased") as caught:
        jax.eval_shape(run, jnp.asarray(0.3))
    assert "test_expectation.py" in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("name", HOW)
@pytest.mark.parametrize("context", CONTEXTS, ids=lambda f: f.__name__)
def test_asked_for_it_runs_or_says_what_it_cannot_pass(context, name):
    """A derivative, whose shape is the parameter's; or an error that names the comparison."""
    run = expectation(partial(context, HOW[name]), allow_biased=True)
    slope = partial(seed(jax.grad(run)), jax.random.key(0))
    try:
        found = jax.eval_shape(slope, jnp.asarray(0.3))
    except NoStrategy as error:
        assert context.__name__ in NEEDS_WHOLE_NUMBERS and "whole number" in str(error)
    else:
        assert found.shape == () and context.__name__ not in NEEDS_WHOLE_NUMBERS
