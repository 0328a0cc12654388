"""Effective draws for their cost, warm-up included: NUTS at defaults against its peers.

    python -m benchmarks.adaptation [--quick] [--only POSTERIOR] [--json]

Twelve posteriors, four chains, 1000 steps of warm-up and 1000 draws by each library, from eight
seeds in turns (`--quick`: two). Of each it shows medians of gradients for an effective draw of the
latent that mixes worst (bulk ESS by arviz-stats; gradients of the warm-up count), and of the
processor's milliseconds; and how much worse our worst seed is than the median. Of nutpie, which
calls Python for each gradient here, the time says nothing: it is left out. It must be installed
(`pip install nutpie`); where it is not, a line says so.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial

import jax

from ..mcmc import worst
from ..measure import Figure
from ..report import report
from .posteriors import POSTERIORS
from .samplers import Flat, of_blackjax, of_numpyro, of_nutpie, ours

LARGE = 100
"""Of more coordinates than so no peer is tried with a dense metric, which would cost too much."""

PEERS = {
    "NumPyro": of_numpyro,
    "NumPyro, dense": partial(of_numpyro, dense=True),
    "BlackJAX": of_blackjax,
    "BlackJAX, dense": partial(of_blackjax, dense=True),
    "nutpie": of_nutpie,
    "nutpie, low rank": partial(of_nutpie, low_rank=True),
}


def figures(name: str, quick: bool) -> Iterator[Figure]:
    n, seeds = 1000, 2 if quick else 8
    target = POSTERIORS[name]()
    makers = {"ours": ours, **PEERS}
    if Flat(target).size > LARGE:
        makers = {peer: make for peer, make in makers.items() if "dense" not in peer}
    runs = {}
    for peer, make in makers.items():
        try:
            runs[peer] = make(target, n)
        except ModuleNotFoundError as missing:
            print(f"{peer}: {missing}; pip install nutpie", file=sys.stderr)
    gradients: dict[str, list[float]] = {peer: [] for peer in runs}
    times: dict[str, list[float]] = {peer: [] for peer in runs}
    for run in runs.values():
        run(0)  # compiles
    for i in range(seeds):
        for peer in runs if i % 2 == 0 else reversed(runs):
            start = time.process_time()
            draws, warm_up, sampling = runs[peer](i + 1)
            taken, effective = time.process_time() - start, worst(draws)
            gradients[peer].append((warm_up + sampling) / effective)
            times[peer].append(1e3 * taken / effective)
    median = {peer: statistics.median(each) for peer, each in gradients.items()}
    cost = {peer: statistics.median(each) for peer, each in times.items()}
    for peer in list(runs)[1:]:
        unit = "gradients per effective draw"
        yield Figure(name, peer, unit, median["ours"], median[peer], 1.0)
        if "nutpie" not in peer:
            unit = "CPU ms per effective draw"
            yield Figure(name, peer, unit, cost["ours"], cost[peer], 1.0)
    unit = "gradients per effective draw"
    yield Figure(f"{name}, worst seed", "median", unit, max(gradients["ours"]), median["ours"], 3.0)


def main(argv: list[str] | None = None) -> None:
    jax.config.update("jax_enable_x64", True)
    parts = {name: partial(figures, name) for name in POSTERIORS}
    report("benchmarks.adaptation", __doc__, parts, argv)


if __name__ == "__main__":
    main()
