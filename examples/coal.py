"""When did mining become safer? Disasters in British coal mines: counts with a Gaussian process.

Run with `python -m examples.coal`; `--figure PATH` draws it. From 1851 to 1962 there were 191
disasters with ten or more deaths. Those of a year are Poisson, at a rate whose logarithm is a
Gaussian process of unknown scale and size. Given these two, the process is folded in O(n) with a
site for each year, chosen by Laplace's method, by expectation propagation (EP), or by conjugate
variational inference, which give its law and the evidence of the two. They are on a grid here; a
chain of them is in docs/exact.md.

The reference knows no sites: at each point of the grid it weights draws of the whole process, by
matrices in NumPy. Its draws are worth 4,700 independent ones, so that it has a standard error of
.015 standard deviations, and of 1 % of a width. Exits 0 only if by EP and the variational law the
means of scale and size, and of the log rate of each year, are within .1 standard deviations of the
reference, the ends of its 90 % intervals within 5 % of their width, and the evidence within .1.
Laplace's mean is a mode, and is shown beside them.

The series is that of Jarrett (Biometrika 1979); that the rate fell around 1890 is the subject of
Raftery and Akman (Biometrika 1986), who allow for one jump.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table
from scipy import linalg, special, stats

from inference import gaussian, sites
from ppl import Target, gen, sample

DATA = json.loads((Path(__file__).parent / "data" / "coal.json").read_text())["data"]
COUNTS = np.array(DATA["disasters"])
TIMES = np.arange(len(COUNTS), dtype=float)
METHODS = {"EP": sites.power_ep, "variational": sites.conjugate_vi, "Laplace": sites.laplace}
MEAN = 0.5  # of the log rate, a priori
AT = (25.0, 0.8)  # scale and size at which evidence is compared


@gen
def coal(scale, size):
    """A rate that changes over decades."""
    kernel = gaussian.Matern32(scale, size)
    log_rate = sample("log_rate", gaussian.gp(kernel, TIMES, mean=MEAN))
    sample("disasters", dist.Poisson(jnp.exp(log_rate)))


def given(scale, size) -> Target:
    return Target(coal, (scale, size), {"disasters": COUNTS})


def grid(nodes: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales, sizes and their prior weights: LogNormal(3, .5), and HalfNormal(1).

    By Gauss and Legendre's rule, for scales from 5 to 120 years.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    log_scale, size = (each.ravel() for each in np.meshgrid(3.2 + 1.6 * x, 1.35 + 1.25 * x))
    weight = np.outer(w, w).ravel() * np.exp(-((log_scale - 3) ** 2) * 2 - size**2 / 2)
    return np.exp(log_scale), size, weight / weight.sum()


@partial(jax.jit, static_argnums=0)
def approximated(method, scale, size):
    """At each scale and size: mean and variance of each year's log rate, and the evidence.

    The means are NaN where the sites do not settle.
    """

    def one(scale, size):
        found = method(given(scale, size), "log_rate")
        settled = jnp.where(found.status.converged, 0.0, jnp.nan)
        return found.mean + settled, found.variance, found.log_evidence

    return jax.vmap(one)(scale, size)


class Posterior(NamedTuple):
    """Of scale, size, and the log rate of each year; and the evidence at one scale and size."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log_evidence: float


def posterior(method) -> Posterior:
    """A mixture over the grid."""
    scale, size, prior = grid()
    with jax.enable_x64(True):
        at = np.append(scale, AT[0]), np.append(size, AT[1])
        mean, variance, evidence = map(np.asarray, approximated(method, *at))
    weights = prior * np.exp(evidence[:-1] - evidence[:-1].max())
    weights /= weights.sum()
    ends = (quantiles(p, weights, mean[:-1], variance[:-1]) for p in (0.05, 0.95))
    means = np.concatenate([[weights @ scale, weights @ size], weights @ mean[:-1]])
    return Posterior(means, *ends, float(evidence[-1]))


def quantiles(p: float, weights, mean, variance):
    """Of each year's mixture of normals, by bisection."""
    low, high = np.full(mean.shape[1], -10.0), np.full(mean.shape[1], 10.0)
    for _ in range(40):
        middle = (low + high) / 2
        below = weights @ stats.norm.cdf(middle, mean, np.sqrt(variance)) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return middle


# -- the reference -------------------------------------------------------------------------------


def weighted(random, scale: float, size: float, n: int):
    """Draws of the log rates around their mode, and the logs of their weights.

    The mode by Newton's method; the mean of the weights is an unbiased estimate of the evidence.
    """
    apart = np.sqrt(3) * np.abs(TIMES[:, None] - TIMES) / scale
    root = linalg.cholesky(size**2 * (1 + apart) * np.exp(-apart), lower=True)
    z = np.zeros(len(TIMES))  # standard normals, of which the log rates are MEAN + root z
    for _ in range(8):
        rate = np.exp(MEAN + root @ z)
        precision = np.eye(len(z)) + root.T @ (rate[:, None] * root)
        z = z + np.linalg.solve(precision, root.T @ (COUNTS - rate) - z)
    upper = linalg.cholesky(precision)
    normals = random.normal(size=(n, len(z)))
    drawn = z + linalg.solve_triangular(upper, normals.T).T
    log_rate = MEAN + drawn @ root.T
    log_p = log_rate @ COUNTS - np.exp(log_rate).sum(1) - special.gammaln(COUNTS + 1).sum()
    log_p = log_p - (drawn**2).sum(1) / 2
    return log_rate, log_p + (normals**2).sum(1) / 2 - np.log(np.diag(upper)).sum()


def reference(n: int = 700) -> tuple[Posterior, np.ndarray]:
    """The same by weighted draws; and the standard deviations."""
    random, rows, logs = np.random.default_rng(0), [], []
    for scale, size, prior in zip(*grid(), strict=True):
        log_rate, log_weight = weighted(random, scale, size, n)
        rows.append(np.column_stack([np.full(n, scale), np.full(n, size), log_rate]))
        logs.append(log_weight + np.log(prior))
    weights = np.exp(np.array(logs) - np.max(logs)).ravel()
    rows, weights = np.concatenate(rows), weights / weights.sum()
    mean = weights @ rows
    order = np.argsort(rows[:, 2:], 0)
    total = np.cumsum(weights[order], 0)
    which = (np.take_along_axis(order, (total < p).sum(0)[None], 0) for p in (0.05, 0.95))
    low, high = (np.take_along_axis(rows[:, 2:], i, 0)[0] for i in which)
    log_weight = weighted(random, *AT, 20_000)[1]
    log_evidence = float(special.logsumexp(log_weight) - np.log(len(log_weight)))
    return Posterior(mean, low, high, log_evidence), np.sqrt(weights @ (rows - mean) ** 2)


# -- what is shown -------------------------------------------------------------------------------


def figure(found: Posterior, path: str) -> None:
    """The counts, and the rate: the exponential of its log's mean and 90 % interval."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    years = DATA["first_year"] + TIMES
    fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
    ax.vlines(years, 0, COUNTS, color="0.6", lw=2)
    ax.fill_between(years, np.exp(found.low), np.exp(found.high), alpha=0.35, lw=0, label="90 %")
    ax.plot(years, np.exp(found.mean[2:]), "C0", lw=1.3, label="rate, by EP")
    ax.set(ylabel="disasters in a year", ylim=(0, None))
    ax.legend(frameon=False)
    fig.savefig(path, dpi=110)
    print(f"figure: {path}")


def main(path: str | None = None) -> int:
    exact, sd = reference()
    found = {name: posterior(method) for name, method in METHODS.items()}
    table = Table(title="The posterior, and how far from exact it is", title_justify="left")
    heads = ("", "evidence", "scale", "size", "means off, in sd", "90 % ends off, in widths")
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    met = True
    for name, each in {"exact": exact, **found}.items():
        off = np.max(np.abs(each.mean - exact.mean) / sd)
        ends = np.maximum(np.abs(each.low - exact.low), np.abs(each.high - exact.high))
        wide = np.max(ends / (exact.high - exact.low))
        row = (f"{each.log_evidence:.3f}", f"{each.mean[0]:.2f}", f"{each.mean[1]:.3f}")
        table.add_row(name, *row, *(() if each is exact else (f"{off:.3f}", f"{wide:.3f}")))
        if name != "Laplace":
            met &= bool(off < 0.1 and wide < 0.05)
            met &= abs(each.log_evidence - exact.log_evidence) < 0.1
    Console(width=100).print(table)
    if path is not None:
        figure(found["EP"], path)
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The rate of disasters in coal mines.")
    parser.add_argument("--figure", metavar="PATH", help="where to draw it")
    sys.exit(main(parser.parse_args().figure))
