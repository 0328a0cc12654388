"""How the laws call the methods: programs of a model, its arguments and something static.

What they return is compared by the laws; `Case.run` runs them, by paths or by keys.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import errors, everything, seed, select
from ppl.addresses import flatten, nest
from ppl.program import Path


def start(model: Any, args: tuple, _: Any) -> Any:
    """A trace of `generate({})`, all of it drawn, and its log weight."""
    return model.generate({}, *args)


def simulate(model: Any, args: tuple, _: Any) -> Any:
    """A trace drawn from the model."""
    return model.simulate(*args)


def assess(model: Any, args: tuple, step: Any, trace: Any) -> Any:
    """Score and return value of a trace's choices, its floats moved by a part `step` of them."""

    def moved(leaf: jax.Array) -> jax.Array:
        if not step or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        signs = np.random.default_rng(0).choice([-1, 1], leaf.shape)
        return leaf * jnp.asarray(1 + step * signs, leaf.dtype)

    return model.assess(jax.tree.map(moved, trace.choices), *args)


def generate(model: Any, args: tuple, drawn: Any, constraint: Any) -> Any:
    """A trace that extends the constraint, its log weight, and the score of what was drawn."""
    trace, log_weight = model.generate(constraint, *args)
    own = 0.0 if drawn is None else model.project(trace, select(*drawn))
    return trace, log_weight, own


def update(model: Any, args: tuple, moved: tuple[Path, ...], trace: Any, other: Any) -> Any:
    """The new trace, its score, the log weight; then what `update` by the discarded gives."""
    given = nest({path: flatten(other.choices)[path] for path in moved})
    new, log_weight, discarded = model.update(trace, given)
    # the old trace is all in `new` and `discarded`: the key decides nothing
    back, undone, _ = seed(lambda: model.update(new, discarded))(jax.random.key(0))
    return new, model.assess(new.choices, *args)[0], log_weight, back, undone


def regenerate(model: Any, args: tuple, chosen: tuple[Path, ...], trace: Any) -> Any:
    """The new trace, its log weight, and how much the score of what was kept changed."""
    new, log_weight, _ = model.regenerate(trace, select(*chosen))
    kept = ~select(*chosen)
    return new, log_weight, model.project(new, kept) - model.project(trace, kept)


def project(model: Any, args: tuple, sites: tuple[Path, ...], trace: Any) -> Any:
    """The scores of single choices, of all others, of those not in `sites`, and of all."""
    parts = [model.project(trace, select(path)) for path in sites]
    others = [model.project(trace, ~select(path)) for path in sites]
    rest = model.project(trace, ~select(*sites))
    stack = lambda found: jnp.stack([jnp.zeros(()), *found])  # noqa: E731  (never empty)
    return stack(parts), stack(others), rest, model.project(trace, everything)


def methods(model: Any, args: tuple, names: Any, trace: Any, other: Any) -> Any:
    """What the methods make of a trace."""
    moved, chosen = names
    given = nest({path: flatten(other.choices)[path] for path in moved})
    found: dict[str, Any] = {"generate": model.generate(given, *args)}
    with suppress(errors.CannotSimulate):
        found["simulate"] = model.simulate(*args)
    if chosen:
        found["update"] = model.update(trace, given)
        found["regenerate"] = model.regenerate(trace, select(*chosen))
        found["project"] = model.project(trace, ~select(*chosen))
        found["assess"] = model.assess(trace.choices, *args)
    return found
