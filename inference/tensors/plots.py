"""Pictures of a factorization, as matplotlib figures: `figure.savefig("functions.png")`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl import errors

from ..validation.packages import extra
from ..validation.settings import check_number, shown
from .entries import Entries
from .factorization import Factorization

GRID = 200
"""Places on a line at which a function is drawn, beside its coordinates."""


def plot_functions(found: Factorization, *, mass: float = 0.9) -> Any:
    """The functions of all modes, each with the band that holds it with probability `mass`.

    A row for each mode, a column for each of its functions; the last is the main effect, if the
    model has effects. Categories are points with bars.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: what is given is no factorization, or `mass` is not between 0 and 1.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing, plot_functions
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 10)
    >>> target = Target(cp(1, {"x": Matern32(0.5)}), (entries({"x": x}),), {"y": x**2})
    >>> figure = plot_functions(message_passing(jax.random.key(0), target, sweeps=20))
    >>> [ax.get_title() for ax in figure.axes]
    ['x 1']
    """
    _check(found)
    check_number("mass", mass, above=0, below=1, fix=0.9)
    figures = extra("matplotlib.figure", "plots", "Plotting")
    normal = extra("scipy.stats", "plots", "Plotting").norm
    tensor, wide = found.tensor, normal.ppf((1 + mass) / 2)
    widths = [rank + tensor.effects for rank in tensor.ranks]
    figure = figures.Figure(figsize=(2.6 * max(widths), 1.8 * len(widths)), layout="constrained")
    grid = figure.add_gridspec(len(widths), max(widths))
    for k, (name, width) in enumerate(zip(tensor.names, widths, strict=True)):
        categories = type(tensor.kernels[k]).__name__ == "Exchangeable"
        own = np.asarray(found.rows.coordinates[k])
        at = own if categories else np.union1d(own, np.linspace(own[0], own[-1], GRID))
        mean, sd = (np.asarray(x) for x in found.functions(name, at))
        for r in range(width):
            ax = figure.add_subplot(grid[k, r])
            effect = tensor.effects and r == width - 1
            ax.set_title(f"{name}, main effect" if effect else f"{name} {r + 1}", fontsize=9)
            if categories:
                ax.errorbar(at, mean[r], wide * sd[r], fmt="o", ms=3, lw=1)
            else:
                low, high = mean[r] - wide * sd[r], mean[r] + wide * sd[r]
                ax.fill_between(at, low, high, alpha=0.3, lw=0)
                ax.plot(at, mean[r], lw=0.8)
            ax.tick_params(labelsize=7)
    return figure


def plot_predictions(found: Factorization, rows: Entries, y: Any, *, mass: float = 0.9) -> Any:
    """Entries that were held out, against what is predicted of them, with bars of `mass`.

    The second panel is calibration: of how many entries an interval holds the value, against
    the probability it is made for.

    Args:
      rows, y: the entries, and what they were.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: what is given is no factorization, rows are no entries of its modes, y
        does not fit them, or the noise has no distribution function.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing, plot_predictions
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 10)
    >>> rows = entries({"x": x})
    >>> target = Target(cp(1, {"x": Matern32(0.5)}), (rows,), {"y": x**2})
    >>> found = message_passing(jax.random.key(0), target, sweeps=20)
    >>> [ax.get_xlabel() for ax in plot_predictions(found, rows, x**2).axes]
    ['predicted', 'probability']
    """
    _check(found)
    check_number("mass", mass, above=0, below=1, fix=0.9)
    y = np.asarray(y)
    if y.shape != (rows.count,):
        raise errors.InvalidArgument(
            "There is not one number for each entry.", where=errors.caller(), given=shown(y),
            expected=f"shape ({rows.count},)", fix="y of these rows",
        )  # fmt: skip
    figures = extra("matplotlib.figure", "plots", "Plotting")
    predicted = found.predict(rows)
    middle = np.asarray(predicted.quantile(0.5))
    low, high = (np.asarray(x) for x in predicted.interval(mass))
    figure = figures.Figure(figsize=(7, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    some = np.linspace(0, len(y) - 1, min(len(y), 500)).astype(int)
    bars = np.stack([middle - low, high - middle])[:, some]
    left.errorbar(middle[some], y[some], xerr=bars, fmt=".", ms=3, lw=0.3, alpha=0.6)
    ends = [min(middle.min(), y.min()), max(middle.max(), y.max())]
    left.plot(ends, ends, color="k", lw=0.8)
    left.set_xlabel("predicted")
    left.set_ylabel("observed")
    place = np.asarray(predicted.cdf(y))
    masses = np.linspace(0.0, 1.0, 51)
    share = [(np.abs(2 * place - 1) <= m).mean() for m in masses]
    right.plot(masses, share)
    right.plot([0, 1], [0, 1], color="k", lw=0.8)
    right.set_xlabel("probability")
    right.set_ylabel("share within")
    return figure


def _check(found: Any) -> None:
    if not isinstance(found, Factorization):
        raise errors.InvalidArgument(
            "A factorization was expected.", where=errors.caller(), given=shown(found),
            expected="what `message_passing` gives",
            fix="plot_functions(message_passing(key, target))",
        )  # fmt: skip
