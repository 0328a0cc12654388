"""Pictures of draws, as matplotlib figures: `figure.savefig("draws.png")`.

The figures are matplotlib's own `Figure`, outside of pyplot: no global state, no window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppl import Masked, Target, errors
from ppl.addresses import flatten
from ppl.masks import leading

from ..validation.objects import check_target
from ..validation.packages import extra
from ..validation.settings import check_number, shown
from .draws import Draws, check_draws, check_some
from .particles import Particles
from .predictive import observed_of
from .summary import quantile_names
from .weighted_errors import quantiles

_SHOWN = 12
_REPLICATES = 50


def plot_trace(draws: Draws, names: Sequence[str] | None = None) -> Any:
    """A row per scalar: its draws in order, and the histogram of their ranks, by chain.

    Ranks are among the draws of all chains together: where the chains agree, each
    histogram is flat (Vehtari et al. 2021, section 4.4). Divergent transitions are ticks
    below the trace.

    Args:
      names: scalars, as in `draws.scalars()`; the first 12 by default.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      AddressNotFound: a name is that of no scalar.
      InvalidArgument: there are no draws.

    >>> import numpy as np
    >>> from inference import Draws
    >>> from inference.results.plots import plot_trace
    >>> x = np.random.default_rng(0).normal(size=(4, 100))
    >>> figure = plot_trace(Draws({"mu": x, "tau": abs(x)}))
    >>> [ax.get_title() for ax in figure.axes]
    ['mu', 'ranks of mu', 'tau', 'ranks of tau']
    """
    check_draws(draws)
    chosen, note = _chosen(draws, names)
    figure, axes = _grid(len(chosen), 2, note, width=8, height=1.8)
    stats = draws.statistic("diverging")
    diverged = (
        np.logical_or.reduce([np.asarray(x, bool) for x in stats.values()]) if stats else None
    )
    for (name, x), (left, right) in zip(chosen.items(), axes, strict=True):
        for chain in x:
            left.plot(chain, lw=0.4, alpha=0.8)
        if diverged is not None and diverged.any():
            at = np.flatnonzero(diverged.any(0))
            left.plot(at, np.full(at.size, x.min()), "k|", ms=6, label="diverging")
        left.set_title(name, fontsize=9)
        bins = np.linspace(0.5, x.size + 0.5, min(20, x.shape[1]) + 1)
        for ranks in _ranks(x):
            right.hist(ranks, bins=bins, histtype="step")
        expected = x.shape[1] / (len(bins) - 1)
        right.axhline(expected, color="k", lw=0.6, ls="--")
        right.set_ylim(0, None)
        right.set_title(f"ranks of {name}", fontsize=9)
    return figure


def plot_posterior(
    draws: Draws | Particles, names: Sequence[str] | None = None, *, prob: float = 0.9
) -> Any:
    """A histogram per scalar (bars at integers), its mean, and its equal-tailed interval.

    Particles count by their weights.

    Args:
      names: scalars, as in `draws.scalars()`; the first 12 by default.
      prob: the probability of the interval.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      AddressNotFound: a name is that of no scalar.
      InvalidArgument: `prob` is not between 0 and 1, or there are no draws.

    >>> import numpy as np
    >>> from inference import Draws
    >>> from inference.results.plots import plot_posterior
    >>> figure = plot_posterior(Draws({"n": np.array([[1, 2, 2, 3]])}), prob=0.5)
    >>> figure.axes[0].get_title()
    'n: 2 [1.75, 2.25]'
    """
    given = draws.weights.ravel() if isinstance(draws, Particles) else None
    draws = draws.plain if isinstance(draws, Particles) else draws
    check_draws(draws)
    check_number("prob", prob, above=0, below=1, fix=0.9)
    chosen, note = _chosen(draws, names)
    columns = max(1, min(4, len(chosen)))
    low, high = quantile_names(prob)
    note = f"mean [{low}, {high}]" + (f"; {note}" if note else "")
    rows = math.ceil(len(chosen) / columns)
    figure, axes = _grid(rows, columns, note, width=2.4 * columns, height=2)
    for (name, x), ax in zip(chosen.items(), axes.ravel(), strict=False):
        finite = np.isfinite(np.ravel(x))
        values = np.ravel(x)[finite]
        weights = np.ones(values.size) if given is None else given[finite]
        missing = f", {x.size - values.size} not finite" if values.size < x.size else ""
        ax.set_yticks([])
        if not values.size or not weights.sum() > 0:  # nor not-a-number
            ax.set_title(name + missing, fontsize=9)
            continue
        if np.issubdtype(values.dtype, np.inexact):
            some = weights > 0
            ax.hist(
                values[some], bins=40, density=True, weights=weights[some],
                histtype="stepfilled", alpha=0.5,
            )  # fmt: skip
        else:
            at, which = np.unique(values.astype(int), return_inverse=True)
            counts = np.bincount(which.ravel(), weights)
            ax.bar(at, counts / weights.sum(), width=0.9, alpha=0.5)
        values = values.astype(np.float64)
        tails = (1 - prob) / 2, (1 + prob) / 2
        if given is None:
            ends, mean = np.quantile(values, tails), values.mean()
        else:
            mean = np.average(values, weights=weights)
            ends = quantiles(values, weights, tails)[:, 0]
        ax.axvline(mean, color="k", lw=0.8)
        ax.hlines(0, *ends, color="k", lw=3)
        title = f"{name}: {mean:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]{missing}"
        ax.set_title(title, fontsize=9)
    for ax in axes.ravel()[len(chosen) :]:
        ax.set_axis_off()
    return figure


def plot_predictive(predictive: Mapping[str, Any], target: Target) -> Any:
    """The distribution function of the data, over those of replicated data sets.

    A panel per observed address: the fraction of its elements below each value, for the
    data (thick) and for 50 of the replicates, evenly spaced among the draws. Elements
    that a mask leaves out are left out of both.

    Args:
      predictive: what `posterior_predictive` (or `prior_predictive`) gives.
      target: the target, which holds the data.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: nothing is observed, or an observed address is not predicted.
      ShapeError: what is predicted has another shape than the data.

    >>> import jax.numpy as jnp, numpy as np, numpyro.distributions as dist
    >>> from inference.results.plots import plot_predictive
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda: sample("y", dist.Normal(0.0, 1.0).expand([3])))
    >>> target = Target(model, (), {"y": jnp.array([3.0, 1.0, 2.0])})
    >>> figure = plot_predictive({"y": np.zeros((1, 20, 3))}, target)
    >>> data = figure.axes[0].lines[-1]
    >>> data.get_label(), data.get_xdata().tolist()
    ('data', [1.0, 2.0, 3.0])
    """
    check_target(target)
    observed = observed_of(target)
    found = flatten(predictive)
    for path in observed:
        if path not in found:
            raise errors.InvalidArgument(
                f"There are no predictions of {errors.show(path)}, which is observed.",
                where=errors.caller(),
                given="predictions of " + "; ".join(errors.show(p) for p in found),
                expected="predictions of all observed choices",
                fix="plot_predictive(posterior_predictive(key, draws), target)",
            )
        if found[path].shape[2:] != target.sites[path].shape:
            raise errors.ShapeError(
                f"The predictions of {errors.show(path)} are not of the shape of the data.",
                where=errors.caller(),
                given=f"elements of shape {found[path].shape[2:]}",
                expected=f"{target.sites[path].shape}",
                fix="predict with the arguments of the target to compare with its data",
            )
    figure, axes = _grid(1, len(observed), "", width=3.5 * len(observed), height=3)
    for path, ax in zip(observed, axes.ravel(), strict=True):
        data, keep = _data(target, path)
        (chains, draws), rest = found[path].shape[:2], found[path].shape[2:]
        drawn = found[path].reshape(chains * draws, *rest)
        at = np.unique(np.linspace(0, len(drawn) - 1, _REPLICATES).astype(int))
        for replicate in drawn[at]:
            ax.step(*_fractions(replicate[keep]), where="post", color="C0", lw=0.4, alpha=0.5)
        ax.step(*_fractions(data[keep]), where="post", color="k", lw=1.5, label="data")
        ax.set_title("/".join(path), fontsize=9)
        ax.legend(frameon=False, fontsize=8)
    return figure


def _data(target: Target, path: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The observed array, and which of its entries are observed."""
    value = target.observed[path]
    if not isinstance(value, Masked):
        return np.asarray(value), np.ones(np.shape(value), bool)
    data, mask = np.asarray(value.value), np.asarray(value.mask)
    return data, np.broadcast_to(leading(mask, data.ndim), data.shape)


def _fractions(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted values, and the fraction of them up to each."""
    return np.sort(values), np.arange(1, values.size + 1) / values.size


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks among all chains, from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].reshape(x.shape)


def _chosen(draws: Draws, names: Sequence[str] | None) -> tuple[dict[str, np.ndarray], str]:
    """The scalars to show, and what to say if they are not all."""
    check_some(draws)
    scalars = draws.scalars()
    if names is not None and not (
        isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    ):
        raise errors.InvalidArgument(
            "The names of scalars are a list of strings.", where=errors.caller(),
            given=shown(names), expected="names as in draws.scalars()", fix='names=["mu"]',
        )  # fmt: skip
    if names is None:
        some = dict(list(scalars.items())[:_SHOWN])
        more = len(scalars) - len(some)
        return some, f"{len(some)} of {len(scalars)} scalars; names=[...] chooses" if more else ""
    for name in names:
        if name not in scalars:
            guess = errors.near(name, scalars)
            raise errors.AddressNotFound(
                f'The draws have no scalar "{name}".',
                where=errors.caller(),
                given=f'"{name}"',
                expected="one of: " + "; ".join(scalars),
                fix=f'did you mean "{guess}"?' if guess else "elements count from 1: theta[1]",
            )
    return {name: scalars[name] for name in names}, ""


def _grid(rows: int, columns: int, note: str, width: float, height: float) -> tuple[Any, Any]:
    """A figure with a grid of axes, and a note above it."""
    matplotlib = extra("matplotlib.figure", "plots", "Plotting")
    size = (width, max(1, rows) * height + (0.4 if note else 0))
    figure = matplotlib.Figure(figsize=size, layout="constrained")
    if note:
        figure.suptitle(note, fontsize=9)
    return figure, figure.subplots(max(1, rows), columns, squeeze=False)[:rows]
