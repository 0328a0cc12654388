"""How many groups are 82 galaxies in? A Gaussian mixture with an unknown number of components.

Run with `python -m examples.galaxies`. Reversible jump Markov chains move between mixtures of
1 to 10 components; the posterior over their number is shown beside a reference computed by
other methods (`benchmarks/galaxies.py`). Exits 0 only if every probability lies within
4 combined standard errors of the reference.
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

from inference import Move, cycle, iterate, metropolize, sample_posterior
from inference.mcmc.jumps import birth_death, one_row, split_merge
from ppl import Target, gen, sample, select

DATA = json.loads((Path(__file__).parent / "data" / "galaxies.json").read_text())
VELOCITIES = jnp.asarray(DATA["data"]["velocity"], float) / 1000  # in 1000 km/s
MOST = 10


PARTS = select("weight", "mean", "variance")


def component():
    """A weight that is not normalised, a mean and a variance."""
    weight = sample("weight", dist.Gamma(1.0, 1.0))
    mean = sample("mean", dist.Normal(20.0, 10.0))
    variance = sample("variance", dist.InverseGamma(3.0, 20.0))
    return weight, mean, variance


@gen
def model(like):
    """As many velocities as in `like`. Weights divided by their sum are uniform on the simplex."""
    k = sample("k", dist.DiscreteUniform(1, MOST))
    row = lambda j: jax.lax.cond(j < k, component, lambda: (0.0, 0.0, 1.0))  # noqa: E731
    weight, mean, variance = jax.vmap(row)(jnp.arange(MOST))
    each = dist.Normal(mean, jnp.sqrt(variance))
    mixture = dist.MixtureSameFamily(dist.Categorical(weight / weight.sum()), each)
    sample("velocity", mixture.expand(like.shape))


target = Target(model, (VELOCITIES,), {"velocity": VELOCITIES})


@gen
def newborn(latents):
    sample("weight", dist.Exponential(1.0))
    sample("mean", dist.Normal(20.0, 8.0))
    sample("variance", dist.LogNormal(1.5, 1.0))


@gen
def shares(row):
    """How a component is shared out: its weight, its spread, its variance."""
    sample("weight", dist.Uniform(0.0, 1.0))
    sample("gap", dist.Uniform(-1.0, 1.0))
    sample("variance", dist.Uniform(0.0, 1.0))


def split(row, u):
    """Two components with the weight, mean and variance of one (Richardson and Green 1997)."""
    p, q = u["weight"], 1 - u["weight"]
    sd = jnp.sqrt(row["variance"])
    within = (1 - u["gap"] ** 2) * row["variance"]
    first = {
        "weight": p * row["weight"],
        "mean": row["mean"] - u["gap"] * sd * jnp.sqrt(q / p),
        "variance": u["variance"] * within / p,
    }
    second = {
        "weight": q * row["weight"],
        "mean": row["mean"] + u["gap"] * sd * jnp.sqrt(p / q),
        "variance": (1 - u["variance"]) * within / q,
    }
    return first, second


def merge(first, second):
    """The inverse of `split`."""
    weight = first["weight"] + second["weight"]
    p, q = first["weight"] / weight, second["weight"] / weight
    gap = jnp.sqrt(p * q) * (second["mean"] - first["mean"])
    within = p * first["variance"] + q * second["variance"]
    row = {
        "weight": weight,
        "mean": p * first["mean"] + q * second["mean"],
        "variance": within + gap**2,
    }
    u = {
        "weight": p,
        "gap": gap / jnp.sqrt(row["variance"]),
        "variance": p * first["variance"] / within,
    }
    return row, u


@gen
def steps(row):
    sample("mean", dist.Normal(0.0, 1.0))
    sample("log_weight", dist.Normal(0.0, 0.5))
    sample("log_variance", dist.Normal(0.0, 1.0))


def walk(row, u):
    """A step of one component; the way back is its negative."""
    there = {
        "weight": row["weight"] * jnp.exp(u["log_weight"]),
        "mean": row["mean"] + u["mean"],
        "variance": row["variance"] * jnp.exp(u["log_variance"]),
    }
    return there, {name: -step for name, step in u.items()}


splitting = split_merge("k", PARTS, shares, split, merge)
birth = birth_death("k", PARTS, newborn)
walking = one_row("k", PARTS, Move(steps, walk))


def kernel_of(target):
    """Split or merge, birth or death, a step of one component."""
    return cycle(
        metropolize(splitting, target, name="split or merge"),
        metropolize(birth, target, name="birth or death"),
        metropolize(walking, target, name="walk"),
    )


def probabilities(k):
    """P(k), with k up to 3 together, and standard errors from independent chains."""
    classes = [k <= 3, *(k == j for j in range(4, MOST + 1))]
    each = np.stack([np.mean(chosen, 1) for chosen in classes])
    return each.mean(1), each.std(1, ddof=1) / np.sqrt(each.shape[1])


def main() -> int:
    draws = sample_posterior(
        jax.random.key(0), target, iterate(kernel_of(target), 4), chains=100, warmup=250, draws=750
    )
    mine, my_error = probabilities(draws.choices["k"])
    reference = DATA["reference"]
    theirs, errors = np.array(reference["up_to_3_then_each"])
    table = Table(title="Galaxies: how many components? Probability (standard error)")
    for heading in ("components", "reference", "reversible jump", "z"):
        table.add_column(heading)
    z = (mine - theirs) / np.hypot(my_error, errors)
    for i, name in enumerate(["1 to 3", *map(str, range(4, MOST + 1))]):
        row = [f"{p[i]:.4f} ({e[i]:.4f})" for p, e in ((theirs, errors), (mine, my_error))]
        table.add_row(name, *row, f"{z[i]:+.1f}")
    Console(width=100).print(table)
    for name in ("split or merge", "birth or death", "walk"):
        print(f"{name}: {float(np.mean(draws.stats[name + '/accept'])):.0%} accepted")
    worst = np.abs(z).max()
    met = bool(worst < 4)
    print(f"largest distance: {worst:.1f} standard errors;", "met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
