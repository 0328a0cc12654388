"""Pictures of particles, as matplotlib figures: `figure.savefig("ess.png")`.

The effective number of particles over the steps, the weights of the last ones, and who descends
from whom. Figures are matplotlib's own, outside of pyplot: no global state, no window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl import errors
from ppl.addresses import as_path, flatten, not_found

from ..smc.filtering import Path
from ..smc.particles import History
from ..smc.resample import effective_sample_size
from ..validation.packages import extra
from ..validation.settings import check_number
from ..weighted import Weighted, normalized
from .degeneracy import FLOOR, below, least, parts
from .particles import Particles

_SEGMENTS = 20_000


def plot_ess(found: Any, *, floor: float = FLOOR) -> Any:
    """The effective number of particles after each step, and what each adds to the log evidence.

    The dashed line is the floor of the `degeneracy` verdict; crosses are the steps below it.

    Args:
      found: what a filter or an annealing gives, with its `history`; a `ParticleRun`; or
        `Particles`, of which there is a line for each run.
      floor: as for `degeneracy`.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: there is no history.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, plot_ess, recorded, reweight
    >>> start = Weighted(jnp.array([0.0, 1.0]), jnp.zeros(2))
    >>> steps = recorded(lambda a: reweight(lambda x: a * x), jnp.array([0.0, 700.0]))
    >>> figure = plot_ess(steps(start))
    >>> figure.axes[0].lines[0].get_ydata().round(4).tolist()
    [2.0, 1.0]
    """
    check_number("floor", floor, least=0, most=1, fix=FLOOR)
    if isinstance(found, Particles):
        n, told = found.shape[1], found.history
        if not told:
            raise _lacking(found, History, "no history", "an algorithm that goes step by step")
        all_ess, all_masses = told["ess"], told["log_evidence"]
    else:
        history = _one(found, History, "no history", "particle_filter(...), or run_particles")
        n = _particles(found).log_weight.shape[0]
        all_ess, all_masses = np.asarray(history.ess)[None], np.asarray(history.log_evidence)[None]
    figure, (top, bottom) = _figure(2, 7, 4)
    bound = least(n, floor)
    for ess in all_ess:
        top.plot(np.arange(len(ess)), ess, lw=0.8)
    top.axhline(bound, color="k", lw=0.6, ls="--")
    for ess, masses in zip(all_ess, all_masses, strict=True):
        few = np.flatnonzero(below(ess, bound))
        top.plot(few, ess[few], "rx", ms=5)
        with np.errstate(invalid="ignore"):  # after an evidence of zero there is nothing to show
            gains = np.diff(masses, prepend=0.0)
        bottom.plot(np.arange(len(ess)), gains, lw=0.8)
    top.set_ylim(0, 1.05 * n)
    top.set_title(f"effective number of {n} particles", fontsize=9)
    bottom.set_title("what each step adds to the log evidence", fontsize=9)
    bottom.set_xlabel("step")
    return figure


def plot_weights(found: Any) -> Any:
    """The Lorenz curve of the last weights: what share of the mass the lightest particles have.

    Even weights are the diagonal; few particles that count bend it into the corner.

    Args:
      found: particles, or a result that has them.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: there are no particles.

    >>> import jax.numpy as jnp
    >>> from inference import Weighted, plot_weights
    >>> figure = plot_weights(Weighted((), jnp.log(jnp.array([3.0, 1.0]))))
    >>> curve = figure.axes[0].lines[0]
    >>> curve.get_xdata().tolist(), curve.get_ydata().round(4).tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.25, 1.0])
    """
    log_weights = _particles(found).log_weight
    n = log_weights.shape[0]
    figure, (ax,) = _figure(1, 3.5, 3.5)
    shares = np.concatenate([[0.0], np.cumsum(np.sort(np.asarray(normalized(log_weights))))])
    ax.plot(np.linspace(0, 1, n + 1), shares, lw=1.0)
    ax.plot([0, 1], [0, 1], "k--", lw=0.6)
    dead = np.max(np.asarray(log_weights)) == -np.inf
    ess = float(effective_sample_size(log_weights))
    ax.set_title(
        "all weights are zero" if dead else f"{ess:.4g} of {n} particles count", fontsize=9
    )
    ax.set_xlabel("share of the particles, the lightest first")
    ax.set_ylabel("share of the mass")
    return figure


def plot_ancestry(found: Any, address: str | tuple[str, ...]) -> Any:
    """The paths of a choice over the steps: dark where the last particles descend from it.

    Below, how many particles of each step have descendants among the last ones of positive
    weight: where it is one, smoothing by `genealogy` rests on one path.

    Args:
      found: what `particle_filter(..., history=True)` gives, or a `ParticleRun` of it.
      address: a scalar choice of the step.

    Raises:
      MissingPackage: matplotlib is not installed (`pip install 'giry[plots]'`).
      InvalidArgument: the filter did not keep its particles.
      AddressNotFound: there is no such choice.
      ShapeError: the choice is an array.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import particle_filter, plot_ancestry
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.arange(30.0)}
    >>> run = seed(lambda: particle_filter(walk, 0.0, ys, 50, history=True))
    >>> left = plot_ancestry(run(jax.random.key(0)), "z").axes[1].lines[0].get_ydata()
    >>> left.shape, int(left[-1]), bool((left[:-1] <= left[1:]).all())
    ((30,), 50, True)
    """
    path = _one(found, Path, "no kept particles", "particle_filter(..., history=True)")
    values = _values(path, as_path(address))
    lineages = _lineages(path)
    figure, (top, bottom) = _figure(2, 7, 5)
    steps, n = values.shape
    collections = extra("matplotlib.collections", "plots", "Plotting")
    ancestors = np.asarray(path.ancestors)
    everyone = [np.arange(n)] * steps
    if n * steps <= _SEGMENTS:
        grey = _segments(values, ancestors, everyone)
        top.add_collection(collections.LineCollection(grey, color="0.8", lw=0.3))
        note = "all particles; dark: with descendants at the end"
    else:
        note = f"of {n} particles, those with descendants at the end"
    dark = _segments(values, ancestors, lineages)
    top.add_collection(collections.LineCollection(dark, color="C0", lw=0.6))
    top.autoscale_view()
    top.set_title(f"{'/'.join(as_path(address))}: {note}", fontsize=9)
    left = [len(alive) for alive in lineages]
    bottom.plot(np.arange(steps), left, lw=0.8)
    if any(left):  # none, where all weights are zero
        bottom.set_yscale("log")
    bottom.set_title("particles with descendants at the end", fontsize=9)
    bottom.set_xlabel("step")
    return figure


def _lineages(path: Path) -> list[np.ndarray]:
    """For each step, the particles with descendants of positive weight at the end, in order."""
    ancestors, last = np.asarray(path.ancestors), np.asarray(path.log_weight[-1])
    alive = [np.flatnonzero(last > -np.inf)]
    for row in ancestors[:0:-1]:
        alive.append(np.unique(row[alive[-1]]))
    return alive[::-1]


def _segments(values: np.ndarray, ancestors: np.ndarray, alive: list[np.ndarray]) -> np.ndarray:
    """From each particle's ancestor to it: shape (number of segments, 2, 2)."""
    found = [np.zeros((0, 2, 2))]
    for t in range(1, len(values)):
        here, before = alive[t], ancestors[t][alive[t]]
        ends = np.stack([values[t - 1][before], values[t][here]], 1)
        times = np.broadcast_to([t - 1.0, t], ends.shape)
        found.append(np.stack([times, ends], -1))
    return np.concatenate(found)


def _values(path: Path, address: tuple[str, ...]) -> np.ndarray:
    choices = flatten(path.choices)
    if address not in choices:
        raise not_found(address, choices, "The picture")
    values = np.asarray(choices[address])
    if values.ndim != 2:
        raise errors.ShapeError(
            f"The choice {errors.show(address)} is an array, and one number is drawn.",
            where=errors.caller(), given=f"shape {values.shape[2:]} at each step",
            expected="a scalar choice", fix="sample the element under an address of its own",
        )  # fmt: skip
    return values


def _particles(found: Any) -> Weighted:
    if isinstance(found, Particles):
        return Weighted((), found.log_weight.ravel())
    particles = _one(found, Weighted, "no particles", "what a filter or an annealing gives")
    if np.ndim(particles.log_weight) != 1:
        raise errors.InvalidArgument(
            "One weighted value has no weights to compare.", where=errors.caller(),
            given="no particle axis", expected="particles", fix="then(spawn(100), ...)",
        )  # fmt: skip
    return particles


def _one(found: Any, kind: type, lacks: str, fix: str) -> Any:
    record = next(parts(found, kind), None)
    if record is None:
        raise _lacking(found, kind, lacks, fix)
    return record


def _lacking(found: Any, kind: type, lacks: str, fix: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"There is {lacks} to draw.", where=errors.caller(),
        given=f"a {type(found).__name__}", expected=f"a result with a {kind.__name__}", fix=fix,
    )  # fmt: skip


def _figure(rows: int, width: float, height: float) -> tuple[Any, Any]:
    matplotlib = extra("matplotlib.figure", "plots", "Plotting")
    figure = matplotlib.Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]
