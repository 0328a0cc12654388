"""Three hyperparameters of a Matérn-3/2 process by NUTS: summed out, against whitened.

A thousand values at times that are not regular. The process is summed out in O(n): by `gp`, or
out of a model that is written as a loop. Or it is whitened: made from standard normals that are
latents, too, two for each time, through the chain of its states, in O(n) as well. (By a Cholesky
root of the dense covariance it would be one for each time, but a gradient takes thousands of
times as long, as a figure shows.) All are run by our NUTS with one prior, and a figure is the
time of the processor for each effective draw of the hyperparameter that mixes worst.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from arviz_stats.base import array_stats

from inference import gaussian, nuts, sample_posterior, sum_out
from ppl import GenerativeFunction, Target, gen, sample, select

from ..measure import Figure
from . import written
from .costs import costs, slopes
from .problem import data

GOAL, CHAINS = 0.1, 2
POSSIBLE = {"scale": 2.0, "sigma": 0.9, "noise": 0.3}
"""Some hyperparameters."""


def prior() -> tuple[Any, Any, Any]:
    """Scale and standard deviation of the process, and the standard deviation of the noise."""
    scale = sample("scale", dist.LogNormal(0.0, 1.0))
    sigma = sample("sigma", dist.LogNormal(0.0, 1.0))
    return scale, sigma, sample("noise", dist.LogNormal(-1.0, 1.0))


@gen
def process(times):
    scale, sigma, noise = prior()
    sample("y", gaussian.gp(gaussian.Matern32(scale, sigma), times, noise=noise**2))


@gen
def series(times):
    """The same as a loop; what is in it is at addresses of its own."""
    scale, sigma, noise = prior()
    gaps = jnp.diff(times, prepend=times[:1] - 1.0)
    sample("series", written.model(jnp.stack([scale, sigma, noise**2]), gaps))


@gen
def whitened(times):
    scale, sigma, noise = prior()
    normals = sample("normals", dist.Normal(jnp.zeros((times.size, 2)), 1.0))
    f = gaussian.gp(gaussian.Matern32(scale, sigma), times).from_normals(normals)
    sample("y", dist.Normal(f, noise))


@gen
def densely_whitened(times):
    """What is added to the diagonal keeps the root of a smooth kernel from failing."""
    scale, sigma, noise = prior()
    normals = sample("normals", dist.Normal(jnp.zeros(times.size), 1.0))
    dense = gaussian.gp(gaussian.Matern32(scale, sigma), times).covariance_matrix
    root = jnp.linalg.cholesky(dense + 1e-9 * jnp.eye(times.size))
    sample("y", dist.Normal(root @ normals, noise))


summed = sum_out(series, select(("series", "state"), ("series", "start")))


def seen(model: GenerativeFunction, ys: jax.Array) -> dict[str, Any]:
    return {"series": {"y": ys}} if model is summed else {"y": ys}


def density(model: GenerativeFunction, choices: Mapping, times: jax.Array, ys: jax.Array) -> Any:
    return model.assess({**choices, **seen(model, ys)}, times)[0]


def check(n: int = 30) -> None:
    """All models are one, to the rounding of n terms.

    The joint density of the whitened one is Gaussian in its normals: its integral is the density
    at the mode, times a determinant.
    """
    _, times, ys = data(n)
    given = {name: jnp.asarray(value) for name, value in POSSIBLE.items()}
    right = density(process, given, times, ys)
    np.testing.assert_allclose(density(summed, given, times, ys), right, rtol=1e-8)

    def joint(flat: jax.Array) -> jax.Array:
        return density(whitened, {**given, "normals": flat.reshape(n, 2)}, times, ys)

    zero = jnp.zeros(2 * n)
    curve, slope = -jax.jit(jax.hessian(joint))(zero), jax.jit(jax.grad(joint))(zero)
    whole = joint(zero) + 0.5 * (slope @ jnp.linalg.solve(curve, slope))
    whole += n * jnp.log(2 * jnp.pi) - 0.5 * jnp.linalg.slogdet(curve)[1]
    np.testing.assert_allclose(whole, right, rtol=1e-8)


def gradients(n: int) -> Iterator[Figure]:
    """What one gradient by all latents takes."""
    _, times, ys = data(n)
    given = {name: jnp.asarray(value) for name, value in POSSIBLE.items()}

    def spent(model: GenerativeFunction, *shape: int) -> float:
        latents = {**given, "normals": jnp.zeros(shape)} if shape else given
        run = slopes(lambda q: density(model, q, times, ys), latents)
        return costs({"": run}, 3)[""]

    theirs = spent(whitened, n, 2)
    for name, cost in {
        "by gp": spent(process),
        "by sum_out": spent(summed),
        "whitened by a dense root": spent(densely_whitened, n),
    }.items():
        yield Figure(f"gradient, n = {n:,}, {name}", "whitened", "CPU ms", cost, theirs)


def effective_draw(target: Target, draws: int) -> float:
    """Milliseconds of the processor for an effective draw of the worst hyperparameter.

    Of a run with as many steps of warm-up, which compiles nothing: that is done by one before it.
    """
    kernel = nuts(target)

    warmup = draws

    def run(seed: int, draws: int) -> Mapping:
        return sample_posterior(
            jax.random.key(seed), target, kernel, draws=draws, warmup=warmup, chains=CHAINS,
            progress=False,
        ).choices  # fmt: skip

    run(0, 1)
    start = time.process_time()
    found = run(1, draws)
    spent = time.process_time() - start
    worst = min(
        array_stats.ess(np.asarray(found[name]), chain_axis=0, draw_axis=1, method="bulk")
        for name in POSSIBLE
    )
    return 1e3 * spent / float(worst)


def figures(quick: bool, _: bool) -> Iterator[Figure]:
    check()
    n, draws = (100, 50) if quick else (1_000, 200)
    yield from gradients(n)
    _, times, ys = data(n)
    models = {"whitened": whitened, "gp": process, "sum_out": summed}
    cost = {
        name: effective_draw(Target(model, (times,), seen(model, ys)), draws)
        for name, model in models.items()
    }
    for name in ("gp", "sum_out"):
        title = f"NUTS, three hyperparameters, n = {n:,}, by {name}"
        yield Figure(title, "whitened", "CPU ms per effective draw", cost[name],
                     cost["whitened"], GOAL)  # fmt: skip
