"""Steering a diffusion sampler by a reward, with a potential that telescopes.

Run with `python -m examples.diffusion`. The sampler goes from noise of level 10 to 0.05 in 80
steps, with an exact denoiser of the prior 0.3 N(-2, 0.4^2) + 0.7 N(1, 0.5^2). The reward of a
sample x is x itself, and the target is the prior times e^x, whose mean is 1.1882.

A noisy x is as promising as the reward of its denoised value. Particles are resampled by that,
and it is divided out again before the next step; so the potentials telescope, and what is left at
the end is e^x alone, whatever the promises were. The reward is a black box, not differentiated.

The best of N samples is no draw of that target: its mean, computed exactly, grows with N.

Exits 0 only if, with 256 particles, the mean is that of the target within 3 standard errors and
0.02 (for 80 steps and the noise left at the end; tests/test_steering.py computes how much of it
they take), and the best of 256 is elsewhere.

Sources: steering with potentials of denoised values, Singhal et al., A general framework for
inference-time scaling and steering of diffusion models (2025); the variance of a step that matches
the moments, Bao et al., Analytic-DPM (ICLR 2022).
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table
from scipy import integrate, stats

from inference import (
    Weighted,
    advance,
    each,
    log_evidence,
    over,
    reweight,
    spawn,
    then,
    when_ess_below,
)
from inference.weighted import Step, normalized
from ppl import draw, gen, sample, seed

SHARES, MEANS, SDS = np.array([0.3, 0.7]), np.array([-2.0, 1.0]), np.array([0.4, 0.5])
LEVELS = np.geomspace(10.0, 0.05, 81)  # of noise, in standard deviations
N, RUNS = 256, 200


def denoise(x, level):
    """Mean and variance of the sample of which x is the sum with noise: exact.

    Args:
      x, level: scalars; without noise the mean is x, and the variance 0.
    """
    spread = SDS**2 + level**2
    share = jax.nn.softmax(jnp.log(SHARES) - (x - MEANS) ** 2 / (2 * spread) - jnp.log(spread) / 2)
    means = MEANS + SDS**2 / spread * (x - MEANS)
    mean = share @ means
    return mean, share @ (SDS**2 * level**2 / spread + (means - mean) ** 2)


def moments(x, levels):
    """Mean and variance of the next, less noisy x, given this one."""
    now, later = levels
    mean, variance = denoise(x, now)
    kept = (later / now) ** 2  # of this noise in the next
    return mean + kept * (x - mean), later**2 * (1 - kept) + (1 - kept) ** 2 * variance


@gen
def step(x, levels):
    mean, variance = moments(x, levels)
    x = sample("x", dist.Normal(mean, jnp.sqrt(variance)))
    return x, None


def reward(x):
    return x


def promise(level) -> Step:
    """Weigh by what the reward says of the denoised value."""
    return reweight(lambda x: reward(denoise(x, level)[0]))


def unpromise(level) -> Step:
    return reweight(lambda x: -reward(denoise(x, level)[0]))


def steered(n: int, select: Step | None = None) -> Weighted:
    """`n` samples, weighted for the law of the sampler times e^reward."""
    select = select or when_ess_below(0.5)
    now, later = jnp.asarray(LEVELS[:-1]), jnp.asarray(LEVELS[1:])
    judged = later.at[-1].set(0.0)  # the last is judged as it is

    def row(levels: tuple) -> Step:
        now, later, judged = levels
        onward = each(advance(step, x=(now, later)))
        return then(select, unpromise(now), onward, promise(judged))

    def noise(s: Weighted) -> Weighted:
        return Weighted(draw(dist.Normal(0.0, now[0])), s.log_weight)

    nothing = Weighted(jnp.zeros(()), jnp.zeros(()))
    begin = then(spawn(n), each(noise), promise(now[0]))
    return over(row, (now, later, judged))(begin(nothing))


def target() -> tuple[float, float]:
    """Evidence and mean of the prior times e^x: each normal moves by its variance."""
    mass = SHARES * np.exp(MEANS + SDS**2 / 2)
    return float(mass.sum()), float(mass @ (MEANS + SDS**2) / mass.sum())


def best_of(n: int) -> float:
    """The mean of the best of n draws of the prior, by quadrature."""

    def density(x: float) -> float:
        below, here = SHARES @ stats.norm.cdf(x, MEANS, SDS), SHARES @ stats.norm.pdf(x, MEANS, SDS)
        return float(n * below ** (n - 1) * here)

    bends = [-2.0, 1.0, 2.5]
    return float(integrate.quad(lambda x: x * density(x), -6.0, 6.0, points=bends)[0])


def main() -> int:
    def run() -> tuple[jax.Array, jax.Array]:
        s = steered(N)
        return normalized(s.log_weight) @ s.value, jnp.exp(log_evidence(s))

    keys = jax.random.split(jax.random.key(0), RUNS)
    means, masses = (np.asarray(x, float) for x in jax.jit(jax.vmap(seed(run)))(keys))
    table = Table(title=f"{N} particles, {RUNS} runs", title_justify="left")
    for head in ("", "exact", "steered", "standard error"):
        table.add_column(head, justify="right" if head else "left")
    met = True
    for name, exact, found in zip(("evidence", "mean"), target(), (masses, means), strict=True):
        error = found.std(ddof=1) / math.sqrt(RUNS)
        table.add_row(name, f"{exact:.4f}", f"{found.mean():.4f}", f"{error:.4f}")
        met &= abs(found.mean() - exact) < 3 * error + 0.02
    Console(width=100).print(table)
    best = {n: best_of(n) for n in (1, 4, 16, 64, 256)}
    print("mean of the best of n:", ", ".join(f"{mean:.3f} (n = {n})" for n, mean in best.items()))
    met &= best[N] > target()[1] + 2 * SDS.max()
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
