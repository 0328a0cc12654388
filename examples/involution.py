"""When did coal mining become safer? A move of one's own, and the check of it.

Run with `python -m examples.involution`. Disasters in British coal mines happen at one rate up
to a year and at another after it. The user's move shifts the year, and takes the rates along:
each is kept in proportion to the average of the years that it explains. `check_move` examines
the move; then the posterior of the year is shown beside the exact one. Exits 0 only if the
check passes and every probability lies within 4 standard errors of the exact one.

The data: Jarrett, A note on the intervals between coal-mining disasters (Biometrika 1979); the
model: Carlin, Gelfand and Smith, Hierarchical Bayesian analysis of changepoint problems (1992),
with Gamma(2, 1) rates, so that the posterior of the year has a closed form.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from rich.console import Console
from rich.table import Table

from inference import Move, cycle, metropolize, sample_posterior
from ppl import Target, gen, sample
from semantics import check_move, table

DATA = json.loads((Path(__file__).parent / "data" / "coal.json").read_text())["data"]
COUNTS = jnp.array(DATA["disasters"])
YEARS = len(COUNTS)
SUMS = jnp.cumsum(COUNTS)


@gen
def model():
    """The first `last` + 1 years have the rate `before`, the others `after`."""
    last = sample("last", dist.DiscreteUniform(0, YEARS - 2))
    before = sample("before", dist.Gamma(2.0, 1.0))
    after = sample("after", dist.Gamma(2.0, 1.0))
    rates = jnp.where(jnp.arange(YEARS) <= last, before, after)
    sample("disasters", dist.Poisson(rates))


target = Target(model, (), {"disasters": COUNTS})


@gen
def shift(latents):
    """By how many years, up to half of them; beyond the last they go on from the first."""
    sample("by", dist.DiscreteUniform(-(YEARS // 2), YEARS // 2))


def averages(last):
    """Disasters a year up to `last` and after it, with a half more so that none is zero."""
    early = (SUMS[last] + 0.5) / (last + 1)
    late = (SUMS[-1] - SUMS[last] + 0.5) / (YEARS - 1 - last)
    return early, late


def move_year(x, u):
    """To another year, with the rates in proportion; the way back is by as many years."""
    last = (x["last"] + u["by"]) % (YEARS - 1)
    (early, late), (new_early, new_late) = averages(x["last"]), averages(last)
    there = {
        "last": last,
        "before": x["before"] * new_early / early,
        "after": x["after"] * new_late / late,
    }
    return there, {"by": -u["by"]}


@gen
def rates(latents):
    """Steps of the logs of the rates."""
    sample("step", dist.Normal(0.0, 0.15).expand([2]))


def scale(x, u):
    before, after = jnp.exp(u["step"])
    there = {**x, "before": x["before"] * before, "after": x["after"] * after}
    return there, {"step": -u["step"]}


shifting, scaling = Move(shift, move_year), Move(rates, scale)
kernel = cycle(
    metropolize(shifting, target, name="shift"), metropolize(scaling, target, name="scale")
)


def exact():
    """p(last | data): the rates integrated out, gamma against Poisson."""
    last = jnp.arange(YEARS - 1)
    counts = jnp.stack([SUMS[last], SUMS[-1] - SUMS[last]])
    years = jnp.stack([last + 1, YEARS - 1 - last])
    log_p = (gammaln(2.0 + counts) - (2.0 + counts) * jnp.log(1.0 + years)).sum(0)
    return jax.nn.softmax(log_p)


def main() -> int:
    with jax.enable_x64(True):
        verdicts = check_move(lambda _: shifting, target) + check_move(lambda _: scaling, target)
    Console(width=100).print(table(verdicts, "The two moves"))
    draws = sample_posterior(
        jax.random.key(0), target, kernel, chains=100, warmup=500, draws=1000, thin=4
    )
    last, p = draws.choices["last"], np.asarray(exact())
    shown = np.sort(np.argsort(p)[-8:])
    each = np.stack([np.mean(last == year, 1) for year in shown])
    each = np.concatenate([each, 1 - each.sum(0, keepdims=True)])
    theirs = np.append(p[shown], 1 - p[shown].sum())
    mine, error = each.mean(1), each.std(1, ddof=1) / np.sqrt(each.shape[1])
    z = (mine - theirs) / error
    rows = Table(title="The last year of the higher rate (standard error)")
    for heading in ("year", "exact", "draws", "z"):
        rows.add_column(heading)
    for i, name in enumerate([*(str(DATA["first_year"] + year) for year in shown), "others"]):
        rows.add_row(name, f"{theirs[i]:.4f}", f"{mine[i]:.4f} ({error[i]:.4f})", f"{z[i]:+.1f}")
    Console(width=100).print(rows)
    worst = np.abs(z).max()
    met = all(verdicts) and bool(worst < 4)
    print(f"largest distance: {worst:.1f} standard errors;", "met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
