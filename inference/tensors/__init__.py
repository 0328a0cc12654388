"""Functional tensors: tables whose modes are continuous or categorical, by Gaussian processes.

An entry is a product of functions of its coordinates, summed over components (`cp`) or with a
core (`tucker`), and noise. The models are generative functions, for any inference;
`message_passing` is theirs, in time linear in the entries and coordinates. It may use `ppl`, the
algebra, `validation`, and of the rooms `gaussian`, `running`, `results` and `targets`.

>>> import jax, jax.numpy as jnp
>>> from inference import gaussian, tensors
>>> from ppl import Target
>>> x = jnp.linspace(0.0, 1.0, 20)
>>> rows = tensors.entries({"x": x, "z": x[::-1]})
>>> model = tensors.cp(1, {"x": gaussian.Matern32(0.5), "z": gaussian.Matern32(0.5)})
>>> target = Target(model, (rows,), {"y": jnp.sin(3 * x) * x[::-1]})
>>> found = tensors.message_passing(jax.random.key(0), target, sweeps=30)
>>> found.predict(tensors.entries({"x": [0.5], "z": [0.5]})).mean.shape
(1,)
"""

from .entries import Entries, entries
from .factorization import Factorization
from .model import cp, tucker
from .noise import Likelihood, NormalNoise, StudentTNoise
from .passing import message_passing
from .plots import plot_functions, plot_predictions
from .predicted import Predicted
from .stream import more_entries, revisit

__all__ = [
    "Entries",
    "Factorization",
    "Likelihood",
    "NormalNoise",
    "Predicted",
    "StudentTNoise",
    "cp",
    "entries",
    "message_passing",
    "more_entries",
    "plot_functions",
    "plot_predictions",
    "revisit",
    "tucker",
]
