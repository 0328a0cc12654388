"""Eight schools: one model, two inference programs, a table beside the reference.

Run with `python -m examples.quickstart`. Exits 0 only if every posterior mean of
both programs lies within 4 combined standard errors of the reference.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table

from inference import Move, cycle, metropolize, mh, sample_posterior
from ppl import Target, gen, sample

DATA = json.loads((Path(__file__).parent / "data" / "eight_schools.json").read_text())
EFFECTS = jnp.asarray(DATA["data"]["y"], float)
ERRORS = jnp.asarray(DATA["data"]["sigma"], float)


@gen
def model(errors):
    """Effects of coaching: school j's is mu + tau z_j, measured with a known error."""
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    z = sample("z", dist.Normal(0.0, 1.0).expand(errors.shape))
    theta = mu + tau * z
    sample("y", dist.Normal(theta, errors))
    return theta


target = Target(model, (ERRORS,), {"y": EFFECTS})


@gen
def steps(latents):
    """A user's own proposal: steps for mu, log tau and z, whose sizes are fixed."""
    sample("mu", dist.Normal(0.0, 2.0))
    sample("log_tau", dist.Normal(0.0, 0.8))
    sample("z", dist.Normal(0.0, 0.3).expand(latents["z"].shape))


def walk(x, u):
    """Take the step; the way back is its negative. An involution."""
    tau = x["tau"] * jnp.exp(u["log_tau"])
    there = {"mu": x["mu"] + u["mu"], "tau": tau, "z": x["z"] + u["z"]}
    return there, {name: -step for name, step in u.items()}


resimulation = cycle(mh(target, "mu"), mh(target, "tau"), mh(target, "z"))
random_walk = cycle(metropolize(Move(steps, walk), target), resimulation)


def posterior(kernel, seed):
    """Draws of mu, tau and the effects theta from 100 chains."""
    draws = sample_posterior(
        jax.random.key(seed), target, kernel, chains=100, warmup=1500, draws=300, thin=20
    )
    latents = draws.choices
    theta = latents["mu"][..., None] + latents["tau"][..., None] * latents["z"]
    return type(draws)({"mu": latents["mu"], "tau": latents["tau"], "theta": theta})


def main() -> int:
    reference = DATA["reference"]
    runs = {"resimulation": posterior(resimulation, 0), "random walk": posterior(random_walk, 1)}
    summaries = {name: run.summary() for name, run in runs.items()}
    table = Table(title="Eight schools: posterior means (sd), distance to the reference in se")
    table.add_column("")
    table.add_column("reference")
    for name in runs:
        table.add_column(name)
        table.add_column("z")
    worst = 0.0
    for parameter, ref in reference.items():
        row = [parameter, f"{ref['mean']:.2f} ({ref['sd']:.2f})"]
        for summary in summaries.values():
            mine = summary[parameter]
            error = (mine["mcse_mean"] ** 2 + ref["mcse_mean"] ** 2) ** 0.5
            z = (mine["mean"] - ref["mean"]) / error
            worst = max(worst, abs(z))
            row += [f"{mine['mean']:.2f} ({mine['sd']:.2f})", f"{z:+.1f}"]
        table.add_row(*row)
    Console(width=100).print(table)
    met = worst < 4.0
    print(f"largest distance: {worst:.1f} standard errors;", "met" if met else "NOT met")
    figure(runs)
    return 0 if met else 1


def figure(runs) -> None:
    """The posteriors of mu and tau under both programs, as eight_schools.png."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for ax, name in zip(axes, ("mu", "tau"), strict=True):
        for label, run in runs.items():
            values = jnp.ravel(run.choices[name])
            values = values[values < 30]
            ax.hist(values, bins=80, density=True, histtype="step", label=label)
        ax.axvline(DATA["reference"][name]["mean"], color="k", lw=0.8, label="reference mean")
        ax.set_xlabel(name)
        ax.set_yticks([])
    axes[0].legend(frameon=False, fontsize=8)
    fig.savefig("eight_schools.png", dpi=120)
    print("figure: eight_schools.png")


if __name__ == "__main__":
    sys.exit(main())
