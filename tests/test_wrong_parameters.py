"""Whatever numpyro's distributions raise comes out as our error, with the address and line."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from ppl import errors, gen, sample, seed
from tests.numpyro_distributions import NORMAL, VALID, WRAPPERS, public

KEY = jax.random.key(0)
WRONG = {
    "a shape that fits nothing": lambda v: np.ones((7, *np.shape(v), 5)),
    "a string": lambda v: "one",
    "None": lambda v: None,
    "a distribution": lambda v: NORMAL,
    "negative": lambda v: -1.0 - np.abs(v),
    "NaN": lambda v: np.full(np.shape(v), np.nan),
    "a list": lambda v: [0.5, "x"],
    "complex": lambda v: np.asarray(v) + 1j,
    "an object": lambda v: object(),
}


def test_the_registry_has_all_distributions():
    assert public() == set(VALID) | WRAPPERS


def outcome(name, parameters):
    """The error of a model with this choice, None for a trace; the law is not compiled."""
    model = gen(lambda: sample("y", getattr(dist, name)(**parameters)))
    try:
        jax.eval_shape(seed(model.simulate), KEY)
    except errors.PPLError as error:
        return error
    return None


QUICK = ("Normal", "BinomialProbs", "MixtureSameFamily", "MultivariateNormal", "BetaProportion")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VALID],
)
def test_wrong_parameters_are_our_errors(name):
    """R5: every distribution of numpyro, each parameter in turn, wrong in every way."""
    valid, kind = VALID[name], getattr(dist, name)
    error = outcome(name, valid)
    assert error is None or isinstance(error, errors.CannotSimulate | errors.MissingPackage)
    wrong = []
    for parameter, value in valid.items():
        if not isinstance(value, (int, float, np.ndarray)):
            continue
        for how, spoil in WRONG.items():
            bad = spoil(value)
            try:
                error = outcome(name, {**valid, parameter: bad})
            except Exception as raw:
                wrong.append(f"{parameter}, {how}: raw {type(raw).__name__}: {raw}")
                continue
            if error is None:
                constraint = kind.arg_constraints.get(parameter)
                dependent = constraint is None or dist.constraints.is_dependent(constraint)
                allowed = how == "None" or (
                    how in ("negative", "a shape that fits nothing", "NaN")
                    and (dependent or bool(np.all(constraint(bad))))
                )
                if not allowed:
                    wrong.append(f"{parameter}, {how}: came in")
            elif "test_wrong_parameters.py" not in str(error) or len(str(error).split("\n")) > 12:
                wrong.append(f"{parameter}, {how}: {error}")
    assert not wrong, "\n".join(wrong)
