"""How kernels that step through unconstrained space begin: checks, space, metric, tuning.

A kernel is then a step on states of that space, which takes all that it knows of the target from
the space: nothing else of its closure holds data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ppl import Selection, Target

from ..kernel import Kernel, State, Stats
from ..validation.objects import check_target
from ..validation.settings import check_flag, check_number
from .adaptation import windows
from .first_metric import FirstMetric
from .metric import Metric, unit_metric
from .space import Space


class Prologue:
    """The space of the selected latents, and the metric to start from, of settings in range.

    Args:
      target, selection, estimates: as for `Space`.
      step_size: None for the `usual` one, from the number of coordinates; a run then finds its
        first step size itself.
      target_accept: from the number of coordinates; None keeps the step size in a warm-up.
      slopes: whether its kernel is given a `gradient`, which a metric of low rank needs.

    Raises:
      InvalidArgument: a setting is out of range, or a latent has no unconstrained space.

    >>> import numpyro.distributions as dist
    >>> from inference.mcmc.prologue import Prologue, accepting
    >>> from ppl import Target, gen, sample
    >>> target = Target(gen(lambda: sample("x", dist.Normal(0.0, 1.0).expand([3]))))
    >>> begun = Prologue(target, None, None, False, accepting(0.8), lambda n: 1.0 / n)
    >>> begun.space.size, round(begun.metric.step_size, 4), begun.metric.inverse_mass.tolist()
    (3, 0.3333, [1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        target: Target,
        selection: Selection | str | tuple[str, ...] | None,
        step_size: float | None,
        dense: bool | None,
        target_accept: Callable[[int], float | None],
        usual: Callable[[int], float],
        *,
        estimates: bool = False,
        slopes: bool = False,
    ):
        check_target(target)
        if step_size is not None:
            check_number("step_size", step_size, above=0, fix=0.1)
        if dense is not None:
            check_flag("dense", dense)
        self.space = Space(target, selection, estimates=estimates)
        n = self.space.size
        self.given = step_size is not None
        size = usual(n) if step_size is None else step_size
        self.metric = unit_metric(size, n, self.space.dtype, dense, slopes)
        self.target_accept = target_accept(n)

    def kernel(
        self,
        name: str,
        step: Callable[[Metric, Any], tuple[Any, Stats]],
        states: dict[str, Any],
        *,
        gradient: Callable[[State], jax.Array] | None = None,
        first: FirstMetric | None = None,
    ) -> Kernel:
        """The kernel of a step on states that have a position `z`.

        Args:
          states: `enter`, `leave`, `read`, `valid` and `target` of a `Kernel`.
          gradient: of a state, as for `windows`.
          first: how a run finds the metric of its first step, where no step size was given.
        """
        tuning = windows(
            lambda state: state.z,
            self.metric,
            self.target_accept,
            gradient=gradient,
            # an estimate is drawn, which the start of a tuning cannot do
            first=None if self.given or self.space.estimated else first,
        )
        return Kernel(name=name, step=step, parameters=self.metric, tuning=tuning, **states)


def accepting(target_accept: float) -> Callable[[int], float]:
    """This acceptance probability, whatever the number of coordinates.

    Raises:
      InvalidArgument: it is none.
    """
    check_number("target_accept", target_accept, above=0, below=1, fix=0.8)
    return lambda n: target_accept
