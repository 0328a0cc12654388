"""Steering a language model by a reward that can be fooled: a particle filter and a beam.

Run with `python -m examples.steering`. A model writes a text of 8 steps, each wrong, right or a
shortcut; a black box rewards each step with a number r in (0, 1). The target is the model's law
times the product of the r. Weighting by r/(1 - r), the odds, is another target, as the exact
table of all 3^8 texts shows: shortcuts, which the reward overrates at every step, are rare under
the first and the rule under the second.

The filter and the beam search differ in one step, `select`: the filter resamples by weight, which
keeps the measure; the beam keeps the best quarter, which does not. More particles bring the
filter closer to its target, whose answer is right. More compute lets the beam find shortcuts.

Exits 0 only if e-values do not refute, for any N from 1 to 64, that the filter's evidence is
unbiased, though they refute numbers 10% off; if the two targets answer differently; if the filter
answers better with each doubling of N from 4 to 64 and the beam worse, each by 4 standard errors
of the difference; and if the beam loses to the filter at 64.

Sources: the reward as a likelihood, Puri et al., Rollout roulette: a probabilistic inference
approach to inference-time scaling of LLMs using particle-based Monte Carlo methods (2025).
"""

import itertools
import math
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from rich.console import Console
from rich.table import Table

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
from ppl import Target, factor, gen, sample, scan, seed
from semantics.evidence.e_values import bounded_mean

WRONG, RIGHT, SHORTCUT = 0, 1, 2
MODEL = np.array([[0.75, 0.24, 0.01], [0.40, 0.59, 0.01], [0.45, 0.45, 0.10]])  # by the step before
REWARD = np.array([0.2, 0.8, 0.95])
STEPS, NEEDED = 8, 6  # steps of a text, and how many of them a solution has right
SIZES = (4, 8, 16, 32, 64)
SHORT = 3  # steps of the texts on which the evidence is checked
RUNS = 4000
ALPHA = 1e-9  # of each e-value; there are 7

LogPotential = Callable[[jax.Array], jax.Array]


@gen
def write(text, t):
    """The next step of a text, by the model; before the first it is as if after a wrong one."""
    last = jnp.where(t > 0, text[t - 1], WRONG)
    step = sample("step", dist.CategoricalProbs(jnp.asarray(MODEL)[last]))
    return text.at[t].set(step.astype(text.dtype)), None


def judge(text: jax.Array, t: jax.Array) -> jax.Array:
    """The reward of step t: the black box, of which only values are seen."""
    return jnp.asarray(REWARD)[text[t]]


def odds(r: jax.Array) -> jax.Array:
    """log r/(1 - r); the other potential is `jnp.log`."""
    return jnp.log(r) - jnp.log1p(-r)


def steered(
    n: int, steps: int, log_potential: LogPotential = jnp.log, select: Step | None = None
) -> Weighted:
    """`n` weighted texts, from nothing: select, write and weigh, for each step.

    Properly weighted for the model's law times the potentials if `select` keeps the measure.
    """
    select = select or when_ess_below(0.5)

    def row(t: jax.Array) -> Step:
        potential = reweight(lambda text: log_potential(judge(text, t)))
        return then(select, each(advance(write, x=t)), potential)

    nothing = Weighted(jnp.zeros(steps, int), jnp.zeros(()))
    return over(row, jnp.arange(steps))(spawn(n)(nothing))


def keep_best(s: Weighted) -> Weighted:
    """A beam search's selection: the best quarter, four times each. Not proper."""
    best = jnp.repeat(jnp.argsort(-s.log_weight)[: s.log_weight.shape[0] // 4], 4)
    return Weighted(s.value[best], s.log_weight[best])


@gen
def judged(text, t):
    """A step of a text as a target: written by the model, scored by the reward."""
    text, _ = sample("write", write(text, t))
    factor(jnp.log(judge(text, t)))
    return text, None


def passage(steps: int) -> Target:
    """The same target for kernels, such as `particle_gibbs(passage(8), "text", n)`.

    A state is the whole text so far, which no other past leads to: sampling ancestors anew
    does nothing there, and can be left out.
    """
    text = jnp.zeros(steps, int)
    model = gen(lambda: sample("text", scan(judged)(text, jnp.arange(steps))))
    return Target(model, (), {})


def solved(texts):
    """The truth, which the reward does not know: enough right steps, and no shortcut."""
    return ((texts == RIGHT).sum(-1) >= NEEDED) & (texts != SHORTCUT).all(-1)


def enumerated(steps: int, weight: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """All texts, of shape (3^steps, steps), and their masses: the model's times the weights.

    Args:
      weight: of each kind of step, for instance `REWARD`.
    """
    texts = np.array(list(itertools.product(range(3), repeat=steps)))
    last = np.concatenate([np.full((len(texts), 1), WRONG), texts[:, :-1]], 1)
    return texts, (MODEL[last, texts] * np.broadcast_to(weight, 3)[texts]).prod(1)


def show_targets() -> bool:
    """Print what each target says; whether that by r is right, and that by the odds wrong."""
    table = Table(title="Targets, by enumeration", title_justify="left")
    for head in ("weight of a step", "evidence", "P(solved)", "P(a shortcut)"):
        table.add_column(head, justify="left" if head.startswith("w") else "right")
    right = []
    for name, weight in (("1", 1.0), ("r", REWARD), ("r/(1 - r)", REWARD / (1 - REWARD))):
        texts, mass = enumerated(STEPS, weight)
        law = mass / mass.sum()
        cut = (texts == SHORTCUT).any(1)
        right.append(law @ solved(texts))
        table.add_row(name, f"{mass.sum():.5f}", f"{right[-1]:.3f}", f"{law @ cut:.3f}")
    Console(width=100).print(table)
    return bool(right[1] > 0.5 > right[2])


def check_evidence() -> bool:
    """Print estimates of the evidence of short texts; whether they are of the right number.

    An e-value for a mean between bounds is strong when the mean is not tiny beside them: hence
    texts of 3 steps. The estimates must agree with the exact number, and with none 10% off.
    """
    exact = float(enumerated(SHORT, REWARD)[1].sum())
    table = Table(title=f"Evidence of {SHORT} steps: exactly {exact:.5f}", title_justify="left")
    for head in ("N", "mean", "standard error", "log e", "if 10% less", "if 10% more"):
        table.add_column(head, justify="right")
    bound, met = math.log(1 / ALPHA), True
    for n in (1, 2, *SIZES):
        run = seed(lambda n=n: log_evidence(steered(n, SHORT)))
        estimates = np.exp(np.asarray(over_keys(run, n, 10 * RUNS), float))
        # means of products of rewards, which lie between 0 and the largest of them
        high = REWARD.max() ** SHORT * (1 + 1e-5)
        truth, less, more = (
            float(bounded_mean(estimates, mean, 0.0, high))
            for mean in (exact, exact / 1.1, exact * 1.1)
        )
        met &= truth < bound < min(less, more)
        error = estimates.std() / math.sqrt(len(estimates))
        row = f"{estimates.mean():.5f}", f"{error:.5f}", *(f"{x:+.1f}" for x in (truth, less, more))
        table.add_row(f"{n}", *row)
    Console(width=100).print(table)
    print(f"an e-value refutes when its log is above {bound:.1f}")
    return met


def over_keys(run: Callable[[jax.Array], jax.Array], key: int, runs: int = RUNS) -> jax.Array:
    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(key), runs))


def answers(n: int, select: Step | None) -> float:
    """How often the texts, by majority of their weight, say the truth."""

    def run() -> jax.Array:
        s = steered(n, STEPS, select=select)
        return (normalized(s.log_weight) * solved(s.value)).sum() > 0.5

    return float(over_keys(seed(run), n).mean())


def compare() -> tuple[dict[str, list[float]], bool]:
    """Print how often each answers rightly; whether the filter rises and the beam falls."""
    found = {
        "particle filter": [answers(n, None) for n in SIZES],
        "beam search": [answers(n, keep_best) for n in SIZES],
    }
    table = Table(title="P(right answer), by majority of the weight", title_justify="left")
    for head in ("", *(f"N = {n}" for n in SIZES)):
        table.add_column(head, justify="right" if head else "left")
    for name, rates in found.items():
        table.add_row(name, *(f"{rate:.3f}" for rate in rates))
    Console(width=100).print(table)

    def rises(rates: list[float]) -> bool:
        """Each by more than 4 standard errors of the difference of independent frequencies."""
        p = np.array(rates)
        variance = p * (1 - p) / RUNS
        return bool((np.diff(p) > 4 * np.sqrt(variance[1:] + variance[:-1])).all())

    filtered, beam = found.values()
    met = rises(filtered) and rises([1 - rate for rate in beam]) and filtered[-1] > beam[-1]
    return found, met


def figure(found: dict[str, list[float]]) -> None:
    """Both curves, as steering.png."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    fig, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
    for name, rates in found.items():
        ax.plot(SIZES, rates, marker="o", label=name)
    ax.set_xscale("log", base=2)
    ax.set_xticks(SIZES, [str(n) for n in SIZES])
    ax.set_ylim(0, 1)
    ax.set_xlabel("N, texts at once")
    ax.set_ylabel("P(right answer)")
    ax.legend(frameon=False, fontsize=8)
    fig.savefig("steering.png", dpi=120)
    print("figure: steering.png")


def main() -> int:
    differ, unbiased = show_targets(), check_evidence()
    found, as_said = compare()
    figure(found)
    met = differ and unbiased and as_said
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
