"""What `simulate` and `generate` denote, by quadrature: E[e^w s(t)] is the integral of p s."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import errors, integrate, quadrature
from ppl.addresses import flatten, nest
from ppl.arguments import Arguments
from ppl.program import Path
from ppl.sites import Site

from ..compiling import QUICK
from .cases import Case, Same
from .departures import EXACT, Found
from .stacked import eps, take

NODES = {1: (80, 120), 2: (80, 120), 3: (32, 48)}
"""Nodes for each continuous scalar, on two grids, by how many scalars there are."""
GRID = 1 << 17
"""Larger grids are not tried."""
MARGIN = 4.0
"""How many times the change between two grids the error of the finer one may be."""
RESOLVED = 1e-3
"""If the threshold is larger than this part of the mass, the grids are too coarse to decide."""


def check_integrals(case: Case, found: Found, method: str, constraint: Mapping[Path, Any]) -> None:
    """E[e^w s(t)] is the integral of p s over the choices not constrained, for s = 1 and a
    bounded smooth function of each of them. p is `assess`, on a grid of its own.
    """
    free = {path: site for path, site in case.sites.items() if path not in constraint}
    continuous = [site for site in free.values() if jnp.issubdtype(site.dtype, jnp.floating)]
    scalars = sum(int(np.prod(site.shape)) for site in continuous)
    if case.exact or case.draws or scalars not in NODES or len(case.always) < len(case.sites):
        return
    values = flatten(case.points.choices)
    scale = {path: _scale(np.asarray(values[path], float)) for path in free}
    sums = []
    for nodes in NODES[scalars]:
        grid = _grid(case, free, nodes)
        if grid is None:
            return
        choices, log_weights = grid
        n = len(log_weights)
        fixed = {
            p: np.broadcast_to(np.asarray(v), (n, *np.shape(v))) for p, v in constraint.items()
        }
        at = replace(take(case.points, np.zeros(n, int)), choices=nest({**choices, **fixed}))
        total = case.log_p(at) + log_weights
        masses = np.exp(np.where(np.isnan(total), -np.inf, total))
        want = masses @ np.asarray(jax.vmap(lambda c: _statistics(c, scale))(choices))
        static = (method, tuple(scale))
        got = _expected(
            static, case.same, nodes, case.arguments, nest(constraint), [*scale.values()]
        )
        sums.append((np.asarray(got), want, n))
    (coarse, coarse_want, _), (got, want, n) = sums
    change = np.max(np.abs(got - coarse)) + np.max(np.abs(want - coarse_want))
    mass = float(want[0])
    threshold = float(MARGIN * change / mass) + EXACT * eps() if mass > 0 else np.inf
    if not threshold <= RESOLVED:
        return
    error = np.abs(got - want) / mass
    i = int(np.argmax(error))
    what = f"{method}({', '.join(errors.show(path) for path in constraint)})"
    statistic = f"the integral of statistic {i}" if i else "the mass"
    words = f"{statistic} under {what} is {got[i]:.9g}, expected {want[i]:.9g}"
    found.method, found.n = "quadrature", found.n + n
    found.departs(float(error[i]), threshold, words)


def _scale(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and spread over the points."""
    spread = values.std(0)
    return jnp.asarray(values.mean(0)), jnp.asarray(np.where(spread > 0, spread, 1.0))


def _statistics(choices: Mapping[Path, Any], scale: Mapping[Path, Any]) -> jax.Array:
    each = [jnp.ravel((choices[path] - m) / s) for path, (m, s) in scale.items()]
    return jnp.concatenate([jnp.ones(1), *((z + 0.5) * jnp.exp(-z * z / 2) for z in each)])


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=QUICK)
def _expected(
    static: tuple, same: Same, nodes: int, arguments: Arguments, constraint: Any, scales: list
) -> jax.Array:
    method, names = static

    def weighted() -> jax.Array:
        if method == "simulate":
            trace, log_weight = same.model.simulate(*arguments.args), 0.0
        else:
            trace, log_weight = same.model.generate(constraint, *arguments.args)
        scale = dict(zip(names, scales, strict=True))
        return jnp.exp(log_weight) * _statistics(flatten(trace.choices), scale)

    return integrate(weighted, nodes=nodes)()


def _grid(case: Case, free: Mapping[Path, Site], nodes: int) -> Any:
    """Values of the free choices, stacked, and their log weights: every outcome of finite ones,
    and of continuous ones a grid on the unconstrained line around the points. None: no grid."""
    z, w = quadrature.sinh_grid(nodes)
    tables = {
        path: None
        if jnp.issubdtype(site.dtype, jnp.floating)
        else quadrature.outcomes(site.distribution)
        for path, site in free.items()
    }
    sizes = []
    for path, site in free.items():
        table = tables[path]
        if table is None and not jnp.issubdtype(site.dtype, jnp.floating):
            return None
        sizes += [nodes if table is None else len(table)] * int(np.prod(site.shape))
    if np.prod([float(size) for size in sizes]) > GRID:
        return None
    digits = np.indices(sizes).reshape(len(sizes), -1)
    values, log_weights, used = {}, np.zeros(digits.shape[1]), 0
    for path, site in free.items():
        count, table = int(np.prod(site.shape)), tables[path]
        index = digits[used : used + count].T.reshape(-1, *site.shape)
        used += count
        if table is not None:
            values[path] = jnp.asarray(table[index], site.dtype)
            continue
        try:
            bijection = dist.biject_to(site.distribution.support)
            there = bijection.inv(flatten(case.points.choices)[path])
            m, s = _scale(np.asarray(there, float))
            line = m + s * z[index]
            values[path] = jnp.asarray(bijection(line), site.dtype)
            jacobian = bijection.log_abs_det_jacobian(line, values[path])
            log = np.asarray(jacobian + jnp.log(s) + np.log(w)[index])
            log_weights += log.reshape(*index.shape).reshape(len(log), -1).sum(1)
        except Exception:  # a support that other choices decide, or of no independent scalars
            return None
    return values, log_weights
