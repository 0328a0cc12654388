"""Are there calm and busy times of the earth? A hidden Markov model of a century's earthquakes.

Run with `python -m examples.earthquakes`; `--figure PATH` draws it. In each year from 1900 to 2006
the number of earthquakes of magnitude 7 or more is a Poisson count, at a rate that depends on the
state of the earth, which nobody has seen. The states are summed out, so that what is left has a
density with slopes. First its maximum is found, for two states and for three, and compared with
what is published. Then the no-U-turn sampler draws from the posterior of two states; given each
draw, the states have their laws, and are drawn back.

The reference is in NumPy: the likeliest states by Viterbi's algorithm, and the forward-backward
algorithm on a grid of all four parameters. Exits 0 only if the maxima are the published ones in all
digits, the likeliest states are those of the reference, and the means of the parameters, of the
probabilities of each year's state, and of two numbers of the states that were drawn back are within
4 standard errors of the exact ones.

The model and its maxima: Zucchini and MacDonald, Hidden Markov Models for Time Series (2009),
sections 1.2 to 4.2; counts by the US Geological Survey.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from rich.console import Console
from rich.table import Table
from scipy import optimize, special, stats

from inference import Draws, beliefs, most_likely, nuts, restore, sample_posterior, sum_out
from ppl import Target, gen, sample, seed, select

DATA = json.loads((Path(__file__).parent / "data" / "earthquakes.json").read_text())["data"]
COUNTS = np.array(DATA["earthquakes"])
YEARS = DATA["first_year"] + np.arange(len(COUNTS))
# minus the log of the largest likelihood, and its rates
PUBLISHED = {2: (342.3183, (15.472, 26.125)), 3: (329.4603, (13.146, 19.721, 29.714))}


@gen
def century(rates, move):
    """The earth's state in each year, and how many earthquakes; it has been going on forever."""

    def year(state, _):
        state = sample("state", dist.CategoricalProbs(move[state]))
        sample("earthquakes", dist.Poisson(rates[state]))
        return state, None

    before = sample("before", dist.CategoricalProbs(stationary(move)))
    lax.scan(year, before, None, length=len(COUNTS))


def stationary(move):
    """The law of a state of which nothing is known: p = p move, and its sum is 1."""
    n = len(move)
    return jnp.linalg.solve((jnp.eye(n) - move + 1).T, jnp.ones(n))


quiet = sum_out(century, select("before", "state"))


# -- the likelihood ------------------------------------------------------------------------------


def natural(x, n: int):
    """Rates, and probabilities of moves, from what can be any numbers."""
    logs = jnp.zeros((n, n)).at[~np.eye(n, dtype=bool)].set(x[n:])
    return jnp.exp(x[:n]), jax.nn.softmax(logs, -1)


def likeliest(n: int):
    """Rates and moves of n states at the maximum of the likelihood, and the trace there."""

    @jax.jit
    @jax.value_and_grad
    def minus(x):
        return -quiet.assess({"earthquakes": COUNTS}, *natural(x, n))[0]

    quantiles = np.quantile(COUNTS, (np.arange(n) + 0.5) / n)
    start = np.concatenate([np.log(quantiles), np.full(n * (n - 1), -2.0)])
    found = optimize.minimize(minus, start, jac=True, method="BFGS")
    rates, move = natural(found.x, n)
    trace, _ = quiet.generate({"earthquakes": COUNTS}, rates, move)
    return np.asarray(rates), np.asarray(move), trace


# -- the posterior of two states -----------------------------------------------------------------


@gen
def model():
    """A priori the rates are around 12 and twice that, and states stay as they are for years."""
    calm = sample("calm", dist.Gamma(6.0, 0.5))
    busier = sample("busier", dist.Gamma(6.0, 0.5))
    stay = sample("stay", dist.Beta(8.0, 2.0).expand([2]))
    move = jnp.stack([jnp.stack([stay[0], 1 - stay[0]]), jnp.stack([1 - stay[1], stay[1]])])
    sample("century", century(jnp.stack([calm, calm + busier]), move))


hidden = select(("century", "before"), ("century", "state"))


def posterior() -> Target:
    return Target(sum_out(model, hidden), (), {"century": {"earthquakes": COUNTS}})


@jax.jit
@jax.vmap
def told(key, latents):
    """P(busy) of each year given the parameters, and the states of all years, drawn together."""
    target = posterior()
    trace, _ = target.at(latents)
    law = beliefs(target.model, trace)["century"]["state"]
    return law.probs[:, 1], seed(restore)(key, target.model, trace)["century"]["state"]


def drawn(chains: int = 4, draws: int = 400) -> tuple[Draws, Draws]:
    """Draws of the parameters; and of P(busy), and of what the states are like."""
    target = posterior()
    found = sample_posterior(
        jax.random.key(0), target, nuts(target), chains=chains, draws=draws, warmup=300,
        progress=False,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(1), (chains, draws))
    flat = jax.tree.map(lambda x: x.reshape(chains * draws, *x.shape[2:]), (keys, found.choices))
    busy, states = (np.asarray(x).reshape(chains, draws, -1) for x in told(*flat))
    changes = np.count_nonzero(np.diff(states), -1)
    return found, Draws({"busy": busy, "busy years": states.sum(-1), "changes": changes})


# -- the reference -------------------------------------------------------------------------------


def forward_backward(counts, calm, busier, stay, last):
    """log p(counts), P(busy) of each year, and the mean number of changes; all given parameters.

    These may be arrays. `stay` is how likely a calm year is followed by another, `last` a busy one.
    """
    after, log_p, until = (1 - stay) / (2 - stay - last), 0.0, []
    for count in counts:
        busy = after * np.exp(count * np.log1p(busier / calm) - busier)
        log_p = log_p + count * np.log(calm) - calm - special.gammaln(count + 1)
        log_p = log_p + np.log(busy + 1 - after)
        until.append(busy / (busy + 1 - after))
        after = (1 - stay) + (stay + last - 1) * until[-1]
    given, changes = until[-1:], 0.0
    for busy in until[-2::-1]:
        after = (1 - stay) + (stay + last - 1) * busy
        lasts = busy * last / after * given[0]
        ends = busy * (1 - last) / (1 - after) * (1 - given[0])
        changes = changes + ends + given[0] - lasts
        given.insert(0, lasts + ends)
    return log_p, given, changes


def exact(nodes: int = 18) -> tuple[dict[str, float], np.ndarray]:
    """By Gauss-Legendre quadrature: posterior means, and P(busy) of each year.

    The box is at least 4.5 standard deviations wide to each side, or ends at 1.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    box = {
        "calm": (11.0, 20.0),
        "busier": (4.0, 18.0),
        "stay[1]": (0.6, 1.0),
        "stay[2]": (0.4, 1.0),
    }
    at = [low + (high - low) * (x + 1) / 2 for low, high in box.values()]
    calm, busier, stay, last = parameters = np.meshgrid(*at, indexing="ij", sparse=True)
    log_p, busy, changes = forward_backward(COUNTS, *parameters)
    log_p = log_p + 5 * np.log(calm * busier) - (calm + busier) / 2
    log_p = log_p + 7 * np.log(stay * last) + np.log((1 - stay) * (1 - last))
    mass = np.exp(log_p - log_p.max()) * np.einsum("i,j,k,l->ijkl", w, w, w, w)
    mass /= mass.sum()
    busy = np.array([(mass * each).sum() for each in busy])
    means = {name: (mass * each).sum() for name, each in zip(box, parameters, strict=True)}
    return {**means, "busy years": busy.sum(), "changes": (mass * changes).sum()}, busy


def viterbi(counts, rates, move, start):
    """The likeliest states of the year before and all years, and their log density with counts."""
    best, back = np.log(start), []
    for each in stats.poisson.logpmf(np.asarray(counts)[:, None], rates):
        ways = best[:, None] + np.log(move)
        back.append(ways.argmax(0))
        best = ways.max(0) + each
    path = [int(best.argmax())]
    for each in back[::-1]:
        path.insert(0, int(each[path[0]]))
    return path, best.max()


# -- what is shown -------------------------------------------------------------------------------


def figure(fits, busy, path: str) -> None:
    """The counts with the rates of the likeliest states; and how likely each year was busy."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 5), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    top.vlines(YEARS, 0, COUNTS, color="0.6", lw=2)
    for n, (rates, best) in fits.items():
        label = f"rates of the likeliest of {n} states"
        top.step(YEARS, rates[best["state"]], where="mid", label=label, lw=1.2)
    top.set(ylabel="earthquakes of magnitude 7 or more", ylim=(0, None))
    top.legend(frameon=False, fontsize=8)
    low, high = np.quantile(busy, [0.05, 0.95], (0, 1))
    bottom.fill_between(YEARS, low, high, alpha=0.3, lw=0, step="mid")
    bottom.step(YEARS, busy.mean((0, 1)), where="mid", lw=1.2)
    bottom.set(ylabel="P(busy)", xlabel="two states: the mean over draws, and 90 % of them")
    fig.savefig(path, dpi=110)
    print(f"figure: {path}")


def fitted() -> tuple[dict, bool]:
    """The rates at the maximum and the likeliest states, of two states and of three."""
    table = Table(title="The largest likelihood", title_justify="left")
    for head in ("states", "-log", "published", "rates", "published", "changes"):
        table.add_column(head, justify="right")
    fits, met = {}, True
    for n, (value, published) in PUBLISHED.items():
        rates, move, trace = likeliest(n)
        best = most_likely(quiet, trace)
        fits[n] = rates, best
        shown = (", ".join(f"{x:.3f}" for x in each) for each in (rates, published))
        changes = np.count_nonzero(np.diff(best["state"]))
        table.add_row(str(n), f"{-trace.score:.4f}", f"{value:.4f}", *shown, str(changes))
        met &= bool(abs(trace.score + value) < 5e-5 and np.all(np.abs(rates - published) < 5e-4))
        path, density = viterbi(COUNTS, rates, move, np.asarray(stationary(move)))
        met &= path == [int(best["before"]), *best["state"].tolist()]
        met &= bool(abs(best.score - density) < 1e-9)
    Console(width=100).print(table)
    return fits, met


def main(path: str | None = None) -> int:
    with jax.enable_x64(True):
        fits, met = fitted()
        draws, states = drawn()
    means, probabilities = exact()
    table = Table(title="The posterior of two states: means", title_justify="left")
    for head in ("", "exact", "draws", "z", "ESS"):
        table.add_column(head, justify="right" if head else "left")
    rows, worst = {**draws.summary(), **states.summary()}, 0.0
    for name, mean in means.items():
        row = rows[name]
        z = (row["mean"] - mean) / row["mcse_mean"]
        worst = max(worst, abs(z))
        table.add_row(
            name, f"{mean:.3f}", f"{row['mean']:.3f}", f"{z:+.1f}", f"{row['ess_bulk']:.0f}"
        )
    Console(width=100).print(table)
    years = [rows[f"busy[{i + 1}]"] for i in range(len(COUNTS))]
    # where a year is almost sure, so few draws say otherwise that they do not tell their own error
    z = [
        (row["mean"] - p) / np.hypot(row["mcse_mean"], 5e-4)
        for row, p in zip(years, probabilities, strict=True)
    ]
    print(f"P(busy) of {len(z)} years: at most {max(map(abs, z)):.1f} standard errors from exact")
    print(draws.verdict())
    if path is not None:
        figure(fits, np.asarray(states["busy"]), path)
    met &= max(worst, *map(abs, z)) < 4 and bool(draws.verdict())
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Calm and busy times of the earth.")
    parser.add_argument("--figure", metavar="PATH", help="where to draw it")
    sys.exit(main(parser.parse_args().figure))
