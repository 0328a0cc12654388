"""A case: a model with its arguments and traces of positive mass, and how its methods are run.

The methods are random programs. Those of a finite model are run along all `paths`, so that
their laws are known; those of others by keys, at points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors, paths, seed
from ppl.arguments import Arguments
from ppl.program import DRAW, Path
from ppl.randomness import program_of
from ppl.sites import Site

from ..compiling import QUICK
from ..report import Verdict
from . import calls
from .stacked import eps, log_of, merged, one_axis, rows_of, take

POINTS = 20
"""How many traces the equations are tried at."""
PATHS = 4096
"""Models with more paths than this are not enumerated."""


@dataclass(frozen=True, eq=False)
class Same:
    """A model as a static argument of compiled code: compared by identity."""

    model: Any

    def __hash__(self) -> int:
        return id(self.model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.model is self.model


@dataclass(frozen=True)
class Case:
    """A model with its arguments, and stacked traces of positive mass.

    `real` tells which of the `traces` have positive mass, `points` are `POINTS` of those. Of a
    finite model, `started` has the masses of its choice maps under `generate({})`, and
    `table` their log densities. `size` is that of rounding in a score; `draws`: scores are
    estimates.
    """

    same: Same
    arguments: Arguments
    constraints: Mapping[str, Any]
    sites: dict[Path, Site]
    exact: bool
    draws: bool = False
    traces: Any = None
    real: Any = None
    points: Any = None
    started: Mapping[tuple, float] = field(default_factory=dict)
    table: Mapping[tuple, float] = field(default_factory=dict)
    size: float = 1.0

    def run(self, program: Callable, static: Any, *stacked: Any, n: int = 0) -> Any:
        """`program(model, args, static, *each)` for each of what is stacked: its outcomes as
        numpy arrays [n, outcomes, ...], and their probabilities [n, outcomes]."""
        keys = fixed_keys(n or len(jax.tree.leaves(stacked)[0]))
        found = _run(program, self.same, static, self.exact, self.arguments, keys, *stacked)
        return jax.tree.map(np.asarray, found)

    @property
    def method(self) -> str:
        return "exact" if self.exact else "identity"

    @property
    def always(self) -> list[Path]:
        """The choices that are made in every trace."""
        return [path for path, site in self.sites.items() if not site.conditional]

    @property
    def names(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The choices that are updated, and those that are redrawn: half of them."""
        sites, always = tuple(self.sites), tuple(self.always)
        return always[: (len(always) + 1) // 2], sites[: (len(sites) + 1) // 2]

    @property
    def possible(self) -> Any:
        return take(self.traces, self.real)

    @property
    def args(self) -> tuple:
        return self.arguments.args

    @property
    def sampled(self) -> Case:
        """The same, run by keys."""
        return replace(self, exact=False)

    @property
    def everything(self) -> tuple:
        """The arguments of `calls.methods`."""
        moved, chosen = self.names
        return (moved, () if self.draws else chosen), self.points, self.others

    @property
    def parts(self) -> tuple[Path, ...]:
        """The choices that are projected one by one."""
        sites = tuple(self.sites)
        return tuple(dict.fromkeys((*sites[:3], *sites[-3:])))

    @property
    def others(self) -> Any:
        """For each of the points, another trace."""
        return take(self.points, np.roll(np.arange(POINTS), 1))

    def masses(self, traces: Any) -> dict[tuple, float]:
        """The masses of these choices, in a finite model."""
        return {row: float(np.exp(self.table[row])) for row in rows_of(traces)}

    def log_p(self, traces: Any) -> np.ndarray:
        """The log density of the choices of each trace, by `assess`."""
        if self.exact:
            return np.array([self.table.get(row, -np.inf) for row in rows_of(traces)])
        return self.run(calls.assess, 0.0, traces)[0][0][:, 0]


def fixed_keys(n: int) -> jax.Array:
    """The same `n` keys on every call: verdicts do not depend on luck."""
    return jax.random.split(jax.random.key(0), n)


def _with_outcomes(
    program: Callable, same: Same, static: Any, exact: bool, arguments: Arguments,
    keys: jax.Array, *stacked: Any,
) -> Any:  # fmt: skip
    def each(key: jax.Array, *one: Any) -> Any:
        run = lambda: program(same.model, arguments.args, static, *one)  # noqa: E731
        if exact:
            return paths(run)()
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], seed(run)(key)), jnp.ones(1)

    return jax.vmap(each)(keys, *stacked)


_run = jax.jit(_with_outcomes, static_argnums=(0, 1, 2, 3), compiler_options=QUICK)


def case_of(model: Any, args: tuple, constraints: Mapping[str, Any]) -> Case | Verdict:
    """The model made ready; a failed verdict if its methods cannot be run."""
    try:
        arguments = Arguments.of(args, {}, getattr(model, "fixed", frozenset()))
        exact = _finite(model, args)
        case = Case(Same(model), arguments, constraints, dict(model.sites(*args)), exact)
        (traces, log_weights), masses = one_axis(
            case.run(calls.start, (), n=1 if exact else POINTS)
        )
        real = (masses > 0) & (log_weights > -np.inf)
        masses = masses * np.exp(np.where(real, log_weights, 0.0))
        if not real.any():
            raise ValueError("no trace of generate({}) has positive mass")
        order = np.random.default_rng(0).permutation(np.flatnonzero(real))
        points = take(traces, np.resize(order, POINTS))
        staged, _ = program_of(lambda t: model.assess(t.choices, *args), (take(points, 0),), {})
        draws = DRAW in staged.program.effects
        case = replace(case, draws=draws, traces=traces, real=real, points=points)
        if exact:
            (scores, _), ways = case.run(calls.assess, 0.0, traces)
            log_p = np.logaddexp.reduce(scores + log_of(ways), 1)[real].tolist()
            rows = rows_of(take(traces, real))
            table = dict(zip(rows, log_p, strict=True))
            return replace(case, started=merged(rows, masses[real]), table=table)
        return case if draws else replace(case, size=_size(case))
    except Exception as error:
        return crashed("generate", error)


def _finite(model: Any, args: tuple) -> bool:
    """Whether the paths of the model are finitely many, and few."""
    try:
        counted = jax.eval_shape(paths(lambda: model.generate({}, *args)[1]))[1]
    except errors.CannotIntegrate:
        return False
    return counted.shape[0] <= PATHS


def _size(case: Case) -> float:
    """How large rounding can make an error in the score of a point, in epsilons.

    One for each log density, their sizes, and how much the score changes when the choices
    do: a value that is wrong by a part eps changes log p by eps |x d log p / dx|.
    """
    size = 1 + sum(int(np.prod(site.shape)) for site in case.sites.values())
    with suppress(Exception):  # reported by the law of project
        parts, _, rest, _ = take(case.run(calls.project, case.parts, case.points)[0], np.s_[:, 0])
        size = size + np.abs(parts).sum(-1) + np.abs(rest)
    step = float(np.sqrt(eps()))
    moved = case.run(calls.assess, step, case.points)[0][0][:, 0] - case.log_p(case.points)
    sensitive = np.where(np.isfinite(moved), np.abs(moved), 0.0) / step
    return float(np.max(size + sensitive))


def crashed(name: str, error: Exception) -> Verdict:
    """The failed verdict of a method that raised, and where in the user's code."""
    text = f"raised {type(error).__name__}: {error}\n  where:    {errors.place_in(error)}"
    return Verdict(name, False, "none", float("inf"), eps(), 0, witness=text)
