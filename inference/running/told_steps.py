"""Steps whose parts can be looked at: what happened on the way is told by those that can."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..smc.particles import History, Over, Telling
from ..weighted import Each, Spawn, Step, Then, Weighted, unit

Told = Then | Over | Telling
STEPS = (Then, Over, Telling)


def told(step: Told) -> tuple[Weighted, History | None]:
    """What the step makes of the unit measure, and the history of all of it, if it has one."""
    weighted, histories = unit(), []
    for part in flat(step):
        if isinstance(part, (Over, Telling)):
            weighted, history = part.recorded(weighted)
            histories.append(history)
        else:
            weighted = part(weighted)
    if not histories:
        return weighted, None
    if len(histories) == 1:
        return weighted, histories[0]
    return weighted, jax.tree.map(lambda *x: jnp.concatenate(x), *histories)


def flat(step: Step) -> list[Step]:
    """The steps that `then` composed, of however many levels."""
    if isinstance(step, Then):
        return [part for inner in step.steps for part in flat(inner)]
    return [step]


def independent(step: Step) -> bool:
    """Whether no particle that a step makes depends on another: copies, and steps on each of them.

    >>> from inference import each, resample, spawn, then
    >>> from inference.running.told_steps import independent
    >>> alone = then(spawn(4), each(lambda s: s))
    >>> independent(alone), independent(then(alone, resample))
    (True, False)
    """
    parts = flat(step)
    return all(isinstance(part, (Spawn, Each)) for part in parts)
