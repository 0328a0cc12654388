"""A simulation study: the no-U-turn sampler on many data sets of eight schools.

    python -m benchmarks.data_sets [--quick] [--json]

Data are drawn with a mean and a scale from wide laws. All of them in one call of
`sample_posteriors`; one after the other by a program that is compiled once, and by one that is
compiled for each data set, as a sampler does whose programs hold the data. Four chains of 1,000
steps of warm-up and 1,000 draws, processor time for each data set, the first compilation included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from inference import nuts, sample_posterior, sample_posteriors
from ppl import Target, gen, sample

from .measure import Figure
from .report import report

ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
KEY = jax.random.key(0)


@gen
def schools(errors):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    z = sample("z", dist.Normal(jnp.zeros(8), 1.0))
    sample("y", dist.Normal(mu + tau * z, errors))


def targets(n: int) -> list[Target]:
    random = np.random.default_rng(0)
    tau = np.abs(5 * random.standard_cauchy((n, 1))).clip(0, 30)
    effects = random.normal(0, 5, (n, 1)) + tau * random.normal(size=(n, 8))
    data = effects + random.normal(size=(n, 8)) * np.asarray(ERRORS)
    return [Target(schools, (ERRORS,), {"y": jnp.asarray(y)}) for y in data]


def each(n: int, run: Callable[[list[Target]], object]) -> float:
    """Processor time for a data set of `n`."""
    studies = targets(n)
    start = time.process_time()
    run(studies)
    return (time.process_time() - start) / n


def at_once(studies: list[Target]) -> None:
    sample_posteriors(KEY, studies, nuts, progress=False)


def in_turn(studies: list[Target]) -> None:
    for study in studies:
        sample_posterior(KEY, study, nuts(study), progress=False)


def anew(studies: list[Target]) -> None:
    for study in studies:
        sample_posterior(KEY, study, nuts(study).of_recipe(None), progress=False)


def study(quick: bool) -> Iterator[Figure]:
    many, some, few = (40, 10, 2) if quick else (1000, 50, 4)
    one, loop, compiled = each(many, at_once), each(some, in_turn), each(few, anew)
    yield Figure(f"{many} data sets at once", f"a loop over {some}", "CPU s each", one, loop)
    goal = None if quick else 1 / 20
    title = f"{few} data sets, compiled for each"
    yield Figure(f"{many} data sets at once", title, "CPU s each", one, compiled, goal)


def main(argv: list[str] | None = None) -> None:
    jax.config.update("jax_enable_x64", True)
    report("benchmarks.data_sets", __doc__, {"study": study}, argv)


if __name__ == "__main__":
    main()
