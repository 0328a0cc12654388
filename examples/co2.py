"""Carbon dioxide over Mauna Loa, and ten years of it foretold by a quasi-periodic process.

Run with `python -m examples.co2`; `--figure PATH` draws it. The monthly means of 1958 to 2001 are
a smooth trend, a season whose shape drifts slowly, weather, and noise. The sum of these processes
is a Gaussian process again, and a Markov one, so that its evidence and the slopes of it take one
pass over the months, of which five are missing. The hyperparameters, the length of the season
among them, are those of the largest evidence until 1991; the months after that are foretold.

The reference is the matrix of the covariances of all months, by formulas, and knows nothing of
states. Exits 0 only if evidence, means and standard deviations are those of the reference, the
season is found to be a year long, and the years that were held out are as the joint law of the
forecast says: their distance from its mean, and how many of them are inside of its 95 % band.

The model: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.3,
with a spline as the trend, so that it goes on as it last went.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.table import Table
from scipy import optimize, stats

from inference import gaussian

DATA = json.loads((Path(__file__).parent / "data" / "co2.json").read_text())["data"]
PPM = np.array([np.nan if x is None else x for x in DATA["ppm"]])
YEARS = (DATA["first"][1] - 0.5 + np.arange(len(PPM))) / 12  # since 1958, at mid-month
UNTIL = 1992 - DATA["first"][0]
BEFORE, AFTER = YEARS < UNTIL, YEARS >= UNTIL
KNOWN = ~np.isnan(PPM[BEFORE])

MEAN, LEVEL, SLOPE = 315.0, 30.0, 2.0  # in 1958: wide, and in ppm
START = {
    "drift": 0.4,  # of the growth of the trend: ppm a year, per root of a year
    "season": 2.5,  # ppm
    "period": 1.0,  # years, as are all times
    "decay": 50.0,  # how long a season keeps its shape
    "shape": 1.0,  # how far it is from a sine wave
    "weather": 0.4,  # ppm
    "spell": 1.0,  # how long weather lasts
    "noise": 0.2,  # ppm
}


def process(h, times, present=None) -> gaussian.GaussianProcess:
    """The law of the months' means."""
    trend = gaussian.IntegratedWiener(h["drift"], level=LEVEL, slope=SLOPE)
    shape = gaussian.Matern32(h["decay"], h["season"])
    season = gaussian.quasi_periodic(shape, h["period"], h["shape"], order=6)
    weather = gaussian.Matern12(h["spell"], h["weather"])
    kernel = trend + season + weather
    return gaussian.gp(kernel, times, mean=MEAN, noise=h["noise"] ** 2, present=present)


def log_evidence(h):
    return process(h, YEARS[BEFORE], KNOWN).log_prob(PPM[BEFORE])


def likeliest() -> dict[str, float]:
    """The hyperparameters of the largest evidence, found by quasi-Newton steps of their logs."""
    start, back = ravel_pytree(jax.tree.map(np.log, START))
    natural = lambda x: jax.tree.map(jnp.exp, back(x))  # noqa: E731
    both = jax.jit(jax.value_and_grad(lambda x: -log_evidence(natural(x))))
    found = optimize.minimize(both, start, jac=True, method="BFGS", options={"gtol": 1e-3})
    h = natural(found.x)
    return {name: float(h[name]) for name in START}


class Forecast(NamedTuple):
    """Of the months that were held out, with their noise; and the evidence of those before."""

    log_evidence: float
    mean: np.ndarray
    sd: np.ndarray


def foretold(h) -> Forecast:
    given = process(h, YEARS[BEFORE], KNOWN)
    law = gaussian.predict(given, PPM[BEFORE], YEARS[AFTER])
    run = jax.jit(lambda: (given.log_prob(PPM[BEFORE]), law.mean, law.variance))
    evidence, mean, variance = map(np.asarray, run())
    return Forecast(float(evidence), mean, np.sqrt(variance + h["noise"] ** 2))


# -- the reference -------------------------------------------------------------------------------


def covariance(h, s, t):
    """Of the processes together, at all pairs of times."""
    first, gap = np.minimum(s[:, None], t), np.abs(s[:, None] - t)
    trend = h["drift"] ** 2 * (first**3 / 3 + first**2 * gap / 2)
    trend += LEVEL**2 + SLOPE**2 * s[:, None] * t
    apart = np.sqrt(3) * gap / h["decay"]
    season = h["season"] ** 2 * (1 + apart) * np.exp(-apart)
    season *= np.exp(-h["shape"] * np.sin(np.pi * gap / h["period"]) ** 2)
    return trend + season + h["weather"] ** 2 * np.exp(-gap / h["spell"])


def dense(h) -> tuple[Forecast, np.ndarray]:
    """The same forecast by matrices, and the covariance of all its months."""
    old, new = YEARS[BEFORE][KNOWN], YEARS[AFTER]
    y = PPM[BEFORE][KNOWN] - MEAN
    noisy = lambda t: covariance(h, t, t) + h["noise"] ** 2 * np.eye(len(t))  # noqa: E731
    evidence = stats.multivariate_normal.logpdf(y, np.zeros(len(y)), noisy(old))
    explained = np.linalg.solve(noisy(old), covariance(h, old, new)).T
    left = noisy(new) - explained @ covariance(h, old, new)
    return Forecast(evidence, MEAN + explained @ y, np.sqrt(np.diag(left))), left


# -- what is shown -------------------------------------------------------------------------------


def inside(off, forecast: Forecast):
    """Which share of a path's months is inside of the 95 % band, by their way from its mean."""
    return np.mean(np.abs(off) < 1.96 * forecast.sd, -1)


def figure(forecast: Forecast, draws: np.ndarray, path: str) -> None:
    """The whole series with its band; and what came, from the mean of the forecast."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig, (whole, off) = plt.subplots(
        1, 2, figsize=(11, 4), width_ratios=(3, 2), layout="constrained"
    )
    when, later = DATA["first"][0] + YEARS, DATA["first"][0] + YEARS[AFTER]
    mean, band = forecast.mean, 1.96 * forecast.sd
    whole.plot(when[BEFORE], PPM[BEFORE], "k", lw=0.7, label="given")
    whole.plot(later, PPM[AFTER], "C3.", ms=2.5, label="held out")
    whole.fill_between(later, mean - band, mean + band, alpha=0.3, lw=0, label="forecast, 95 %")
    whole.plot(later, mean, "C0", lw=0.7)
    whole.set_ylabel("carbon dioxide, ppm")
    whole.legend(frameon=False, loc="upper left")
    off.fill_between(later, -band, band, alpha=0.3, lw=0)
    off.plot(later, draws.T, "C0", lw=0.5, alpha=0.7)
    off.plot(later, PPM[AFTER] - mean, "C3", lw=1.0)
    off.set_title("from the mean of the forecast: what came, and three draws", fontsize=9)
    fig.savefig(path, dpi=120)
    print(f"figure: {path}")


def main(path: str | None = None) -> int:
    with jax.enable_x64(True):
        h = likeliest()
        found = foretold(h)
    exact, joint = dense(h)
    table = Table(title="Mauna Loa: of the largest evidence", title_justify="left")
    for name in h:
        table.add_column(name, justify="right")
    table.add_row(*(f"{x:.4f}" if name == "period" else f"{x:.2f}" for name, x in h.items()))
    Console(width=100).print(table)

    apart = max(np.abs(found.mean - exact.mean).max(), np.abs(found.sd - exact.sd).max())
    print(f"log evidence {found.log_evidence:.4f}, by a matrix {exact.log_evidence:.4f}")
    print(f"the forecasts of both differ by {apart:.0e} ppm at most")
    off = PPM[AFTER] - found.mean
    square = off @ np.linalg.solve(joint, off)
    chance = stats.chi2.sf(square, len(off))
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(len(off)), joint, 4000)
    share, few = inside(off, found), np.mean(inside(draws, found) <= inside(off, found))
    print(f"held out: {share:.0%} of {len(off)} months are inside of the 95 % band,")
    print(f"as few in {few:.0%} of the forecast's own draws; chi-square {square:.0f}")
    if path is not None:
        figure(found, draws[:3], path)

    # the Fourier series of the season is cut off after six waves
    met = abs(found.log_evidence - exact.log_evidence) < 1e-3 and apart < 1e-3
    met &= abs(h["period"] - 1) < 1 / 365
    met &= 0.001 < chance < 0.999 and few > 0.001
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ten years of carbon dioxide, foretold.")
    parser.add_argument("--figure", metavar="PATH", help="where to draw it")
    sys.exit(main(parser.parse_args().figure))
