"""How long until Old Faithful erupts again? A Bayesian neural network, fitted by minibatches.

Run with `python -m examples.bnn`. A small network makes the mean wait of the duration of the last
eruption; its 16 numbers and the noise are unknown. The guide is one normal for all numbers of the
network, with their covariances, and is fitted by 32 of the 272 eruptions at a time. The reference
is the no-U-turn sampler on all of them. Exits 0 only if, at each of 13 durations, the two posterior
means of the curve differ by less than a minute, the noise by less than 5 %, and the chains of the
curve converged; a single wait has a standard deviation of 5.7 minutes.

Only the curve is compared. The posterior of the network's numbers has 5! 2^5 = 3840 mirror images,
as hidden units change places or signs, and the guide has one of them; nor is its shape a normal's.
The report says so: k-hat is above 0.7, and the log evidence too low. Standard deviations of the
curve are shown beside the means, and are not as good, as one expects of such a guide.

The data: Azzalini and Bowman, A look at some data on the Old Faithful geyser (Applied Statistics
1990), in the version of Härdle, Smoothing Techniques (1991). The model: Neal, Bayesian learning for
neural networks (1996), whose prior scales the outer weights so that units can be many.
"""

import json
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
from ppl import Target, gen, sample

DATA = json.loads((Path(__file__).parent / "data" / "geyser.json").read_text())["data"]
DURATION, WAITING = (np.asarray(DATA[name], float) for name in ("duration", "waiting"))
CENTER, SPREAD = WAITING.mean(), WAITING.std()
WAITS = (WAITING - CENTER) / SPREAD
ASKED = np.linspace(1.75, 4.75, 13)  # minutes; 97 % of the eruptions lasted from 1.7 to 4.9
UNITS, BATCH = 5, 32
SIZE = 3 * UNITS + 1
PRIOR_SD = np.r_[np.full(2 * UNITS, 2.0), np.full(UNITS, UNITS**-0.5), 1.0]


def curve(numbers, duration):
    """The mean wait, standardised, after an eruption of so many minutes."""
    slope, place, out = jnp.split(numbers[: 3 * UNITS], 3)
    hidden = jnp.tanh(slope * (jnp.asarray(duration)[..., None] - 3.5) + place)
    return hidden @ out + numbers[-1]


@gen
def model(duration):
    numbers = sample("numbers", dist.Normal(0.0, jnp.asarray(PRIOR_SD)))
    log_noise = sample("log_noise", dist.Normal(-1.0, 1.0))
    sample("wait", dist.Normal(curve(numbers, duration), jnp.exp(log_noise)))


@gen
def guide(p, *_):
    lower = jnp.diag(jnp.exp(p["log_sd"])) @ (jnp.eye(SIZE) + jnp.tril(p["below"], -1))
    sample("numbers", dist.MultivariateNormal(p["numbers"], scale_tril=lower))
    sample("log_noise", dist.Normal(p["log_noise"], jnp.exp(p["log_noise_log_sd"])))


def whole(duration, wait) -> Target:
    return Target(model, (duration,), {"wait": wait})


def some(p, duration, wait):
    """The posterior, of some of the eruptions at a time."""
    return minibatch(lambda i: whole(duration[i], wait[i]), len(wait), BATCH)


OBJECTIVE = elbo(some, guide)


def start() -> dict:
    """Units that differ: at equal ones they would stay equal."""
    numbers = PRIOR_SD / 2 * np.random.default_rng(0).normal(size=SIZE)
    scales = {"log_sd": np.full(SIZE, -2.0), "below": np.zeros((SIZE, SIZE))}
    return {"numbers": numbers, "log_noise": -1.0, "log_noise_log_sd": -2.0, **scales}


def fitted(key, duration, wait, steps: int) -> Fitted:
    adam = optax.adam(optax.cosine_decay_schedule(0.02, steps))
    return fit(key, OBJECTIVE, start(), adam, data=(duration, wait), steps=steps)


def in_minutes(draws: Draws) -> Draws:
    """The curve at the durations asked for, and the noise."""
    of_chain = jax.vmap(lambda numbers: curve(numbers, ASKED))
    curves = CENTER + SPREAD * np.asarray(jax.vmap(of_chain)(jnp.asarray(draws["numbers"])))
    return Draws({"curve": curves, "noise": SPREAD * np.exp(draws["log_noise"])}, draws.stats)


def compare(chains: Draws, guided: Draws) -> tuple[float, float]:
    """Print the table; the largest difference of the curve, in minutes, and of the log of noise."""
    a, b = chains.summary(), guided.summary()
    table = Table(title="Minutes until the next eruption: mean (standard deviation)")
    for head in ("last eruption", "NUTS", "minibatches", "difference"):
        table.add_column(head, justify="right")
    worst = 0.0
    names = {f"curve[{i + 1}]": f"{minutes:.2f}" for i, minutes in enumerate(ASKED)}
    for name, shown in (names | {"noise": "noise"}).items():
        row = [f"{each[name]['mean']:.2f} ({each[name]['sd']:.2f})" for each in (a, b)]
        difference = b[name]["mean"] - a[name]["mean"]
        table.add_row(shown, *row, f"{difference:+.2f}")
        if name != "noise":
            worst = max(worst, abs(difference))
    Console(width=100).print(table)
    return worst, abs(np.log(b["noise"]["mean"] / a["noise"]["mean"]))


def main() -> int:
    duration, wait = jnp.asarray(DURATION), jnp.asarray(WAITS)
    target = whole(duration, wait)
    chains = in_minutes(sample_posterior(jax.random.key(0), target, nuts(target)))
    found = fitted(jax.random.key(1), duration, wait, 20_000)
    worst, noise = compare(chains, in_minutes(found.draws(jax.random.key(2), 4000)))
    print(f"NUTS: {chains.verdict()}")
    print(found.report(jax.random.key(3)))
    print(f"largest difference: {worst:.2f} minutes; of the noise: {noise:.1%}")
    met = worst < 1.0 and noise < 0.05 and bool(chains.verdict())
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
