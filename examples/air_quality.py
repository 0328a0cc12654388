"""Haze as a table of temperature, pressure, day and station, three of which are continuous.

Run with `python -m examples.air_quality`; `--figure PATH` draws it. Twelve stations in Beijing
measured fine dust every day of four years. Its logarithm is a constant, an effect of the station
and of each of the other three, which are Gaussian processes, and a sum of products of four such
functions, a CP tensor of rank 3; what is left is Student-t. A fifth of the measurements is held
out, and predicted by message passing over the others.

The references are in NumPy: the mean of the training rows of the same day, which is hard to beat,
as all stations share the weather; that with the mean difference of the station; and a Student-t
law about that, of logarithms. Exits 0 only if the squared errors are below those of the better
mean, and the negative log density below that of the law, by four standard errors of the paired
differences; and if intervals of 50 and 90 % hold within .03 of that share. (Of independent rows
the share of 50 % would have a standard error of .009.)

The model: Fang, Yu, Liu and Zhe, Functional Bayesian Tucker decomposition (ICLR 2024); the rows
held out are those of fold 1 of its data. They take no station, and predict PM2.5, not its
logarithm. The measurements: Zhang, Guo, Dong, He, Xu and Chen, Cautionary tales on air-quality
improvement in Beijing (Proceedings of the Royal Society A 2017).
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from inference import tensors
from inference.gaussian import Exchangeable, Matern12, Matern32
from ppl import Target

FOLDER = Path(__file__).parent / "data"
HAZE, WEATHER = np.load(FOLDER / "beijing.npz"), np.load(FOLDER / "beijing_weather.npz")
STATIONS = [str(name) for name in HAZE["stations"]]
MEASURED = HAZE["pm25"] > 0  # (1461 days, 12 stations)
HELD_OUT = np.unpackbits(WEATHER["held_out"], count=MEASURED.size).reshape(MEASURED.shape) > 0

PM25 = HAZE["pm25"][MEASURED].astype(float)  # micrograms per cubic metre
DAY, STATION = np.nonzero(MEASURED)
OUT = HELD_OUT[MEASURED]
COLUMNS = {
    "temperature": WEATHER["temperature"][MEASURED] / 10,  # degrees Celsius
    "pressure": WEATHER["pressure"][MEASURED] / 10,  # hPa
    "day": DAY,  # since March 1, 2013
    "station": STATION,
}
KERNELS = {
    "temperature": Matern32(10.0),
    "pressure": Matern32(10.0),
    "day": Matern12(5.0),
    "station": Exchangeable(),
}

LOG = np.log(PM25)
CENTER, SPREAD = LOG[~OUT].mean(), LOG[~OUT].std()
Y = (LOG - CENTER) / SPREAD  # what the model is of


def standardised(pm25):
    """PM2.5 on the scale of the paper: minus its mean, over its standard deviation."""
    return (pm25 - PM25.mean()) / PM25.std()


def rows(which) -> tensors.Entries:
    """Some of the measurements, on the coordinates of all."""
    return tensors.entries({name: x[which] for name, x in COLUMNS.items()}, coordinates=COLUMNS)


def fitted(sweeps: int = 100) -> tensors.Factorization:
    model = tensors.cp(3, KERNELS, effects=True, noise=tensors.StudentTNoise())
    target = Target(model, (rows(~OUT),), {"y": Y[~OUT]})
    return tensors.message_passing(jax.random.key(0), target, sweeps=sweeps)


class Foretold(NamedTuple):
    """Of each row that was held out: PM2.5, standardised, and the density there; and P(below)."""

    value: np.ndarray
    minus_log_density: np.ndarray
    below: np.ndarray


def foretold(found: tensors.Factorization) -> Foretold:
    """By the model. Its law of y is symmetric about the mean, which is the median, then."""
    law = found.predict(rows(OUT))
    median = np.exp(CENTER + SPREAD * np.asarray(law.predictor))
    return Foretold(
        standardised(median), -np.asarray(law.log_prob(Y[OUT])) - of_scale(), law.cdf(Y[OUT])
    )


def of_scale() -> np.ndarray:
    """The log of how fast y grows with standardised PM2.5: what a density is multiplied with."""
    return np.log(PM25.std() / (SPREAD * PM25[OUT]))


# -- the references ------------------------------------------------------------------------------


def by_day(x) -> np.ndarray:
    """The mean of the training rows of the same day."""
    total, count = (np.bincount(DAY[~OUT], w) for w in (x[~OUT], None))
    return total[DAY] / count[DAY]


def by_day_and_station(x) -> np.ndarray:
    """That, and the mean difference of the station's training rows from it."""
    off = x - by_day(x)
    total, count = (np.bincount(STATION[~OUT], w) for w in (off[~OUT], None))
    return by_day(x) + (total / count)[STATION]


def student() -> Foretold:
    """A Student-t law about the day and the station, of logarithms.

    A training row is part of its day's mean, so that it is nearer to it, by 1 - 1/n, than another.
    """
    off = Y - by_day_and_station(Y)
    n = np.bincount(DAY[~OUT])[DAY]
    df, at, scale = stats.t.fit((off * n / np.maximum(n - 1, 1))[~OUT & (n > 1)])
    law = stats.t(df, at, scale)
    value = standardised(np.exp(LOG - SPREAD * (off - at)))[OUT]
    return Foretold(value, -law.logpdf(off[OUT]) - of_scale(), law.cdf(off[OUT]))


def means() -> dict[str, np.ndarray]:
    x = standardised(PM25)
    return {"day": by_day(x)[OUT], "day + station": by_day_and_station(x)[OUT]}


# -- what is shown -------------------------------------------------------------------------------


def errors_of(value) -> np.ndarray:
    return value - standardised(PM25[OUT])


def held(below, mass: float) -> float:
    """The share of rows inside of the interval of that probability."""
    return float(np.mean(np.abs(2 * np.asarray(below) - 1) <= mass))


def better(ours, theirs) -> float:
    """By how much ours are smaller on average, in standard errors of the differences."""
    gain = np.asarray(theirs) - np.asarray(ours)
    return float(gain.mean() / (gain.std() / len(gain) ** 0.5))


def figure(found: tensors.Factorization, law: Foretold, path: str) -> None:
    """Main effects, and the component that varies most, of the last 120 days; and predictions."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig = plt.figure(figsize=(12, 8), layout="constrained")
    grid = fig.add_gridspec(3, 4)
    chosen = {"main effect": -1, "component": int(np.argmax(found.relevance()))}
    units = {"temperature": "°C", "pressure": "hPa", "day": "days since March 1, 2013"}
    for k, name in enumerate(found.rows.names):
        at = np.asarray(found.rows.coordinates[k])
        mean, sd = (np.asarray(x) for x in found.functions(name))
        for row, (kind, r) in enumerate(chosen.items()):
            ax, shown = fig.add_subplot(grid[row, k]), slice(-120 if name == "day" else 0, None)
            x, y, wide = at[shown], mean[r, shown], 1.645 * sd[r, shown]
            if name == "station":
                ax.errorbar(x, y, wide, fmt="o", ms=3, lw=1)
                ax.set_xticks(x, STATIONS, rotation=60, ha="right", fontsize=6)
            else:
                ax.fill_between(x, y - wide, y + wide, alpha=0.3, lw=0)
                ax.plot(x, y, lw=0.8)
                ax.set_xlabel(units[name], fontsize=8)
            ax.set_title(f"{name}: {kind}", fontsize=9)
            ax.tick_params(labelsize=7)
    left, right = fig.add_subplot(grid[2, :2]), fig.add_subplot(grid[2, 2:])
    seen = standardised(PM25[OUT])
    left.plot(law.value, seen, ".", ms=2, alpha=0.5)
    ends = [seen.min(), seen.max()]
    left.plot(ends, ends, "k", lw=0.8)
    left.set(xlabel="PM2.5, standardised: median foretold", ylabel="held out")
    masses = np.linspace(0, 1, 51)
    right.plot(masses, [held(law.below, m) for m in masses], label="held out")
    right.plot([0, 1], [0, 1], "k", lw=0.8)
    right.set(xlabel="probability of an interval", ylabel="share of rows inside")
    fig.savefig(path, dpi=100)
    print(f"figure: {path}")


def main(path: str | None = None) -> int:
    with jax.enable_x64(True):
        found = fitted()
        law = foretold(found)
        shares = np.asarray(found.relevance())
        if path is not None:
            figure(found, law, path)
    reference, average = student(), means()
    table = Table(title=f"PM2.5 of {OUT.sum()} rows held out", title_justify="left")
    for head in ("", "RMSE", "- log density", "in 50 %", "in 90 %"):
        table.add_column(head, justify="right" if head else "left")
    rmse = {name: f"{np.mean(errors_of(x) ** 2) ** 0.5:.4f}" for name, x in average.items()}
    for name, value in rmse.items():
        table.add_row(f"mean of the {name}", value)
    for name, each in (("Student-t of day + station", reference), ("CP of rank 3", law)):
        inside = (f"{held(each.below, mass):.3f}" for mass in (0.5, 0.9))
        size = np.mean(errors_of(each.value) ** 2) ** 0.5
        table.add_row(name, f"{size:.4f}", f"{each.minus_log_density.mean():.4f}", *inside)
    Console(width=100).print(table)
    print(found)
    print("shares of the components in the variance:", shares.round(4))

    square = better(errors_of(law.value) ** 2, errors_of(average["day + station"]) ** 2)
    density = better(law.minus_log_density, reference.minus_log_density)
    print(f"better by {square:.1f} standard errors in squares, by {density:.1f} in log densities")
    met = min(square, density) > 4
    met &= all(abs(held(law.below, mass) - mass) < 0.03 for mass in (0.5, 0.9))
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Haze by temperature, pressure, day and station.")
    parser.add_argument("--figure", metavar="PATH", help="where to draw it")
    sys.exit(main(parser.parse_args().figure))
