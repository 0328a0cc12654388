"""The checks of a verdict: each looks at one thing, and says what to do about it.

A check is a function of `Diagnosed` draws to findings; `CHECKS` has them, the most serious first.
A new one is a function more in that list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl import Target

from .precision import X64, Limit
from .prior_faults import DRAWS, prior_faults
from .verdict import Finding, Verdict, array_stats, bfmi, divergences

RHAT, ESS_PER_CHAIN, BFMI = 1.01, 100, 0.3
"""Vehtari et al. 2021, sections 3.3 and 4.1 (400 draws' worth over four chains);
Betancourt 2016 for BFMI, as in Stan."""

FEWEST = 4
"""Draws of a chain for an R-hat: two halves of two draws."""

SETTLED = 1.1
"""A chain whose halves have a smaller R-hat than this stays where it is (Gelman et al. 2013)."""

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Diagnosed:
    """What checks look at.

    Attributes:
      rows: by scalar, its numbers and a note on what is degenerate, as a summary has them.
      shape: (chains, draws).
      stats: what the kernels report, arrays (chains, draws), by full name.
      status: how the run ended.
      scalars: the draws of each scalar, (chains, draws); left out where only numbers are known.
      target: what was drawn from, if that is known.
      derived: the scalars that are functions of others.
      limit: what float32 is too coarse for, if it is.
    """

    rows: Rows
    shape: tuple[int, int]
    stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    status: str = "complete"
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)
    target: Target | None = None
    derived: frozenset[str] = frozenset()
    limit: Limit | None = None

    def statistic(self, name: str) -> dict[str, np.ndarray]:
        """The statistics of this name, by full name."""
        return {full: x for full, x in self.stats.items() if full.split("/")[-1] == name}

    @property
    def usual(self) -> Rows:
        """The rows of scalars that have numbers: neither constant nor infinite."""
        return {name: row for name, row in self.rows.items() if not row["note"]}


Check = Callable[[Diagnosed], Iterator[Finding]]


def finite(found: Diagnosed) -> Iterator[Finding]:
    """All draws are numbers, and there are some."""
    n = math.prod(found.shape)
    bad = [
        (name, row)
        for name, row in found.rows.items()
        if row["note"].split(" ")[-1] in ("NaN", "infinite", "draws")
    ]
    if bad:
        name, row = bad[0]
        yield Finding(
            "finite", name, row["mean"],
            f'"{name}" has {row["note"]}' + (f" among {n} draws" if n else "") + _more(bad),
            ("look at what it is derived from" if name in found.derived
             else "look for overflow in its density, or a start outside the support")
            if n else "run it",
        )  # fmt: skip


def precise(found: Diagnosed) -> Iterator[Finding]:
    """Single precision is enough for the log density and for the supports."""
    if found.limit is not None:
        text = f"float32 is too coarse: {found.limit.text}"
        yield Finding("precision", found.limit.name, found.limit.value, text, X64)


def moving(found: Diagnosed) -> Iterator[Finding]:
    """Every scalar moves, in every chain; but for those that cannot, and those of few draws."""
    rows = [(name, row) for name, row in found.rows.items() if name not in found.derived]
    still = [(name, row) for name, row in rows if row["note"] == "constant"]
    n = math.prod(found.shape)
    if still:
        name, row = still[0]
        text = f'"{name}" is constant ({row["mean"]:g} in all {n} draws){_more(still)}'
        yield Finding("constant", name, row["mean"], text, "add a kernel that moves it")
    stuck = [(name, row) for name, row in rows if row["note"].startswith(("chain", "each chain"))]
    if stuck:
        name, row = stuck[0]
        text = f'"{name}": {row["note"]}{_more(stuck)}'
        action = "make smaller steps, or start it elsewhere"
        yield Finding("constant", name, row["mean"], text, action)


def enough(found: Diagnosed) -> Iterator[Finding]:
    """There are chains to compare, and draws in them."""
    chains, draws = found.shape
    if found.rows and draws and (chains < 2 or draws < FEWEST):
        one = f"{chains} chain{'s' * (chains != 1)} of {draws} draw{'s' * (draws != 1)}"
        text = f"{one} say{'s' * (chains == 1)} nothing"
        action = f"R-hat needs 2 chains of {FEWEST} draws; use 4 of 1000"
        yield Finding("rhat", "", math.nan, text, action)


def diverging(found: Diagnosed) -> Iterator[Finding]:
    """No trajectory left the level set of its energy."""
    stats = found.statistic("diverging")
    count = int(divergences(stats).count.sum()) if stats else 0
    if count:
        name = ", ".join(k for k, x in stats.items() if np.any(x))
        text = f"{count} of {math.prod(found.shape)} transitions diverged ({name})"
        action = "raise target_accept, or reparameterise (centred or not)"
        yield Finding("divergences", name, count, text, action)


def sound(found: Diagnosed) -> Iterator[Finding]:
    """Where chains break off or stay, the model itself is not at fault."""
    if found.target is None or not any(True for check in (moving, diverging) for _ in check(found)):
        return
    for fault, count in prior_faults(found.target).items():
        action = "look for overflow, or for parameters that have no meaning there"
        if fault.startswith("the param"):
            action = "constrain it (jnp.exp, jax.nn.softplus), or choose a prior on its range"
        text = f"{fault} in {count} of {DRAWS} draws of the prior"
        yield Finding("model", "", count, text, action)
        return


def agreeing(found: Diagnosed) -> Iterator[Finding]:
    """The chains agree; if they do not, whether each has settled in a place of its own."""
    chains, draws = found.shape
    bad = [(name, row) for name, row in _compared(found).items() if not row["rhat"] <= RHAT]
    if chains < 2 or draws < FEWEST or not bad:
        return
    name, row = max(bad, key=lambda item: _rank(item[1]["rhat"]))
    text = f'R-hat of "{name}" is {row["rhat"]:.4f} > {RHAT}{_more(bad)}'
    for other, _ in sorted(bad, key=lambda item: -_rank(item[1]["rhat"])):
        places = apart(found.scalars[other]) if other in found.scalars else ""
        if places:
            whose = "its chains" if other == name else f'the chains of "{other}"'
            text += f", and {whose} have settled apart ({places})"
            action = "cross between modes, by parallel_tempering, or by annealed particles"
            break
    else:
        action = "the chains disagree; more warmup and draws, or parallel_tempering if there "
        action += "are several modes"
    yield Finding("rhat", name, row["rhat"], text, action)


def long_enough(found: Diagnosed) -> Iterator[Finding]:
    """The draws are worth enough independent ones."""
    chains, draws = found.shape
    least = ESS_PER_CHAIN * chains
    worth = {
        name: min((row["ess_bulk"], row["ess_tail"]), key=lambda x: -_rank(-x))
        for name, row in _compared(found).items()
    }
    bad = [(name, value) for name, value in worth.items() if not value >= least]
    if draws < FEWEST or not bad:
        return
    name, value = max(bad, key=lambda item: _rank(-item[1]))
    kind = "tail" if found.rows[name]["ess_tail"] == value else "bulk"
    text = f'{kind} ESS of "{name}" is {value:.0f} < {least} ({ESS_PER_CHAIN} a chain){_more(bad)}'
    times = "more" if math.isnan(value) else f"about {math.ceil(least / value)} times as many"
    disagree = any(True for _ in agreeing(found))
    action = "first make the chains agree" if disagree else f"draw {times}, or thin as much"
    yield Finding("ess", name, value, text, action)


def energetic(found: Diagnosed) -> Iterator[Finding]:
    """The momentum moves the energy over its whole range."""
    for full, each in _energies(found).items():
        at = int(np.argmin(each))
        if not each[at] >= BFMI:
            text = f"BFMI of chain {at + 1} is {each[at]:.2f} < {BFMI} ({full})"
            action = "reparameterise heavy tails, or give more warmup"
            yield Finding("bfmi", full, float(each[at]), text, action)


def deep_enough(found: Diagnosed) -> Iterator[Finding]:
    """A note: trajectories that were cut short, which costs time and no truth."""
    for full, x in found.statistic("reached_max_depth").items():
        count = int(np.sum(x))
        if count:
            text = f"{count} of {x.size} trajectories reached max_depth ({full})"
            action = "reparameterise what is far narrower than it is long, or raise max_depth"
            yield Finding("depth", full, count, text, action, fails=False)


CHECKS: tuple[Check, ...] = (
    finite, precise, sound, moving, enough, diverging, agreeing, long_enough, energetic,
    deep_enough,
)  # fmt: skip


def judge(found: Diagnosed, checks: tuple[Check, ...] = CHECKS) -> Verdict:
    """The verdict: what each check found, in their order; or, if nothing fails, the numbers.

    >>> import numpy as np
    >>> from inference.results.checks import Diagnosed, judge
    >>> row = {"note": "", "mean": 0.0, "rhat": 1.002, "ess_bulk": 900.0, "ess_tail": 800.0}
    >>> print(judge(Diagnosed({"mu": row}, (4, 500))))
    converged: 1 scalar, 4 chains x 500 draws; R-hat <= 1.002; ESS >= 800
    """
    suffix = "" if found.status == "complete" else f" (the run: {found.status})"
    findings = tuple(finding for check in checks for finding in check(found))
    failed = [finding for finding in findings if finding.fails]
    if failed:
        first = failed[0]
        line = f"not converged: {first}{suffix}"
        ordered = (*failed, *(x for x in findings if not x.fails))
        return Verdict(False, first.check, first.name, first.value, line, ordered)
    line = f"converged: {'; '.join(_told(found))}{suffix}"
    return Verdict(True, "", "", math.nan, line, findings)


def apart(x: np.ndarray) -> str:
    """Where chains (chains, draws) have settled, if each stays where it is: "1, 2 near 0; ...".

    Chains are together if the step from one to the next, in the order of their means, is less
    than two of their standard deviations. Empty if they are all together, or if one of them
    still moves from place to place: its halves differ.

    >>> import numpy as np
    >>> from inference.results.checks import apart
    >>> x = np.random.default_rng(0).normal(size=(3, 100))
    >>> apart(x + np.array([[5.0], [-5.0], [5.0]])), apart(x)
    ('2 near -5.05; 1, 3 near 4.97', '')
    """
    x = np.asarray(x, np.float64)
    means, within = x.mean(1), np.sqrt(x.var(1).mean())
    order = np.argsort(means)
    gaps = np.diff(means[order])
    if x.shape[1] < 2 * FEWEST or not within > 0 or not (gaps > 2 * within).any():
        return ""
    halves = x[:, : x.shape[1] // 2 * 2].reshape(len(x), 2, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        for chain in halves:
            rhat = array_stats().rhat(chain, chain_axis=0, draw_axis=1, method="split")
            if not rhat < SETTLED:
                return ""
    groups = np.split(order, np.flatnonzero(gaps > 2 * within) + 1)
    shown = [
        f"{', '.join(str(i + 1) for i in sorted(group))} near {means[group].mean():.3g}"
        for group in groups
    ]
    return "; ".join(shown)


def _told(found: Diagnosed) -> list[str]:
    """The numbers of draws that pass."""
    n, (chains, draws) = len(found.rows), found.shape
    fixed = sum(row["note"].startswith("fixed") for row in found.rows.values())
    told = [f"{n} scalar{'s' * (n != 1)}{f' ({fixed} fixed)' if fixed else ''}"]
    told[0] += f", {chains} chains x {draws} draws"
    if found.usual:
        told.append(f"R-hat <= {max(row['rhat'] for row in found.usual.values()):.3f}")
        least = min(min(row["ess_bulk"], row["ess_tail"]) for row in found.usual.values())
        told.append(f"ESS >= {least:.0f}")
    if found.statistic("diverging"):
        told.append("no divergences")
    energies = [each.min() for each in _energies(found).values()]
    return told + ([f"BFMI >= {min(energies):.2f}"] if energies else [])


def _energies(found: Diagnosed) -> dict[str, np.ndarray]:
    """By energy statistic, the BFMI of each chain."""
    if found.shape[1] < FEWEST:
        return {}
    return {full: bfmi(x) for full, x in found.statistic("energy").items()}


def _compared(found: Diagnosed) -> Rows:
    """The rows whose chains can be compared: those of some chains that move, too."""
    return {k: row for k, row in found.rows.items() if row["note"] == "" or _some_stuck(row)}


def _some_stuck(row: Mapping[str, Any]) -> bool:
    return row["note"].startswith("chain")


def _rank(x: float) -> float:
    """The order of badness: a number that is none is worst."""
    return math.inf if math.isnan(x) else x


def _more(items: list) -> str:
    return f", and {len(items) - 1} more" if len(items) > 1 else ""
