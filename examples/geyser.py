"""Was the last eruption short or long? Allocations by Gibbs, all else by Hamiltonian moves.

Run with `python -m examples.geyser`. The time until Old Faithful erupts again depends on
whether its last eruption was a short or a long one: a discrete latent of each of 272 waits. A
step of the chain draws all of them at once, each from its conditional, and then moves the
continuous latents by Hamiltonian Monte Carlo. The reference is another model under another
sampler: the latents summed out, and the no-U-turn sampler. Exits 0 only if means and standard
deviations, and the probabilities that an eruption was long, agree within 4 combined standard
errors, and both runs converged. The eruptions were also timed, which neither model knows.

The data: Azzalini and Bowman, A look at some data on the Old Faithful geyser (Applied
Statistics 1990), in the version of Härdle, Smoothing Techniques (1991).
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table

from inference import Draws, cycle, gibbs, hmc, nuts, sample_posterior
from ppl import Target, gen, repeat, sample, select

DATA = json.loads((Path(__file__).parent / "data" / "geyser.json").read_text())["data"]
WAITING = jnp.asarray(DATA["waiting"], float)  # minutes
TIMED = np.asarray(DATA["duration"]) > 3  # whether an eruption was long, by a clock
ASKED = (60, 64, 66, 68, 70, 74)  # minutes of waiting, at which the probabilities are compared


def parameters():
    """The share of long eruptions; mean and spread of the waits after short and long ones.

    `mean` is that after short ones; after long ones it is `longer`.
    """
    long = sample("long", dist.Beta(2.0, 2.0))
    first = sample("mean", dist.Normal(50.0, 10.0))
    longer = sample("longer", dist.Gamma(5.0, 0.2))
    spread = sample("spread", dist.Gamma(5.0, 0.5).expand([2]))
    return long, jnp.stack([first, first + longer]), spread


@gen
def wait(of):
    long, mean, spread = of
    kind = sample("kind", dist.Bernoulli(long))
    sample("minutes", dist.Normal(mean[kind], spread[kind]))


@gen
def allocated():
    """A plate of waits, each of which has its kind."""
    sample("wait", repeat(wait, len(WAITING))(parameters()))


@gen
def summed_out():
    """The same law of the waits, without kinds."""
    long, mean, spread = parameters()
    kinds = dist.Categorical(jnp.stack([1 - long, long]))
    sample(
        "minutes", dist.MixtureSameFamily(kinds, dist.Normal(mean, spread)).expand(WAITING.shape)
    )


KIND = ("wait", "kind")
target = Target(allocated, (), {"wait": {"minutes": WAITING}})
reference = Target(summed_out, (), {"minutes": WAITING})


def composite(target):
    """All kinds at once given the rest, then the rest given the kinds."""
    return cycle(gibbs(target, KIND), hmc(target, ~select(KIND), steps=5))


def summed_up(draws: Draws, long) -> Draws:
    """The continuous latents; and whether, or how probably, eruptions were long (..., waits)."""
    at = {f"{m} minutes": long[..., np.asarray(WAITING) == m].mean(-1) for m in ASKED}
    names = ("long", "mean", "longer", "spread")
    return Draws({name: draws[name] for name in names} | at, draws.stats)


def given_parameters(latents):
    """p(long | minutes, parameters) of each wait, by Bayes' rule."""
    mean = np.stack([latents["mean"], latents["mean"] + latents["longer"]])[..., None]
    spread = np.moveaxis(latents["spread"], -1, 0)[..., None]
    log_p = dist.Normal(mean, spread).log_prob(WAITING)
    long = np.asarray(latents["long"])[..., None]
    return np.asarray(jax.nn.sigmoid(log_p[1] - log_p[0] + np.log(long / (1 - long))))


def estimates(draws: Draws) -> dict[str, dict[str, tuple[float, float]]]:
    """By scalar, its mean and standard deviation, each with its Monte Carlo standard error."""
    return {
        name: {"mean": (row["mean"], row["mcse_mean"]), "sd": (row["sd"], row["mcse_sd"])}
        for name, row in draws.summary().items()
    }


def compare(mine: Draws, theirs: Draws) -> float:
    """Print the table; the largest distance, in combined standard errors."""
    a, b = estimates(mine), estimates(theirs)
    table = Table(title="Waiting for Old Faithful: mean (standard deviation)")
    for head in ("", "summed out, NUTS", "Gibbs and HMC", "z mean", "z sd"):
        table.add_column(head, justify="right" if head else "left")
    worst = 0.0
    for name in a:
        row = [f"{each[name]['mean'][0]:.3f} ({each[name]['sd'][0]:.3f})" for each in (b, a)]
        # a kind is 0 or 1, and a probability is not: their standard deviations differ
        for what in ("mean",) if name.endswith("minutes") else ("mean", "sd"):
            (x, error), (y, other) = a[name][what], b[name][what]
            z = (x - y) / np.hypot(error, other)
            worst = max(worst, abs(z))
            row.append(f"{z:+.1f}")
        table.add_row(name, *row)
    Console(width=100).print(table)
    return worst


def main() -> int:
    chains = sample_posterior(jax.random.key(0), target, composite(target), thin=4, initial="prior")
    kinds = chains[KIND]
    other = sample_posterior(jax.random.key(1), reference, nuts(reference), initial="prior")
    mine = summed_up(chains, kinds)
    theirs = summed_up(other, given_parameters(other.choices))
    worst = compare(mine, theirs)
    for name, draws in (("Gibbs and HMC", mine), ("NUTS", theirs)):
        print(f"{name}: {draws.verdict()}")
    right = np.mean((kinds.mean((0, 1)) > 0.5) == TIMED)
    print(f"the more probable kind is that of the clock for {right:.0%} of the eruptions")
    met = worst < 4 and bool(mine.verdict()) and bool(theirs.verdict())
    print(f"largest distance: {worst:.1f} standard errors;", "met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
