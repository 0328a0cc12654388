"""How much of a city's haze is the day's? A hierarchy of 1,461 days, fitted by minibatches.

Run with `python -m examples.hierarchical`. Twelve stations in Beijing measured fine dust every day
of four years. Its logarithm is the day's level, plus how much the station differs from the first
one, plus the rest. How much days differ, and how much the rest does, are unknown, too. `minibatch`
takes 100 of the days at a time. The guide is amortised for the days: one formula with four numbers
makes a day's level of its measurements, however many days there are.

All is normal given the two standard deviations, so the reference is exact: they are integrated by
quadrature, all else by algebra. The no-U-turn sampler on all days stands beside it. Exits 0 only if
each mean of the fit is within 0.15 posterior standard deviations of the exact one, each standard
deviation within 10 %, the log evidence within 0.1 and k-hat below 0.7; and if the chains converged,
their means and standard deviations within 4 standard errors of the exact ones.

The model shows inference, not the weather: it does not know that a day is like the one before,
and the rest has heavier tails than a normal (its kurtosis is 16).

The data: Zhang, Guo, Dong, He, Xu and Chen, Cautionary tales on air-quality improvement in Beijing
(Proceedings of the Royal Society A 2017). Minibatches: Hoffman, Blei, Wang and Paisley, Stochastic
variational inference (JMLR 2013).
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from rich.console import Console
from rich.table import Table

from inference import Draws, Fitted, elbo, fit, minibatch, nuts, sample_posterior
from ppl import Target, gen, sample, vmap

DATA = np.load(Path(__file__).parent / "data" / "beijing.npz")
MEASURED = DATA["pm25"] > 0  # (1461 days, 12 stations)
HAZE = np.where(MEASURED, np.log(np.maximum(DATA["pm25"], 1.0)), 0.0)
STATIONS = [str(name) for name in DATA["stations"]]
OTHERS = len(STATIONS) - 1
BATCH = 100


@gen
def day(mean, place, between, within, measured):
    level = sample("level", dist.Normal(mean, between))
    more = jnp.concatenate([jnp.zeros(1, place.dtype), place])
    sample("haze", dist.Normal(level + more, within).mask(measured))


@gen
def model(measured):
    """The mean of the days' levels, stations' differences, and the two standard deviations."""
    mean = sample("mean", dist.Normal(4.0, 1.0))
    place = sample("place", dist.Normal(0.0, 0.5).expand([OTHERS]))
    between = jnp.exp(sample("log_between", dist.Normal(0.0, 1.0)))
    within = jnp.exp(sample("log_within", dist.Normal(0.0, 1.0)))
    each = vmap(day, (None, None, None, None, 0))
    sample("day", each(mean, place, between, within, measured))


@gen
def day_guide(p, mean, place, within, haze, measured):
    """A level between the mean of all days and that of the day's stations.

    How near it is to which, and how well it is known, depends on how many stations measured.
    """
    stations = measured.sum()
    more = jnp.concatenate([jnp.zeros(1, place.dtype), place])
    own = jnp.where(measured, haze - more, 0.0).sum() / stations
    (a, b), (c, d) = p["share"], p["log_sd"]
    size = jnp.log(stations / len(STATIONS))
    share = jax.nn.sigmoid(a + b * size)
    sd = within * jnp.exp(c + d * size)
    sample("level", dist.Normal(mean + share * (own - mean), sd))


@gen
def guide(p, haze, measured, days):
    """Normals, then the days; all differences share what is not known of the first station."""
    loc, sd = p["loc"], jax.tree.map(jnp.exp, p["log_scale"])
    mean = sample("mean", dist.Normal(loc["mean"], sd["mean"]))
    shared = sd["first"] * jnp.ones((OTHERS, 1))
    place = sample("place", dist.LowRankMultivariateNormal(loc["place"], shared, sd["place"] ** 2))
    sample("log_between", dist.Normal(loc["log_between"], sd["log_between"]))
    log_within = sample("log_within", dist.Normal(loc["log_within"], sd["log_within"]))
    each = vmap(day_guide, (None, None, None, None, 0, 0))
    sample("day", each(p, mean, place, jnp.exp(log_within), haze[days], measured[days]))


def start() -> dict:
    """Parameters of the guide that know nothing of the data."""
    numbers = ("mean", "log_between", "log_within")
    loc = {"mean": 4.0, "log_between": 0.0, "log_within": 0.0, "place": np.zeros(OTHERS)}
    log_scale = dict.fromkeys([*numbers, "first"], -2.0) | {"place": np.full(OTHERS, -2.0)}
    return {"loc": loc, "log_scale": log_scale, "share": np.zeros(2), "log_sd": np.zeros(2)}


def whole(haze, measured) -> Target:
    return Target(model, (measured,), {"day": {"haze": haze}})


def some(p, haze, measured):
    """The posterior, of a hundred of the days at a time."""
    local = ("day", "level")
    return minibatch(lambda i: whole(haze[i], measured[i]), len(haze), BATCH, local=local)


OBJECTIVE = elbo(some, guide)


def fitted(key, haze, measured, steps: int) -> Fitted:
    adam = optax.adam(optax.cosine_decay_schedule(0.02, steps))
    return fit(key, OBJECTIVE, start(), adam, data=(haze, measured), steps=steps)


# -- the reference -------------------------------------------------------------------------------


def log_marginal(haze, measured, between, within):
    """log p(haze | the two), and the law given them of the mean and the places together.

    A day's covariance is the identity and one of rank 1, whose inverses are known. Days with
    as many stations have the same, so that they are summed before.

    Returns:
      Arrays of the shape of `between` and `within`; means have an axis more, covariances two.
    """
    mask = np.asarray(measured, float)
    counts, sums, products = mask.sum(1), (mask * haze).sum(1), mask[:, :, None] * mask[:, None]
    design = np.eye(len(STATIONS))
    design[:, 0] = 1.0
    mean_0 = np.r_[4.0, np.zeros(OTHERS)]
    precision_0 = np.diag(np.r_[1.0, np.full(OTHERS, 0.5**-2)])
    a, b = (np.asarray(within)[..., None] ** -2 * x for x in (mask.sum(0), (mask * haze).sum(0)))
    a = a[..., None] * np.eye(len(STATIONS))
    square = (mask * haze**2).sum() / within**2 + mean_0 @ precision_0 @ mean_0
    log_det = counts.sum() * np.log(2 * np.pi * within**2) - np.log(np.diag(precision_0)).sum()
    for n in np.unique(counts):
        of = counts == n
        shrunk = between**2 / (within**2 * (within**2 + n * between**2))
        a = a - shrunk[..., None, None] * products[of].sum(0)
        b = b - shrunk[..., None] * (mask[of] * sums[of, None]).sum(0)
        square = square - shrunk * (sums[of] ** 2).sum()
        log_det = log_det + of.sum() * np.log1p(n * between**2 / within**2)
    a, b = design.T @ a @ design + precision_0, b @ design + precision_0 @ mean_0
    covariance = np.linalg.inv(a)
    mean = (covariance @ b[..., None])[..., 0]
    log_det = log_det + np.linalg.slogdet(a)[1]
    return -(square - (mean * b).sum(-1) + log_det) / 2, mean, covariance


def exact(haze, measured, nodes: int = 40) -> tuple[dict[str, tuple[float, float]], float]:
    """Posterior mean and standard deviation of each scalar, and the log evidence.

    By Gauss-Legendre quadrature over the logs of the two standard deviations, to 8 posterior
    standard deviations from an estimate on both sides.
    """
    degrees = measured.sum() - len(haze)
    rest = haze - np.sum(haze * measured, 0) / measured.sum(0)
    own = np.sum(rest * measured, 1) / measured.sum(1)
    within = np.sqrt(np.sum(measured * (rest - own[:, None]) ** 2) / degrees)
    x, w = np.polynomial.legendre.leggauss(nodes)
    widths = 8 / np.sqrt(2 * np.array([len(haze), degrees]))
    middles = np.log([own.std(), within])
    logs = np.meshgrid(*(m + h * x for m, h in zip(middles, widths, strict=True)), indexing="ij")
    log_p, mean, covariance = log_marginal(haze, measured, *np.exp(logs))
    log_p = log_p - (logs[0] ** 2 + logs[1] ** 2) / 2 - np.log(2 * np.pi)  # their priors
    mass = np.exp(log_p - log_p.max()) * np.outer(w, w) * np.prod(widths)
    log_evidence = float(np.log(mass.sum()) + log_p.max())
    mass = mass / mass.sum()
    names = ["mean", *(f"place[{i + 1}]" for i in range(OTHERS))]
    found = {name: (mean[..., i], covariance[..., i, i]) for i, name in enumerate(names)}
    found |= {"log_between": (logs[0], 0.0), "log_within": (logs[1], 0.0)}
    moments = {}
    for name, (m, v) in found.items():
        center = (mass * m).sum()
        moments[name] = float(center), float(np.sqrt((mass * (v + (m - center) ** 2)).sum()))
    return moments, log_evidence


# -- the comparison ------------------------------------------------------------------------------


def of_all_days(draws: Draws) -> Draws:
    """The latents that are no day's own."""
    names = ("mean", "place", "log_between", "log_within")
    return Draws({name: draws[name] for name in names}, draws.stats)


def distances(draws: Draws, reference: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """The largest of a mean, in standard deviations; of a standard deviation, of its log."""
    summary = draws.summary()
    means = [abs(summary[name]["mean"] - mean) / sd for name, (mean, sd) in reference.items()]
    sds = [abs(np.log(summary[name]["sd"] / sd)) for name, (_, sd) in reference.items()]
    return max(means), max(sds)


def errors_of(draws: Draws, reference: dict[str, tuple[float, float]]) -> float:
    """The largest distance of a mean or standard deviation, in standard errors of the draws."""
    summary, worst = draws.summary(), 0.0
    for name, (mean, sd) in reference.items():
        row = summary[name]
        worst = max(worst, abs(row["mean"] - mean) / row["mcse_mean"])
        worst = max(worst, abs(row["sd"] - sd) / row["mcse_sd"])
    return worst


def show(reference: dict[str, tuple[float, float]], found: dict[str, Draws]) -> None:
    table = Table(title="Mean (standard deviation) of log µg/m³", title_justify="left")
    for head in ("", "", "exact", *found):
        table.add_column(head, justify="right" if head else "left")
    summaries = [draws.summary() for draws in found.values()]
    places = [STATIONS[0], *STATIONS[1:], "", ""]
    for place, (name, (mean, sd)) in zip(places, reference.items(), strict=True):
        rows = [f"{each[name]['mean']:.4f} ({each[name]['sd']:.4f})" for each in summaries]
        table.add_row(name, place, f"{mean:.4f} ({sd:.4f})", *rows)
    Console(width=100).print(table)


def main() -> int:
    haze, measured = jnp.asarray(HAZE), jnp.asarray(MEASURED)
    reference, log_evidence = exact(HAZE, MEASURED)
    found = fitted(jax.random.key(0), haze, measured, 40_000)
    report = found.report(jax.random.key(1))
    guided = of_all_days(found.draws(jax.random.key(2), 4000))
    target = whole(haze, measured)
    chains = of_all_days(sample_posterior(jax.random.key(3), target, nuts(target), draws=2500))
    show(reference, {"NUTS": chains, "minibatches": guided})
    print(f"{report}\nexact log evidence: {log_evidence:.2f}")
    mean, sd = distances(guided, reference)
    z = errors_of(chains, reference)
    print(f"minibatches: means within {mean:.2f} standard deviations, these within {sd:.1%}")
    print(f"NUTS: within {z:.1f} standard errors; {chains.verdict()}")
    met = mean < 0.15 and sd < 0.1 and abs(report.log_evidence - log_evidence) < 0.1
    met &= bool(report) and z < 4 and bool(chains.verdict())
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
