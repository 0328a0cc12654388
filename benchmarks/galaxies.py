"""The posterior over the number of components of the galaxy data, without JAX and jumps.

`python -m benchmarks.galaxies` writes the reference of `examples/data/galaxies.json`, in
NumPy alone, by two methods that share no code with the library and neither makes jumps
between dimensions:

1. the telescoping sampler (Frühwirth-Schnatter, Malsiner-Walli and Grün, Generalized
   mixtures of finite mixtures and telescoping sampling, Bayesian Analysis 2021): Gibbs
   steps for allocations, components and weights, and the number of components given the
   partition from its closed form. The posterior over k is the mean of that closed form, its
   standard error that of the means of independent chains;
2. the evidence of each k alone, by annealed importance sampling (Neal 2001) from the prior,
   with Gibbs steps at each temperature; for one component also by quadrature.

The prior of the components is that of Chib, Marginal likelihood from the Gibbs output (JASA
1995), in 1000 km/s: means N(20, 10^2), variances inverse gamma (3, 20), weights Dirichlet(1,
..., 1); the number of components is uniform on 1, ..., 10. Averages over 1e8 draws of the
prior give a log evidence of -226.80 for three components (Neal, Erroneous results in "Marginal
likelihood from the Gibbs output", 1999).
"""

from __future__ import annotations

import json
from math import lgamma
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "examples" / "data" / "galaxies.json"
MOST = 10
MEAN, SD, SHAPE, RATE = 20.0, 10.0, 3.0, 20.0

Rng = np.random.Generator


def telescoping(rng: Rng, y: np.ndarray, chains: int, burn: int, steps: int) -> np.ndarray:
    """Each chain's mean of p(k | partition), of shape (chains, MOST)."""
    means, variances = _prior(rng, (chains, MOST))
    k = rng.integers(1, MOST + 1, chains)
    weights = _dirichlet(rng, np.ones((chains, MOST)), k)
    table = _log_k_given_filled(len(y))
    total = np.zeros((chains, MOST))
    for step in range(burn + steps):
        z = _allocate(rng, y, weights, means, variances, 1.0)
        counts = z.sum(1)
        order = np.argsort(counts == 0, axis=1, kind="stable")  # the filled ones first
        take = lambda x, order=order: np.take_along_axis(x, order, axis=1)  # noqa: E731
        counts, means, variances = take(counts), take(means), take(variances)
        z = np.take_along_axis(z, order[:, None], axis=2)
        means, variances = _components(rng, y, z, means, 1.0)
        log_p = table[(counts > 0).sum(1) - 1]
        p = np.exp(log_p - log_p.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        k = 1 + (rng.random((chains, 1)) > np.cumsum(p, 1)[:, :-1]).sum(1)
        weights = _dirichlet(rng, 1.0 + counts, k)
        if step >= burn:
            total += p
    return total / steps


def _log_k_given_filled(n: int) -> np.ndarray:
    """log p(k | partition) up to a constant, for t = 1, ... filled components and each k."""
    table = np.full((MOST, MOST), -np.inf)
    for t in range(1, MOST + 1):
        for k in range(t, MOST + 1):
            labels = lgamma(k + 1) - lgamma(k - t + 1)
            table[t - 1, k - 1] = labels + lgamma(k) - lgamma(n + k)
    return table


def annealed(
    rng: Rng, y: np.ndarray, k: int, particles: int, temperatures: int
) -> tuple[float, float]:
    """The log evidence of k components, and its standard error."""
    means, variances = _prior(rng, (particles, k))
    numbers = np.full(particles, k)
    weights = _dirichlet(rng, np.ones((particles, k)), numbers)
    z = _allocate(rng, y, weights, means, variances, 0.0)
    log_weight = np.zeros(particles)
    power = 0.0
    for later in (np.arange(1, temperatures + 1) / temperatures) ** 5:
        log_weight += (later - power) * _log_likelihood(y, z, means, variances)
        power = later
        means, variances = _components(rng, y, z, means, power)
        weights = _dirichlet(rng, 1.0 + z.sum(1), numbers)
        z = _allocate(rng, y, weights, means, variances, power)
    top = log_weight.max()
    w = np.exp(log_weight - top)
    return float(top + np.log(w.mean())), float(w.std() / w.mean() / np.sqrt(particles))


def one_component(y: np.ndarray) -> float:
    """The log evidence of one component: the mean in closed form, the variance by quadrature."""
    log_v = np.linspace(-5.0, 12.0, 20_001)
    v, n = np.exp(log_v), len(y)
    log_prior = SHAPE * np.log(RATE) - lgamma(SHAPE) - SHAPE * log_v - RATE / v
    spread = ((y - y.mean()) ** 2).sum()
    between = SD**2 + v / n
    log_like = -0.5 * n * np.log(2 * np.pi * v) - 0.5 * spread / v
    log_like += 0.5 * np.log(v / n / between) - 0.5 * (y.mean() - MEAN) ** 2 / between
    terms = log_prior + log_like
    return float(terms.max() + np.log(np.exp(terms - terms.max()).sum() * (log_v[1] - log_v[0])))


# -- Gibbs steps, for many chains at once ----------------------------------------------------


def _prior(rng: Rng, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(MEAN, SD, shape), RATE / rng.gamma(SHAPE, size=shape)


def _dirichlet(rng: Rng, counts: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Weights of the first k components; the others have none."""
    g = np.where(np.arange(counts.shape[1]) < k[:, None], rng.gamma(counts), 0.0)
    return g / g.sum(1, keepdims=True)


def _allocate(
    rng: Rng, y: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray,
    power: float,
) -> np.ndarray:  # fmt: skip
    """Allocations given all else, one-hot, of shape (chains, data, components)."""
    with np.errstate(divide="ignore"):
        log_w = np.log(weights)[:, None]
    v = variances[:, None]
    log_p = log_w - power * 0.5 * (np.log(v) + (y[:, None] - means[:, None]) ** 2 / v)
    p = np.cumsum(np.exp(log_p - log_p.max(2, keepdims=True)), axis=2)
    u = rng.random((*p.shape[:2], 1)) * p[..., -1:]
    chosen = (u >= p[..., :-1]).sum(2)
    return np.eye(p.shape[2])[chosen]


def _components(
    rng: Rng, y: np.ndarray, z: np.ndarray, means: np.ndarray, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Variances given means, then means given variances; empty components from the prior.

    An empty component keeps its mean for the draw of its variance, which does not depend on
    it, so that both are fresh.
    """
    counts, sums, squares = z.sum(1), y @ z, (y**2) @ z
    spread = squares - 2 * means * sums + counts * means**2
    variances = (RATE + 0.5 * power * spread) / rng.gamma(SHAPE + 0.5 * power * counts)
    precision = 1 / SD**2 + power * counts / variances
    centre = (MEAN / SD**2 + power * sums / variances) / precision
    return rng.normal(centre, precision**-0.5), variances


def _log_likelihood(
    y: np.ndarray, z: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> np.ndarray:
    """log p(y | allocations, components) of each chain."""
    counts, sums, squares = z.sum(1), y @ z, (y**2) @ z
    spread = squares - 2 * means * sums + counts * means**2
    return -0.5 * (counts * np.log(2 * np.pi * variances) + spread / variances).sum(1)


def _error(each: np.ndarray) -> np.ndarray:
    """The standard error of the mean over chains."""
    return each.std(0, ddof=1) / np.sqrt(len(each))


def main(chains: int = 200, burn: int = 1000, steps: int = 20_000) -> None:
    page = json.loads(PAGE.read_text())
    y = np.asarray(page["data"]["velocity"]) / 1000
    rng = np.random.default_rng(1)
    each = telescoping(rng, y, chains, burn, steps)
    pooled = np.c_[each[:, :3].sum(1), each[:, 3:]]
    page["reference"] = {
        "components": list(range(1, MOST + 1)),
        "probability": each.mean(0).tolist(),
        "mcse": _error(each).tolist(),
        "up_to_3_then_each": [pooled.mean(0).tolist(), _error(pooled).tolist()],
        "how": f"telescoping sampler, {chains} chains, {burn} + {steps} sweeps",
    }
    print(np.c_[page["reference"]["probability"], page["reference"]["mcse"]].round(6), flush=True)
    print("one component, by quadrature:", one_component(y))
    found = {}
    for k in range(1, 6):
        found[k] = annealed(rng, y, k, 1000, 4000)
        print(f"log evidence of {k}: {found[k][0]:.4f} ({found[k][1]:.4f})", flush=True)
    page["evidence"] = {
        "components": list(found),
        "log_evidence": [value for value, _ in found.values()],
        "se": [se for _, se in found.values()],
        "quadrature_one": one_component(y),
        "how": "annealed importance sampling, 1000 particles, 4000 temperatures",
    }
    PAGE.write_text(json.dumps(page, indent=1) + "\n")


if __name__ == "__main__":
    main()
