"""A picture of a fit, as a matplotlib figure: `figure.savefig("fit.png")`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl import errors

from ..validation.packages import extra
from .fitted import Fitted


def plot_fit(found: Fitted) -> Any:
    """The objective's estimates step by step, and their mean over stretches of a fiftieth.

    The second panel shows the last half alone, where what is left to gain is seen. The fitted
    guide itself is shown by `plot_posterior(found.draws(key))`.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: what is given is no fit.

    >>> import jax, numpyro.distributions as dist
    >>> from inference import elbo, fit, plot_fit
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda: sample("mu", dist.Normal(0.0, 1.0)))
    >>> guide = gen(lambda m: sample("mu", dist.Normal(m, 1.0)))
    >>> figure = plot_fit(fit(jax.random.key(0), elbo(Target(model), guide), 1.0, steps=100))
    >>> [ax.get_title() for ax in figure.axes]
    ['elbo, 100 steps', 'the last half']
    """
    if not isinstance(found, Fitted):
        raise errors.InvalidArgument(
            "A fit was expected.", where=errors.caller(), given=f"a {type(found).__name__}",
            expected="what `fit` gives", fix="plot_fit(fit(key, objective, parameters))",
        )  # fmt: skip
    matplotlib = extra("matplotlib.figure", "plots", "Plotting")
    figure = matplotlib.Figure(figsize=(7, 4), layout="constrained")
    values = found.values
    steps = np.arange(len(values))
    name = getattr(found.objective, "name", "objective")
    half = len(values) // 2
    titles = f"{name}, {len(values)} steps", "the last half"
    for ax, start, title in zip(figure.subplots(2, 1), (0, half), titles, strict=True):
        shown = values[start:]
        ax.plot(steps[start:], shown, lw=0.3, alpha=0.5)
        width = max(1, len(shown) // 50)
        whole = len(shown) // width * width
        ax.plot(
            steps[start : start + whole].reshape(-1, width).mean(1),
            shown[:whole].reshape(-1, width).mean(1),
            color="k",
            lw=1,
        )
        if len(shown):
            low, high = np.quantile(shown, [0.02, 0.98])  # first steps would hide all others
            margin = 0.1 * (high - low) + 1e-12
            ax.set_ylim(low - margin, high + margin)
        ax.set_title(title, fontsize=9)
    figure.axes[-1].set_xlabel("step")
    return figure
