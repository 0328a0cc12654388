"""Things in each other's place are told in our words: every argument, by every kind of object.

Each argument of the valid call of each public function is replaced by each object of a zoo. It
ends in an error of ours, or in a result where that object may stand there (`FINE`, and functions
where functions are due). What a user's own function raises is its own.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest

from inference import (
    annealed,
    mh,
    normalize,
    nuts,
    run_particles,
    sample_posterior,
    start,
    then,
    translate,
    unit,
    when_ess_below,
)
from ppl import errors, seed
from semantics import check_generative_function
from tests.calls import CALLS, KEY, LINE, draws, line


class Other:
    """A class, of no kind that is due anywhere."""


ZOO = {
    "target": lambda: LINE,
    "model": lambda: line,
    "kernel": lambda: mh(LINE, "slope"),
    "uncalled": lambda: nuts,
    "trace": lambda: seed(LINE.generate)(KEY)[0],
    "draws": draws,
    "keys": lambda: jax.random.split(KEY),
    "array": lambda: jnp.ones(2),
    "numpy": lambda: np.ones((2, 2)),
    "dict": lambda: {"a": 1.0},
    "list": lambda: [1.0, "a"],
    "str": lambda: "nothing",
    "int": lambda: -3,
    "float": lambda: 2.5,
    "none": lambda: None,
    "lambda": lambda: lambda: None,
    "class": lambda: Other,
    "frame": lambda: pandas.DataFrame({"a": [1.0]}),
    "object": object,
}
ANYTHING = {*ZOO}
FUNCTIONS = {"kernel", "uncalled", "lambda", "class"}

FINE = {
    # `x` is given to the model as it is
    ("advance", "x"): ANYTHING,
    ("rao_blackwell", "x"): ANYTHING,
    ("advance", "observed"): {"dict", "none"},
    **{(name, "init"): {"int", "float"} for name in ("particle_filter", "conditional_filter")},
    ("rao_blackwell", "init"): {"array", "numpy", "int", "float"},
    **{(name, "powers"): {"array"} for name in ("annealed", "reverse_annealed", "by_annealing")},
    # data, or another sampler
    **{
        (name, "second"): {"array", "numpy", "model", "kernel", "uncalled", "lambda"}
        for name in ("mmd", "energy_distance")
    },
    ("vsmc", "init"): ANYTHING,  # a state, or a function that makes one
    ("minibatch", "local"): {"str", "none"},
    ("fit", "tolerance"): {"float", "none"},
    ("fit", "checkpoint"): {"str", "none"},
    ("smc2", "moves"): {"array", "none"},  # a move after one observation, twice
    ("mixture", "weights"): {"array", "none"},  # that do not add up: the first draw says so
    ("accept", "log_ratio"): {"int", "float"},
    ("accept", "old"): {"trace"},
    ("accept", "new"): {"trace"},
    ("effective_sample_size", "log_weights"): {"array", "numpy"},
    ("log_evidence_error", "found"): {"array"},
    **{(name, "weights"): {"array"} for name in ("systematic", "stratified", "residual", "ssp")},
    ("metropolize", "name"): {"str"},
    ("mhg", "name"): {"str"},
    ("Draws", "status"): {"str"},
    ("sample_posterior", "checkpoint"): {"str", "none"},
    ("sample_posteriors", "checkpoint"): {"str", "none"},
    ("run_particles", "checkpoint"): {"str", "none"},
    # arrays of as many rows, as it happens
    **{(name, "data"): {"target", "keys", "array", "numpy"} for name in ("over", "recorded")},
    **{
        (name, "parameters"): {"model", "keys", "array", "numpy", "none"}
        for name in ("annealed", "reverse_annealed")
    },
}
"""What may stand where, beside what a valid call has."""

PARAMETERS = {
    (name, "init", what)
    for name in ("particle_filter", "conditional_filter")
    for what in ("target", "model", "trace", "dict", "none")
}
"""Where the model makes a distribution of what it is given."""


def allowed(name, parameter, valid, what):
    """Whether an object may stand for this argument."""
    annotation = str(inspect.signature(CALLS[name].function).parameters[parameter].annotation)
    if (name, parameter) in FINE:
        return what in FINE[name, parameter]
    if what == "none":
        return "None" in annotation or "Any" in annotation
    if callable(valid) and what in FUNCTIONS:
        return True
    if what == "draws" and "Draws" in annotation:
        return True
    if what == "target" and "Target" in annotation:
        return True
    if what == "model" and ("GenerativeFunction" in annotation or "Proposal" in annotation):
        return True
    if isinstance(valid, str) and what == "str":
        return True
    if what in FUNCTIONS and ("Callable" in annotation or "Map" in annotation):
        return True
    if what in {"target", "model"} and parameter in {"observations", "xs"}:
        return True  # a pytree of the same rows, as it happens
    return isinstance(valid, float) and what == "float"


ARITY = re.compile(r"positional argument|required|unexpected keyword|takes no arguments")


def of_the_user(error):
    """Whether a user's own function raised it, or was called with arguments it does not take."""
    if isinstance(error, TypeError) and ARITY.search(str(error)):
        return True
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    ours = [f for f in frames if re.search(r"/(ppl|inference|semantics|tests)/", f.co_filename)]
    return ours[-1].co_filename.endswith("calls.py") and ours[-1].co_name not in ("run", "<lambda>")


def wrong(name, parameter, objects):
    """What came of objects in the place of an argument that is neither an error nor allowed."""
    call = CALLS[name]
    arguments = call.arguments()
    valid = arguments[parameter]
    several = inspect.signature(call.function).parameters[parameter].kind.name == "VAR_POSITIONAL"
    found = []
    for what in objects:
        value = ZOO[what]()
        try:
            call.run({**arguments, parameter: (value,) if several else value})
        except errors.PPLError as error:
            if len(str(error).splitlines()) > 12 or not error.fix:
                found.append((what, str(error)))
        except Exception as error:
            if not of_the_user(error) and (name, parameter, what) not in PARAMETERS:
                found.append((what, f"{type(error).__name__}: {error}"[:120]))
        else:
            if not allowed(name, parameter, valid[0] if several else valid, what):
                found.append((what, "accepted"))
    return found


PLACES = [(name, p) for name, call in CALLS.items() for p in call.arguments()]
LIGHT = [place for place in PLACES if not CALLS[place[0]].heavy]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({name for name, _ in LIGHT}))
def test_some_wrong_objects_are_told(name):
    """A diagonal of the whole table: three objects an argument."""
    names = [*ZOO]
    for i, (function, parameter) in enumerate(LIGHT):
        if function == name:
            some = [names[(i + k) % len(names)] for k in (0, 7, 13)]
            assert not wrong(name, parameter, some), parameter


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_every_wrong_object_is_told(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a string is the path of a checkpoint
    found = {p: wrong(name, p, ZOO) for function, p in PLACES if function == name}
    assert not {p: each for p, each in found.items() if each}


def nothing_done(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    return file


SWAPPED = {
    "target and kernel": lambda _: sample_posterior(KEY, mh(LINE, "slope"), LINE),
    "a model for a target": lambda _: sample_posterior(KEY, line, mh(LINE, "slope")),
    "uncalled": lambda _: sample_posterior(KEY, LINE, nuts),
    "a mesh that is a number": lambda _: sample_posterior(KEY, LINE, mh(LINE, "slope"), mesh=4),
    "a checkpoint that is a file": lambda path: sample_posterior(
        KEY, LINE, mh(LINE, "slope"), checkpoint=nothing_done(path)
    ),
    "of particles": lambda path: run_particles(KEY, lambda: None, checkpoint=nothing_done(path)),
    "no program": lambda _: run_particles(KEY, 5),
    "nuts of a kernel": lambda _: nuts(mh(LINE, "slope")),
    "draws and key": lambda _: CALLS["posterior_predictive"].run({"key": draws(), "draws": KEY}),
    "arguments in a tuple": lambda _: check_generative_function(line, ()),
    "a kernel for a factory": lambda _: annealed(LINE, 20, mh(LINE, "slope")),
    "a model annealed": lambda _: annealed(line, 20, lambda t: mh(t, "slope")),
    "a number for an algorithm": lambda _: normalize(LINE, 3),
    "a threshold of letters": lambda _: when_ess_below("a"),
    "a map that gives no pair": lambda _: seed(
        then(start(LINE), translate(LINE, LINE, None, None, lambda x, u: x))
    )(KEY, unit()),
}


@pytest.mark.parametrize("name", SWAPPED)
def test_things_in_each_others_place(name, tmp_path):
    with pytest.raises(errors.PPLError) as found:
        SWAPPED[name](tmp_path)
    assert len(str(found.value).splitlines()) <= 12 and found.value.fix
