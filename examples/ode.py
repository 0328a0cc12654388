"""Hares and lynxes: NUTS on a system of differential equations, solved by diffrax in the model.

Run with `python -m examples.ode` (`pip install 'giry[ode]'`). The pelts of hares and lynxes that
the Hudson's Bay Company took from 1900 to 1920 follow the equations of Lotka and Volterra,

    du/dt = (alpha - beta v) u        dv/dt = (delta u - gamma) v,

with errors that are lognormal; the priors are those of Carpenter's case study for Stan (2018).
`theta` is (alpha, beta, gamma, delta), `z_init` the populations of 1900, `sigma` the errors. Steps
of the solver adapt, and NUTS differentiates through them.

The reference shares no code with it: importance sampling in NumPy, with a density written out,
the equations by Runge and Kutta's fourth order at 50 steps a year, and a proposal fitted to the
mode and then to its own weighted draws. Exits 0 only if all means and standard deviations lie
within 4 combined standard errors of it, every R-hat is below 1.01, and no transition diverged.
With `--posteriordb FOLDER`, a copy of posteriordb, Stan's reference draws are compared, too.
"""

import argparse
import json
import sys
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import optimize

from inference import Draws, nuts, read_posteriordb, sample_posterior
from ppl import Target, gen, sample

DATA = json.loads((Path(__file__).parent / "data" / "lynx_hare.json").read_text())
PELTS = np.stack([DATA["hare"], DATA["lynx"]], -1)
NAMES = [*(f"theta[{i}]" for i in range(1, 5)), "z_init[1]", "z_init[2]", "sigma[1]", "sigma[2]"]
SHARE, MOST = 4.0, 1.01
PRIOR_MEAN, PRIOR_SD = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])


# -- the model ----------------------------------------------------------------------------------


def growth(_, z, theta):
    """The slope of both populations."""
    alpha, beta, gamma, delta = theta
    u, v = z
    return jnp.stack([(alpha - beta * v) * u, (delta * u - gamma) * v])


def solved(theta, z_init, years):
    """The populations in each year from the first, where the solver gets there; else NaN."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(growth), diffrax.Tsit5(), 0.0, years - 1.0, 0.1, z_init, theta,
        saveat=diffrax.SaveAt(ts=jnp.arange(float(years))),
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        max_steps=512, throw=False,
        adjoint=diffrax.RecursiveCheckpointAdjoint(checkpoints=512),  # each of so few steps is kept
    )  # fmt: skip
    return solution.ys


@gen(static_argnames="years")
def pelts(years):
    theta = sample("theta", dist.TruncatedNormal(jnp.asarray(PRIOR_MEAN), PRIOR_SD, low=0.0))
    z_init = sample("z_init", dist.LogNormal(jnp.full(2, jnp.log(10.0)), 1.0))
    sigma = sample("sigma", dist.LogNormal(jnp.full(2, -1.0), 1.0))
    z = solved(theta, z_init, years)
    sample("y", dist.LogNormal(jnp.log(z), sigma))


def target():
    return Target(
        pelts, (len(PELTS),), {"y": PELTS},
        dims={"theta": ("rate",), "z_init": ("animal",), "sigma": ("animal",),
              "y": ("year", "animal")},
        coords={"rate": ["alpha", "beta", "gamma", "delta"], "animal": ["hare", "lynx"],
                "year": DATA["year"]},
    )  # fmt: skip


# -- the reference, in NumPy alone --------------------------------------------------------------


def populations(theta, z_init, substeps=50):
    """Runge and Kutta's fourth order for rows of parameters: (rows, years, 2)."""

    def slope(z):
        u, v = z
        return np.stack([(theta[0] - theta[1] * v) * u, (theta[3] * u - theta[2]) * v])

    z, found, h = z_init, [z_init], 1 / substeps
    for _ in range(len(PELTS) - 1):
        for _ in range(substeps):
            a = slope(z)
            b = slope(z + h / 2 * a)
            c = slope(z + h / 2 * b)
            z = z + h / 6 * (a + 2 * b + 2 * c + slope(z + h * c))
        found.append(z)
    return np.stack(found).transpose(2, 0, 1)


def log_density(logs, substeps=50):
    """The log posterior, up to a constant, of rows of logarithms of the eight parameters."""
    x = np.exp(np.minimum(logs, 5.0))
    with np.errstate(all="ignore"):
        z = populations(x[:, :4].T, x[:, 4:6].T, substeps)
        sigma = x[:, None, 6:]
        errors = (np.log(PELTS) - np.log(z)) / sigma
        total = (-0.5 * errors**2 - np.log(sigma)).sum((1, 2))
        total += -0.5 * (((x[:, :4] - PRIOR_MEAN) / PRIOR_SD) ** 2).sum(1) + logs[:, :4].sum(1)
        total += -0.5 * ((logs[:, 4:6] - np.log(10.0)) ** 2).sum(1)
        total += -0.5 * ((logs[:, 6:] + 1.0) ** 2).sum(1)
    return np.where(np.isfinite(total), total, -np.inf)


def mode():
    """Where the density of the logarithms is highest, and the inverse of its curvature there."""
    eye, h = np.eye(8), 1e-4

    def slope(x):
        ends = log_density(np.concatenate([x + h * eye, x - h * eye]), 10)
        return (ends[8:] - ends[:8]) / (2 * h)  # of minus the log density

    start = np.log([0.5, 0.03, 0.8, 0.03, 30.0, 4.0, 0.3, 0.3])
    best = optimize.minimize(lambda x: -log_density(x[None], 10)[0], start, jac=slope).x
    curvature = np.stack([slope(best + h * e) - slope(best - h * e) for e in eye]) / (2 * h)
    return best, np.linalg.inv((curvature + curvature.T) / 2)


def reference(n, seed=0, freedom=8):
    """Weighted draws of the parameters: rows, and weights that add up to one."""
    random = np.random.default_rng(seed)
    center, spread = mode()
    for size in (n // 4, n):
        root = np.linalg.cholesky(spread)
        scale = np.sqrt(random.chisquare(freedom, (size, 1)) / freedom)
        noise = random.normal(size=(size, 8)) / scale
        logs = center + noise @ root.T
        log_q = -(freedom + 8) / 2 * np.log1p((noise**2).sum(1) / freedom)
        log_w = log_density(logs) - log_q
        weights = np.exp(log_w - log_w.max())
        weights /= weights.sum()
        center = weights @ logs
        spread = (weights * (logs - center).T) @ (logs - center)
    return np.exp(logs), weights


def moments(rows, weights):
    """By parameter the mean and sd, and the standard errors of both (the delta method)."""
    mean = weights @ rows
    off = rows - mean
    variance = weights @ off**2
    sd = np.sqrt(variance)
    error = np.sqrt(weights**2 @ off**2)
    error_sd = np.sqrt(weights**2 @ (off**2 - variance) ** 2) / (2 * sd)
    return dict(zip(NAMES, zip(mean, sd, error, error_sd, strict=True), strict=True))


def of_draws(draws):
    """The same of reference draws."""
    rows = draws.summary()
    keys = ("mean", "sd", "mcse_mean", "mcse_sd")
    return {name: tuple(rows[name][key] for key in keys) for name in NAMES}


# -- both side by side --------------------------------------------------------------------------


def compare(draws, expected, title):
    """A table, and whether all of it agrees."""
    unlabelled = Draws(draws.choices).summary()
    table = Table(title=f"{title}: mean (sd)", title_justify="left")
    for head in ("", "reference", "NUTS", "z mean", "z sd", "ESS", "R-hat"):
        table.add_column(head, justify="left" if not head else "right")
    met, labels = True, list(draws.summary())
    for label, (name, (mean, sd, error, error_sd)) in zip(labels, expected.items(), strict=True):
        row = unlabelled[name]
        z_mean = (row["mean"] - mean) / np.hypot(row["mcse_mean"], error)
        z_sd = (row["sd"] - sd) / np.hypot(row["mcse_sd"], error_sd)
        met &= abs(z_mean) <= SHARE and abs(z_sd) <= SHARE and row["rhat"] < MOST
        ours = f"{row['mean']:.4g} ({row['sd']:.3g})"
        cells = (f"{mean:.4g} ({sd:.3g})", ours, f"{z_mean:+.1f}", f"{z_sd:+.1f}",
                 f"{row['ess_bulk']:.0f}", f"{row['rhat']:.3f}")  # fmt: skip
        table.add_row(escape(label), *cells)
    Console(width=100).print(table)
    return met


def main(argv=None, draws=500, warmup=500, rows=40_000) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--posteriordb", metavar="FOLDER")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    posterior = target()
    run = sample_posterior(
        jax.random.key(0), posterior, nuts(posterior), draws=draws, warmup=warmup, initial="prior"
    )
    found, weights = reference(rows)
    met = compare(run, moments(found, weights), "importance sampling in NumPy")
    print(f"importance sampling: worth {1 / (weights**2).sum():.0f} of {rows} draws")
    if options.posteriordb:
        db = read_posteriordb(options.posteriordb, "hudson_lynx_hare-lotka_volterra")
        met &= compare(run, of_draws(db.draws), "posteriordb")
    diverged = int(run.divergences().count.sum())
    met &= not diverged
    print(f"{diverged} divergences, {run.timing.seconds:.0f} s; {'met' if met else 'NOT met'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
