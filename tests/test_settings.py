"""Settings out of range are refused where they are given: every setting of every function.

The cases come from signatures: each parameter of a public function of `inference` that is a
number or a flag, with each value that a number of its kind cannot have. A new setting without a
check fails here.
"""

import inspect
import re

import numpy as np
import pytest

import inference
from ppl import errors
from tests.calls import CALLS

NO_NUMBERS = {"text": "a", "array": np.array([1.0, 2.0]), "complex": 1j, "object": object()}
NO_FLOATS = {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "flag": True, **NO_NUMBERS}
WRONG = {
    "int": {"negative": -1, "float": 2.5, "whole float": 2.0, **NO_FLOATS},
    "float": {"negative": -1.0, "large": 10**400, **NO_FLOATS},
    "bool": {"number": 2, "none": None, "nan": np.nan, **NO_NUMBERS},
}
"""Values that are wrong wherever a setting is of this kind."""

ZERO_TOO = {
    "int": {
        "n", "k", "m", "members", "inner", "batch", "chains", "draws", "thin", "batch_size",
        "steps", "max_depth", "most", "max_stages", "max_iterations", "total", "size", "powers",
    },
    "float": {"step_size", "target_accept", "width", "scale", "fraction", "prob"},
}  # fmt: skip
"""Settings that zero is out of the range of."""

FINE = {
    ("correlated", "correlation", "negative"),  # from -1 on
    ("when_ess_below", "fraction", "zero"),
    ("iterate", "n", "zero"),
    ("split_merge", "least", "zero"),
    ("smc2", "moves", "array"),  # whole numbers
    # what is in a list of powers is looked at with its neighbours
    *((name, "powers", "array") for name in ("annealed", "by_annealing", "reverse_annealed")),
}
"""What is in range after all, or is refused elsewhere."""

NUMBERS_TOO = {"powers", "step_size", "correlation", "initial", "power", "weights", "moves"}
"""Settings of another annotation that are numbers, too."""


def kinds(annotation):
    """Of which kinds a setting may be, and whether it may be left out as None."""
    parts = set(re.findall(r"\b(int|float|bool)\b", str(annotation).split("Callable")[0]))
    return parts, "None" in str(annotation)


def settings():
    for name, call in CALLS.items():
        for parameter in inspect.signature(call.function).parameters.values():
            of, optional = kinds(parameter.annotation)
            if parameter.name == "step_size" and not of:
                of = {"float"}  # a schedule
            if of and parameter.name in call.arguments():
                yield name, parameter.name, sorted(of), optional


SETTINGS = list(settings())


def values(of, optional, parameter):
    """Wrong values for a setting that may be of several kinds: those that none may have."""
    sets = [WRONG[kind] for kind in of]
    found = {k: v for k, v in sets[0].items() if all(k in other for other in sets)}
    if optional:
        found.pop("none", None)
    else:
        found["none"] = None
    if any(parameter in ZERO_TOO.get(kind, ()) for kind in of):
        found["zero"] = 0 if "int" in of else 0.0
    return found


CASES = [
    (name, parameter, what, value)
    for name, parameter, of, optional in SETTINGS
    for what, value in values(of, optional, parameter).items()
    if (name, parameter, what) not in FINE
]


@pytest.mark.parametrize("name", sorted({name for name, *_ in CASES}))
def test_every_setting_out_of_range_is_refused(name):
    survived = []
    for function, parameter, what, value in CASES:
        if function != name:
            continue
        call = CALLS[name]
        try:
            call.run({**call.arguments(), parameter: value})
        except errors.PPLError as error:
            assert len(str(error).splitlines()) <= 12
            assert error.given is not None and error.expected and error.fix, (parameter, what)
        except Exception as error:
            survived.append((parameter, what, f"{type(error).__name__}: {error}"[:80]))
        else:
            survived.append((parameter, what, "accepted"))
    assert not survived


def test_every_function_with_a_setting_is_swept():
    """A public function is in the table, or takes no number, flag or choice."""
    for name in inference.__all__:
        made = getattr(inference, name)
        if name in CALLS or not callable(made):
            continue
        for parameter in inspect.signature(made).parameters.values():
            assert inspect.isclass(made) or not kinds(parameter.annotation)[0], (name, parameter)
    for name, call in CALLS.items():
        signature = inspect.signature(call.function).parameters
        told = {p for p in signature if kinds(signature[p].annotation)[0]}
        assert told <= {*call.arguments()}, name
