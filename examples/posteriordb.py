"""Four posteriors of posteriordb, sampled at default settings, beside their references.

Run with `python -m examples.posteriordb`. Exits 0 only if every mean and standard deviation
lies within 4 combined standard errors of the reference, and every R-hat is below 1.01.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table

from inference import Draws, nuts, read_posteriordb, sample_posterior
from ppl import Target, gen, sample

FOLDER = Path(__file__).parent / "data" / "posteriordb"
REFERENCE = json.loads((FOLDER / "reference.json").read_text())


def flat(support, shape=()):
    """Stan's improper prior: density 1 on all of the support."""
    return dist.ImproperUniform(support, (), shape)


@gen
def eight_schools(errors):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    z = sample("z", dist.Normal(0.0, 1.0).expand(errors.shape))
    sample("y", dist.Normal(mu + tau * z, errors))


@gen
def kidscore(mom_hs):
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    beta = sample("beta", flat(dist.constraints.real, (2,)))
    sample("y", dist.Normal(beta[0] + beta[1] * mom_hs, sigma))


@gen
def logearn(height):
    beta = sample("beta", flat(dist.constraints.real, (2,)))
    sigma = sample("sigma", flat(dist.constraints.positive))
    sample("y", dist.Normal(beta[0] + beta[1] * height, sigma))


@gen
def linear(x):
    beta = sample("beta", dist.Normal(0.0, 10.0).expand(x.shape[1:]))
    sigma = sample("sigma", dist.HalfNormal(10.0))
    sample("y", dist.Normal(x @ beta, sigma))


def target(name: str) -> Target:
    """The posterior of that name."""
    data = read_posteriordb(FOLDER, name).data
    column = {key: jnp.asarray(value, float) for key, value in data.items()}
    if name.startswith("eight_schools"):
        return Target(eight_schools, (column["sigma"],), {"y": column["y"]})
    if name.startswith("kidiq"):
        return Target(kidscore, (column["mom_hs"],), {"y": column["kid_score"]})
    if name.startswith("earnings"):
        return Target(logearn, (column["height"],), {"y": jnp.log(column["earn"])})
    return Target(linear, (column["X"],), {"y": column["y"]})


def scalars(draws: Draws) -> Draws:
    """The draws of the reference's scalars: the schools' effects in place of z."""
    latents = dict(draws.choices)
    if "z" in latents:
        latents["theta"] = latents["mu"][..., None] + latents["tau"][..., None] * latents.pop("z")
    return Draws(latents)


def compare(name: str, draws: Draws) -> dict[str, dict]:
    """Per scalar our summary, with the distances `z_mean` and `z_sd` to the reference.

    A distance is the difference over the combined Monte Carlo standard error of both.
    """
    summary = scalars(draws).summary()
    rows = {}
    for parameter, ref in REFERENCE[name]["params"].items():
        mine = rows[parameter] = dict(summary[parameter])
        for what in ("mean", "sd"):
            error = np.hypot(mine[f"mcse_{what}"], ref[f"mcse_{what}"])
            mine[f"z_{what}"] = (mine[what] - ref[what]) / error
    return rows


def met(rows: dict[str, dict]) -> bool:
    """Whether all means and standard deviations agree with the reference, and the chains."""
    return all(
        abs(row["z_mean"]) <= 4 and abs(row["z_sd"]) <= 4 and row["rhat"] < 1.01
        for row in rows.values()
    )


def main() -> int:
    every = True
    for i, (name, reference) in enumerate(REFERENCE.items()):
        posterior = target(name)
        began = time.perf_counter()
        draws = sample_posterior(jax.random.key(i), posterior, nuts(posterior))
        seconds = time.perf_counter() - began
        rows = compare(name, draws)
        table = Table(title=f"{name}: mean (sd)", title_justify="left")
        for head in ("", "reference", "ours", "z mean", "z sd", "ESS", "R-hat"):
            table.add_column(head, justify="left" if not head else "right")
        for parameter, row in rows.items():
            ref = reference["params"][parameter]
            table.add_row(
                parameter,
                f"{ref['mean']:.4g} ({ref['sd']:.3g})",
                f"{row['mean']:.4g} ({row['sd']:.3g})",
                f"{row['z_mean']:+.1f}",
                f"{row['z_sd']:+.1f}",
                f"{row['ess_bulk']:.0f}",
                f"{row['rhat']:.3f}",
            )
        Console(width=100).print(table)
        divergences = int(draws.divergences().count.sum())
        verdict = "met" if met(rows) else "NOT met"
        print(f"{divergences} divergences, {seconds:.0f} s with compilation; {verdict}\n")
        every &= met(rows)
    return 0 if every else 1


if __name__ == "__main__":
    sys.exit(main())
