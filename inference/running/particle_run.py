"""Running particles for long: progress, checkpoints, Ctrl-C, and what is said at the end.

The random program is the one that `seed` runs, with the same random numbers; the host drives
its outermost loop, so that the observations of a filter, or the powers of an annealing, come in
blocks (`host_loop`). What happens between two blocks can change no number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from ppl import Target, Trace, errors
from ppl.randomness import checked_key

from ..results.degeneracy import FLOOR, check_rows, degeneracy, parts
from ..results.derived import by_name
from ..results.particles import Particles
from ..results.verdict import Verdict
from ..smc.ancestry import log_evidence_error
from ..smc.filtering import Filtered
from ..smc.nested import STATUS, Nested
from ..smc.particles import History, Over
from ..validation.objects import check_on_host, check_target
from ..validation.settings import check_flag
from ..weighted import Weighted, log_evidence
from .checkpoint import checked_folder
from .host_loop import Hosted
from .independent_runs import latents_of, of_nested
from .resumable_loop import driven
from .told_steps import STEPS, Told, flat, told


@dataclass(frozen=True, eq=False)
class ParticleRun:
    """What `run_particles` gives.

    Attributes:
      result: what the program returns; of a step, its particles.
      history: the log evidence and the effective number of particles after each step that was
        done, if the program tells: filters, annealing, and steps made by `over` do.
      observations: what each step observed, to name it by.
      status: "complete", or after how many steps it was interrupted; and from which step on
        (counted from 0) all weights are zero, if any; and how nested sampling ended.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import ParticleRun, particle_filter, run_particles
    >>> from ppl import gen, sample
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 0.5))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 30.0, 1.0])}
    >>> filtering = lambda: particle_filter(walk, 0.0, ys, 1000)
    >>> run: ParticleRun = run_particles(jax.random.key(0), filtering, observations=ys)
    >>> run.status, run.verdict().name
    ('complete', 'step 1, "y" = 30')
    """

    result: Any
    history: History | None
    observations: Any = None
    status: str = "complete"

    @property
    def particles(self) -> Weighted:
        """The last particles.

        Raises:
          InvalidArgument: there are none in the result.
        """
        found = next(parts(self.result, Weighted), None)
        if found is None:
            raise errors.InvalidArgument(
                "There are no particles in the result.", where=errors.caller(),
                given=f"a {type(self.result).__name__}", expected="what a filter gives",
                fix="return the particles, or take what you need from run.result",
            )  # fmt: skip
        return found

    @property
    def log_evidence(self) -> jax.Array:
        """The log of the mean weight of the last particles; -inf if all weights are zero."""
        return log_evidence(self.particles)

    @property
    def standard_error(self) -> jax.Array:
        """Of the log evidence, from this run alone; of a filter by `log_evidence_error`.

        Raises:
          InvalidArgument: it is no nested sampling, and no filter that resampled by `multinomial`.
        """
        if isinstance(self.result, Nested):
            return self.result.standard_error
        found = next(parts(self.result, Filtered), None)
        if found is None:
            raise errors.InvalidArgument(
                "The error of one run is known of filters and of nested sampling.",
                where=errors.caller(), given=f"a {type(self.result).__name__}",
                expected="particle_filter(..., scheme=multinomial), or nested_sampling(...)",
                fix="log_evidence_error of the log evidences of several runs",
            )  # fmt: skip
        return log_evidence_error(found)

    def posterior(self, target: Target | None = None) -> Particles:
        """The last particles as a result: with a summary, errors, and draws by their weights.

        The errors are those of one run: of a filter that resampled by `multinomial`, from the
        ancestors of its particles (Chan and Lai 2013); else they are not known, and
        `sample_posterior` takes several runs. States that are no dict are called "state".

        Args:
          target: whose latents they are, for predictions; of the states of a filter there is none.

        Raises:
          InvalidArgument: there are no particles in the result, or no latents of the target.
        """
        particles, tells = self.particles, self._tells_error
        if np.ndim(particles.log_weight) != 1:
            raise errors.InvalidArgument(
                "A result is made of particles, and these have another number of axes.",
                where=errors.caller(), given=f"log weights of shape {particles.log_weight.shape}",
                expected="log weights of shape (n,)", fix="then(..., merged)",
            )  # fmt: skip
        value = particles.value
        if target is not None:
            check_target(target)
            values, _ = latents_of(target, value)
        elif isinstance(value, Trace):
            values = value.choices
        else:
            values = value if isinstance(value, Mapping) else {"state": by_name(value)}
        found = next(parts(self.result, Filtered), None)
        families = None if found is None or not tells else found.ancestry.eves[None]
        history = self.history
        told = {} if history is None else {"ess": history.ess, "log_evidence": history.log_evidence}
        own: dict[str, Any] = {}
        if isinstance(self.result, Nested):
            nested = self.result
            own = of_nested((nested.log_evidence, nested.standard_error, nested.status))
        elif tells:
            own = {"evidence_errors": np.asarray(self.standard_error)[None]}
        return Particles(
            jax.tree.map(lambda x: np.asarray(x)[None], values),
            np.asarray(particles.log_weight)[None], target, self.status, families,
            history={name: np.asarray(x)[None] for name, x in told.items()}, **own,
        )  # fmt: skip

    def verdict(self, floor: float = FLOOR) -> Verdict:
        """Whether enough particles counted at every step; see `degeneracy`."""
        return degeneracy(self, self.observations, floor=floor)

    @property
    def _tells_error(self) -> bool:
        filters = parts(self.result, Filtered)
        return isinstance(self.result, Nested) or any(f.ancestry is not None for f in filters)

    def __repr__(self) -> str:
        told = [f"{type(self.result).__name__}"]
        if next(parts(self.result, Weighted), None) is not None:
            told.append(f"{self.particles.log_weight.size} particles")
            error = f" +- {float(self.standard_error):.2g}" if self._tells_error else ""
            told.append(f"log evidence {float(self.log_evidence):.6g}{error}")
        if self.history is not None:
            told.insert(1, f"{len(self.history.ess)} steps")
        return f"ParticleRun({', '.join(told)}; {self.status})"


def run_particles(
    key: jax.Array,
    program: Callable[..., Any],
    *,
    observations: Any = None,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> ParticleRun:
    """`seed(program)(key)`, with the outermost loops in blocks: shown, saved, interruptible.

    The random numbers are those of `seed`, whatever is shown or saved, and blocks of any sizes
    give the same bits. (`jax.jit(seed(program))` is another compiled program, which may round
    otherwise, and chaotic kernels amplify that.) Ctrl-C returns what is done, if what the program
    makes of its steps can be told without the others: the history and the particles so far. Else
    it goes through, and a checkpoint has the steps.

    Args:
      key: one PRNG key.
      program: a random program without arguments, as `lambda: particle_filter(...)`,
        `lambda: adaptive_annealing(...)` or `lambda: nested_sampling(...)`; or a step from the
        unit measure that `then` and `over` made, as `annealed(...)` or `smc2(...)`. Keep it,
        and a second run compiles nothing.
      observations: what each step observed, arrays with T rows: a verdict names it. Of a step
        it is the data of `over` if left out.
      progress: a bar, on a terminal only.
      checkpoint: a folder, saved to after each block; a run that finds one of itself there goes
        on from it, to the same bits.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: the program has no loop that draws, or another number of steps than of
        observations.
      CheckpointError: the checkpoint is damaged, or of another run.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import annealed, random_walk, run_particles
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 0.5))
    >>> step = annealed(Target(model, (), {"y": 2.0}), 1000, random_walk, 8)
    >>> run = run_particles(jax.random.key(0), step)
    >>> run.result.value["mu"].shape, run.history.ess.shape, bool(run.verdict())
    ((1000,), (7,), True)
    """
    check_on_host("A run of particles", "seed(program)(key), which jit may compile", key)
    key = checked_key(key)
    if not callable(program):
        raise errors.InvalidArgument(
            "There is no program to run.", where=errors.caller(), given=repr(program),
            expected="a random program without arguments, or a step",
            fix="run_particles(key, lambda: particle_filter(...))",
        )  # fmt: skip
    check_flag("progress", progress)
    if checkpoint is not None:
        checked_folder(checkpoint)
    of_step = isinstance(program, STEPS)
    if of_step and observations is None:
        rows = [part.data for part in flat(program) if isinstance(part, Over)]
        observations = rows[0] if len(rows) == 1 else None
    programs = Hosted.of(_telling(program) if of_step else program)
    if not programs.loops:
        raise errors.InvalidArgument(
            "There is no loop to drive.", where=(errors.defined(program), errors.caller()),
            given="a program whose outermost level has no lax.scan or while_loop that draws",
            expected="a filter, an annealing, or a step made by `over`",
            fix="seed(program)(key) runs it at once",
        )  # fmt: skip
    if len(programs.loops) == 1 and programs.loops[0].length is not None:
        check_rows(observations, programs.loops[0].length)
    result, status = driven(programs, key, progress, checkpoint)
    if of_step:
        result, history = result
    else:
        history = next(parts(result, History), None)
    if history is not None:
        zero = np.flatnonzero(np.asarray(history.log_evidence) == -np.inf)
        status += f"; all weights are zero from step {zero[0]} on" if zero.size else ""
    if isinstance(result, Nested):
        status += f"; {STATUS[int(result.status)]}"
    return ParticleRun(result, history, observations, status)


@lru_cache(maxsize=16)
def _telling(step: Told) -> Callable[[], tuple[Weighted, History | None]]:
    """The step from the unit measure as a random program that tells its history, too."""
    return partial(told, step)
