"""How fast do children's faces grow? A hierarchical regression, its check and its correction.

Run with `python -m examples.growth`. Each of 27 children has a level and a rate of growth of
its own, drawn from those of its sex. The no-U-turn sampler's posterior is shown beside the
exact one. Then data are drawn from the posterior and compared with the real ones: the first
model, with one measurement noise for all, does not make data like them; the second, with a
noise for each sex, does. Exits 0 only if the means and standard deviations of both models lie
within 4 standard errors of the exact ones, the chains converged, and the checks say so.

The data: Potthoff and Roy, A generalized multivariate analysis of variance model useful
especially for growth curve problems (Biometrika 1964).
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

from inference import Draws, nuts, posterior_predictive, sample_posterior
from ppl import Target, gen, sample

DATA = json.loads((Path(__file__).parent / "data" / "growth.json").read_text())["data"]
DISTANCE = np.array(DATA["boys"] + DATA["girls"])  # (27 children, 4 ages), in mm
SEX = np.repeat([0, 1], [len(DATA["boys"]), len(DATA["girls"])])
BOYS, GIRLS = (np.flatnonzero(i == SEX) for i in (0, 1))
YEARS = np.array(DATA["age"]) - 11.0  # from the middle, so that levels and rates are independent


@gen(static_argnames="noises")
def model(sex, noises):
    """Levels in mm at the age of 11, rates in mm a year; one noise for all, or one a sex."""
    level = sample("level", dist.Normal(24.0, 5.0).expand([2]))
    rate = sample("rate", dist.Normal(0.0, 1.0).expand([2]))
    level_sd = sample("level_sd", dist.HalfNormal(3.0))
    rate_sd = sample("rate_sd", dist.HalfNormal(0.5))
    noise = sample("noise", dist.HalfNormal(2.0).expand([noises]))

    def child(sex):
        own_level = sample("own_level", dist.Normal(level[sex], level_sd))
        own_rate = rate[sex] + rate_sd * sample("z", dist.Normal(0.0, 1.0))  # little is known of it
        sample("distance", dist.Normal(own_level + own_rate * YEARS, noise[sex % noises]))

    jax.vmap(child)(sex)


def target(noises: int) -> Target:
    return Target(model, (jnp.asarray(SEX), noises), {"distance": jnp.asarray(DISTANCE)})


def log_marginal(noise, level_sd, rate_sd):
    """log p(distance | the three), and the law of the levels and rates of the two sexes.

    A child's mean and its least squares slope are independent, and sufficient together with the
    squared residuals. Of the arguments `noise` has an axis for the two sexes in front.

    Returns:
      The log density; means and variances of the boys' and the girls' level, then of the rates.
    """
    ages, square = len(YEARS), YEARS @ YEARS
    mean, slope = DISTANCE.mean(1), DISTANCE @ YEARS / square
    residual = DISTANCE - mean[:, None] - slope[:, None] * YEARS
    log_p, means, variances = 0.0, [], []
    for estimates, spread, weight, prior_mean, prior_sd in (
        (mean, level_sd, ages, 24.0, 5.0),
        (slope, rate_sd, square, 0.0, 1.0),
    ):
        for children, sd in zip((BOYS, GIRLS), noise, strict=True):
            x = estimates[children]
            each = spread**2 + sd**2 / weight  # variance of one child's estimate
            precision = 1 / prior_sd**2 + len(x) / each
            center = (prior_mean / prior_sd**2 + x.sum() / each) / precision
            squares = (x @ x) / each + prior_mean**2 / prior_sd**2 - center**2 * precision
            normalizer = len(x) * np.log(each) + np.log(precision * prior_sd**2)
            log_p = log_p - (squares + normalizer) / 2
            means.append(center)
            variances.append(1 / precision)
    for children, sd in zip((BOYS, GIRLS), noise, strict=True):
        r = residual[children]
        log_p = log_p - (r**2).sum() / (2 * sd**2) - len(r) * (ages - 2) * np.log(sd)
    constant = len(SEX) * (ages * np.log(2 * np.pi) + np.log(ages * square)) / 2
    return log_p - constant, means, variances


def exact(noises: int, nodes: int = 48) -> dict[str, tuple[float, float]]:
    """Posterior mean and standard deviation of each scalar, by Gauss-Legendre quadrature.

    Only the standard deviations are integrated numerically. A box twice as large changes
    nothing by more than 2e-5 posterior standard deviations; 40 nodes instead of 48, by 1e-6.
    """
    box = {"noise": (0.3, 3.0), "level_sd": (0.5, 5.0), "rate_sd": (0.0, 1.0)}
    x, w = np.polynomial.legendre.leggauss(nodes)
    at = {name: low + (high - low) * (x + 1) / 2 for name, (low, high) in box.items()}
    *noise, level_sd, rate_sd = np.meshgrid(
        *[at["noise"]] * noises, at["level_sd"], at["rate_sd"], indexing="ij", sparse=True
    )
    log_p, means, variances = log_marginal([noise[0], noise[-1]], level_sd, rate_sd)
    log_p = log_p - sum(n**2 for n in noise) / (2 * 2.0**2)  # half-normal priors
    log_p = log_p - level_sd**2 / (2 * 3.0**2) - rate_sd**2 / (2 * 0.5**2)
    mass = np.exp(log_p - log_p.max())
    for axis in range(mass.ndim):
        mass = mass * w.reshape([-1 if i == axis else 1 for i in range(mass.ndim)])
    mass = mass / mass.sum()
    names = ["level[1]", "level[2]", "rate[1]", "rate[2]"]
    found = {n: (m, v) for n, m, v in zip(names, means, variances, strict=True)}
    found |= {"level_sd": (level_sd, 0.0), "rate_sd": (rate_sd, 0.0)}
    found |= {f"noise[{i + 1}]": (n, 0.0) for i, n in enumerate(noise)}
    moments = {}
    for name, (m, v) in found.items():
        mean = (mass * m).sum()
        moments[name] = float(mean), float(np.sqrt((mass * (v + (m - mean) ** 2)).sum()))
    return moments


def compare(draws: Draws, reference: dict[str, tuple[float, float]], title: str) -> float:
    """Print the table; the largest distance, in standard errors of the draws."""
    summary = draws.summary()
    table = Table(title=title, title_justify="left")
    for head in ("", "exact", "draws", "z mean", "z sd", "ESS", "R-hat"):
        table.add_column(head, justify="right" if head else "left")
    worst = 0.0
    for name, (mean, sd) in reference.items():
        row = summary[name]
        z = (row["mean"] - mean) / row["mcse_mean"], (row["sd"] - sd) / row["mcse_sd"]
        worst = max(worst, *map(abs, z))
        shown = (f"{mean:.3f} ({sd:.3f})", f"{row['mean']:.3f} ({row['sd']:.3f})")
        quality = (f"{row['ess_bulk']:.0f}", f"{row['rhat']:.3f}")
        table.add_row(name, *shown, *(f"{each:+.1f}" for each in z), *quality)
    Console(width=100).print(table)
    return worst


def noise_ratio(distance):
    """How much more the boys' distances scatter around a child's own line than the girls'."""
    distance = np.asarray(distance)
    basis = np.stack([np.ones(4) / 2, YEARS / np.sqrt(YEARS @ YEARS)])
    residual = distance - (distance @ basis.T) @ basis
    boys, girls = (np.mean(residual[..., i, :] ** 2, (-2, -1)) for i in (BOYS, GIRLS))
    return np.sqrt(boys / girls)


def main() -> int:
    met, probabilities = True, []
    for noises, title in ((1, "One noise for all"), (2, "A noise for each sex")):
        posterior = target(noises)
        kernel = nuts(posterior, target_accept=0.95)
        draws = sample_posterior(jax.random.key(noises), posterior, kernel, draws=3000)
        worst = compare(draws, exact(noises), f"{title}: mean (standard deviation)")
        met &= worst < 4 and bool(draws.verdict())
        print(draws.verdict())
        again = posterior_predictive(jax.random.key(0), draws)["distance"]
        ratio, data = noise_ratio(again), noise_ratio(DISTANCE)
        low, high = np.quantile(ratio, [0.025, 0.975])
        probabilities.append(np.mean(ratio >= data))
        print(f"scatter of boys over that of girls: {data:.2f}; in 95% of replicated data")
        print(f"{low:.2f} to {high:.2f}; as large in {probabilities[-1]:.1%} of them\n")
    met &= probabilities[0] < 0.025 < probabilities[1] < 0.975
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
