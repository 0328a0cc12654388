"""How volatile was the dollar? One stochastic volatility model under three particle algorithms.

Run with `python -m examples.volatility`; it takes minutes. The data are the daily changes of the
euro in dollars through the crisis of 2008. Their log variance is a latent autoregression, whose
level, memory and scale are unknown; the likelihood of these has no closed form. Particle marginal
Metropolis-Hastings estimates it by a particle filter; SMC² runs a filter for each of many
parameters as the data come in; particle Gibbs draws the path of the log variance anew beside
kernels for the parameters. The reference uses no random numbers: the path is summed out on a grid,
the parameters on another. Exits 0 only if means and standard deviations by each algorithm are
within 4 standard errors of the exact ones and of one another, and the evidence, by SMC², and the
likelihood, by one filter that tells its own error, within 4 of theirs.

The model and its priors: Kim, Shephard and Chib, Stochastic volatility: likelihood inference and
comparison with ARCH models (Review of Economic Studies 1998). Only that of the level is narrower:
under their variance of 10 its posterior has a kurtosis of 15, and chains do not tell how well they
know its standard deviation. Moves that carry the path along with its level and scale: Kastner and
Frühwirth-Schnatter, Ancillarity-sufficiency interweaving strategy (Computational Statistics and
Data Analysis 2014).
"""

import itertools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table

from inference import (
    Draws,
    Move,
    Weighted,
    cycle,
    filter_series,
    iterate,
    log_evidence,
    log_evidence_error,
    marginal,
    metropolize,
    mixture,
    multinomial,
    particle_filter,
    particle_gibbs,
    random_walk,
    sample_posterior,
    smc2,
    unit,
)
from ppl import Target, gen, sample, seed, select

from .volatility_grid import exact, log_likelihood

DATA = json.loads((Path(__file__).parent / "data" / "exchange.json").read_text())["data"]
CHANGES = 100 * np.diff(np.log(DATA["dollars"]))  # in percent
RETURNS = CHANGES - CHANGES.mean()
PARAMETERS = ("mu", "phi", "variance")
MEMORY = dist.TransformedDistribution(
    dist.Beta(20.0, 1.5), dist.transforms.AffineTransform(-1.0, 2.0)
)


def day(parameters, h, first):
    """The log variance of a day, after that of the day before, and the return."""
    mu, phi, variance = parameters
    mean = jnp.where(first, mu, mu + phi * (h - mu))
    spread = jnp.sqrt(variance / jnp.where(first, 1 - phi**2, 1.0))  # the first: stationary
    h = sample("h", dist.Normal(mean, spread))
    sample("y", dist.Normal(0.0, jnp.exp(h / 2)))
    return h, None


FIRST = jnp.arange(len(RETURNS)) == 0


@gen
def volatility():
    """mu is the level of the log variance, phi its memory, variance that of its steps."""
    mu = sample("mu", dist.Normal(0.0, 1.0))
    phi = sample("phi", MEMORY)
    variance = sample("variance", dist.InverseGamma(2.5, 0.025))
    jax.lax.scan(lambda h, first: day((mu, phi, variance), h, first), jnp.zeros(()), FIRST)


target = Target(volatility, (), {"y": jnp.asarray(RETURNS)})


# after how many days SMC² moves the parameters: often in the autumn of 2008
MOVES = (2, 4, 8, 16, 32, 64, 112, 160, 180, 200, 220, 256, 320, 400)


class Size(NamedTuple):
    """How much is drawn; chains and repetitions run side by side."""

    particles: int = 100  # the log likelihood is known to a standard error of about 1
    chains: int = 16
    draws: int = 400
    parameters: int = 100  # of SMC²
    repetitions: int = 6
    gibbs_chains: int = 16
    gibbs_draws: int = 300
    thin: int = 10


# -- the algorithms ------------------------------------------------------------------------------


def walk(root) -> Move:
    """A Gaussian step of mu, arctanh(phi) and log(variance); root root' is its covariance."""

    @gen
    def step(latents):
        sample("by", dist.MultivariateNormal(jnp.zeros(3), scale_tril=root))

    def moved(x, u):
        mu, memory, scale = u["by"]
        there = {
            "mu": x["mu"] + mu,
            "phi": jnp.tanh(jnp.arctanh(x["phi"]) + memory),
            "variance": x["variance"] * jnp.exp(scale),
        }
        return there, {"by": -u["by"]}

    return Move(step, moved)


def starts(chains: int) -> dict[str, np.ndarray]:
    """Parameters around what the variance of the returns suggests."""
    u = np.random.default_rng(0).uniform(-1, 1, (3, chains))
    level = np.log(RETURNS.var())
    return {"mu": level + u[0] / 2, "phi": 0.95 + 0.03 * u[1], "variance": 0.03 * np.exp(u[2])}


def pmmh(size: Size) -> tuple[Draws, jax.Array]:
    """Draws of the parameters; and the root of the steps' covariance, from a pilot run."""
    parameters = marginal(
        target, select(*PARAMETERS), lambda rest: filter_series(rest, "h", size.particles)
    )

    def chains(key, root, draws, **options):
        kernel = metropolize(walk(root), parameters)
        return sample_posterior(
            jax.random.key(key), parameters, kernel, chains=size.chains, draws=draws, **options
        )

    rough = jnp.diag(jnp.array([0.3, 0.3, 0.4]))
    pilot = chains(0, rough, 60, initial=starts(size.chains), warmup=100)
    z = np.stack([pilot["mu"], np.arctanh(pilot["phi"]), np.log(pilot["variance"])], -1)
    root = jnp.linalg.cholesky(jnp.cov(z.reshape(-1, 3).T)) * 1.2  # less than 2.38 / sqrt(3)
    ends = {name: x[:, -1] for name, x in pilot.choices.items()}
    return chains(1, root, size.draws, initial=ends, warmup=50), root


def smc(size: Size, root):
    """Repetitions of SMC²: parameters (repetitions, n), and their log weights."""

    def kernel(until: Target):
        t = until.args[0]  # the fewer data, the wider the posterior
        wide = jnp.minimum(jnp.sqrt(len(RETURNS) / t), 4.0) * root
        parts = [metropolize(walk(scale * wide), until) for scale in (1.0, 0.3)]
        return iterate(mixture(parts, [0.5, 0.5]), 2)

    step = smc2(target, "h", size.parameters, size.particles, kernel, moves=MOVES)

    def run():
        found = step(unit())
        return {name: found.value[name] for name in PARAMETERS}, found.log_weight

    return jax.jit(jax.vmap(seed(run)))(jax.random.split(jax.random.key(2), size.repetitions))


def interweaved() -> Move:
    """A step of level and scale that the whole path follows: (h - mu) / sigma stays."""

    @gen
    def step(latents):
        sample("by", dist.Normal(jnp.zeros(2), jnp.array([0.1, 0.15])))

    def moved(x, u):
        level, scale = u["by"]
        there = {
            "mu": x["mu"] + level,
            "phi": x["phi"],
            "variance": x["variance"] * jnp.exp(2 * scale),
            "h": x["mu"] + level + jnp.exp(scale) * (x["h"] - x["mu"]),
        }
        return there, {"by": -u["by"]}

    return Move(step, moved, log_det=lambda x, u: (len(RETURNS) + 2) * u["by"][1])


def gibbs(size: Size) -> Draws:
    """Draws of the parameters and of the path."""
    kernel = cycle(
        particle_gibbs(target, "h", 20),
        iterate(random_walk(target, select(*PARAMETERS), dense=True), 5),
        iterate(metropolize(interweaved(), target), 5),
    )
    return sample_posterior(
        jax.random.key(3), target, kernel, chains=size.gibbs_chains, draws=size.gibbs_draws,
        thin=size.thin, warmup=300, initial=starts(size.gibbs_chains),
    )  # fmt: skip


# -- the comparison ------------------------------------------------------------------------------


def with_sigma(choices):
    """sigma instead of its square."""
    return {"mu": choices["mu"], "phi": choices["phi"], "sigma": np.sqrt(choices["variance"])}


def of_chains(draws: Draws):
    """By parameter: mean and standard deviation, each with its Monte Carlo standard error."""
    summary = Draws(with_sigma(draws.choices)).summary()
    return {
        name: ((row["mean"], row["mcse_mean"]), (row["sd"], row["mcse_sd"]))
        for name, row in summary.items()
    }


def of_repetitions(choices, log_weight):
    """The same, of weighted particles: one population, whose repetitions are independent."""
    weights = np.exp(log_weight - np.max(log_weight)).astype(np.float64)

    def mean(x):
        """The weighted mean, and its error from repetitions, by the delta method."""
        center = (weights * x).sum() / weights.sum()
        parts = (weights * (x - center)).sum(1) / weights.sum()
        return center, np.sqrt((parts**2).sum() * len(parts) / (len(parts) - 1))

    found = {}
    for name, x in with_sigma(choices).items():
        center, error = mean(x)
        variance, of_variance = mean((x - center) ** 2)
        sd = np.sqrt(variance)
        found[name] = (center, error), (sd, of_variance / (2 * sd))
    return found


def compare(reference, found) -> float:
    """Print the table; the largest distance of two, in standard errors."""
    table = Table(title="Posterior mean (standard deviation), and distances in standard errors")
    table.add_column("")
    for head in ("exact", *(part for name in found for part in (name, "z, z"))):
        table.add_column(head, justify="right")
    worst = 0.0
    for name, (mean, sd) in reference.items():
        row = [f"{mean:.3f} ({sd:.3f})"]
        for each in found.values():
            (m, m_error), (s, s_error) = each[name]
            z = (m - mean) / m_error, (s - sd) / s_error
            worst = max(worst, *map(abs, z))
            row += [f"{m:.3f} ({s:.3f})", f"{z[0]:+.1f} {z[1]:+.1f}"]
        table.add_row(name, *row)
        for one, other in itertools.combinations(found.values(), 2):
            for (x, error), (y, another) in zip(one[name], other[name], strict=True):
                worst = max(worst, abs(x - y) / np.hypot(error, another))
    Console(width=100).print(table)
    return worst


def one_filter(at, n=4000):
    """log p(returns | parameters) by one particle filter, and its error by its ancestors."""
    mu, phi, sigma = at
    step = gen(lambda h, first: day((mu, phi, sigma**2), h, first))
    ys = {"y": jnp.asarray(RETURNS)}

    def run():
        found = particle_filter(step, jnp.zeros(()), ys, n, xs=FIRST, scheme=multinomial)
        return log_evidence(found.particles), log_evidence_error(found)

    log_p, error = jax.jit(seed(run))(jax.random.key(4))
    return float(log_p), float(error)


def beside(what, mine, error, reference) -> float:
    """Print both; their distance in standard errors."""
    z = (mine - reference) / error
    print(f"{what}: {mine:.2f}, standard error {error:.2f}; exact {reference:.2f}; z {z:+.1f}")
    return abs(z)


def figure(draws: Draws, found) -> None:
    """The volatility in the returns, and the posteriors of the parameters, as volatility.png.

    Args:
      draws: those of the path.
      found: by algorithm, its draws of the parameters, and weights or None.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig = plt.figure(figsize=(9, 5.4), layout="constrained")
    grid = fig.add_gridspec(2, 3, height_ratios=(3, 2))
    ax = fig.add_subplot(grid[0, :])
    days = np.array(DATA["date"][1:], "datetime64[D]")
    deviation = np.exp(draws["h"] / 2)
    low, middle, high = np.quantile(deviation, (0.05, 0.5, 0.95), axis=(0, 1))
    ax.plot(days, RETURNS, color="0.6", lw=0.6, label="returns")
    for sign in (1, -1):
        ax.fill_between(days, 2 * sign * low, 2 * sign * high, color="C0", alpha=0.3, lw=0)
        label = "2 standard deviations, with 90% of the posterior" if sign == 1 else None
        ax.plot(days, 2 * sign * middle, color="C0", lw=1, label=label)
    ax.set_ylabel("dollars per euro, daily change in %")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    parts = {name: (with_sigma(choices), weights) for name, (choices, weights) in found.items()}
    for i, name in enumerate(("mu", "phi", "sigma")):
        ax = fig.add_subplot(grid[1, i])
        low, high = np.quantile(parts["particle Gibbs"][0][name], (0.002, 0.998))
        for label, (values, weights) in parts.items():
            ax.hist(
                np.ravel(values[name]), 20, range=(float(low), float(high)),
                weights=weights, density=True, histtype="step", label=label,
            )  # fmt: skip
        ax.set_xlabel(name)
        ax.set_yticks([])
    ax.legend(frameon=False, fontsize=8)
    fig.savefig("volatility.png", dpi=120)
    print("figure: volatility.png")


def main(size: Size) -> int:
    reference, evidence = exact(RETURNS)
    by_metropolis, root = pmmh(size)
    choices, log_weight = jax.tree.map(np.asarray, smc(size, root))
    by_gibbs = gibbs(size)
    found = {
        "PMMH": of_chains(by_metropolis),
        "SMC²": of_repetitions(choices, log_weight),
        "particle Gibbs": of_chains(by_gibbs),
    }
    worst = compare(reference, found)
    totals = jax.vmap(lambda w: log_evidence(Weighted((), w)))(log_weight)
    total = log_evidence(Weighted((), totals))
    worst = max(worst, beside("log evidence, SMC²", total, log_evidence_error(totals), evidence))
    at = tuple(mean for mean, _ in reference.values())
    with jax.enable_x64(True):
        known = float(jax.jit(log_likelihood)(jnp.asarray(RETURNS), *at))
    log_p, error = one_filter(at)
    worst = max(worst, beside("log likelihood at the means, one filter", log_p, error, known))
    weights = np.ravel(np.exp(log_weight - log_weight.max()))
    drawn = {
        "PMMH": (by_metropolis.choices, None),
        "SMC²": (choices, weights),
        "particle Gibbs": (by_gibbs.choices, None),
    }
    figure(by_gibbs, drawn)
    for name, draws in (("PMMH", by_metropolis), ("particle Gibbs", by_gibbs)):
        row = Draws(with_sigma(draws.choices)).summary()["sigma"]
        print(f"{name}: effective draws of sigma {row['ess_bulk']:.0f}, R-hat {row['rhat']:.3f}")
    met = worst < 4
    print(f"largest distance: {worst:.1f} standard errors;", "met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(Size()))
