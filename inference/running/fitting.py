"""Fitting a guide, or anything that an objective learns: progress, checkpoints, Ctrl-C.

The host drives compiled blocks of steps. Step t takes key t, so that neither the sizes of blocks
nor what happens between them can change a number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppl import errors, seed
from ppl.arguments import Arguments, is_array
from ppl.estimators.score_function import Learned
from ppl.randomness import checked_key
from ppl.strategies import Strategy

from ..results.fitted import Fitted, fitted
from ..targets.fingerprints import fingerprint, of_arrays, plain
from ..validation.objects import check_callable, check_on_host
from ..validation.settings import check_count, check_flag, check_number, shown
from ..vi.objective import Objective
from .block_size import BlockSize
from .checkpoint import Checkpoint, checked_folder
from .progress import bar
from .stopping import looks, settled
from .training import Regimen, Training

_BUFFER = 4096  # steps
_TRIES = 256

ADAM = optax.adam(0.01)
"""The optimizer where none is given: one object, so that its programs are compiled once."""


def fit(
    key: jax.Array,
    objective: Objective | Callable[..., Any],
    parameters: Any,
    optimizer: optax.GradientTransformation | None = None,
    *,
    data: tuple = (),
    steps: int = 5000,
    samples: int = 1,
    strategies: Mapping[str | tuple[str, ...], Strategy]
    | Callable[..., Mapping[str | tuple[str, ...], Strategy]]
    | None = None,
    tolerance: float | None = None,
    average: bool = True,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Fitted:
    """Parameters that maximise the mean of `objective(parameters, *data)`.

    Each step takes an unbiased estimate of the gradient, by `expectation`, to the optimizer. A
    second fit that differs in the key, the start and the data only compiles nothing.

    Args:
      key: one PRNG key; the same key gives the same fit, whatever is shown or saved.
      objective: `elbo(target, guide)` or another one; or any random program, which is a function
        that is kept, not made anew for each fit.
      parameters: where to start: any tree whose numbers are floats, an equinox module too.
      optimizer: of optax, which takes the gradient downhill of minus the objective; Adam with
        step size 0.01 by default. Keep it, too.
      data: further arguments of the objective, arrays or trees of them.
      steps: how many, at most.
      samples: how many draws of the objective a step takes the mean of.
      strategies: as for `expectation`; or a function of the parameters and the data that gives
        them, for baselines that are learned.
      tolerance: stop when the objective's mean is known to have grown by less than this from
        one quarter of the steps to the last; in one fit of 20, at most, it is not so. All
        steps are made when left out.
      average: the result has the mean of the iterates, late ones counting more, which has less
        noise than the last one; but for fits whose last iterate is known to be the better one.
      progress: a bar, on a terminal only.
      checkpoint: a folder, saved to after each block; a fit that finds one of itself there goes
        on from it, to the same bits.

    Returns:
      A `Fitted`; if Ctrl-C stops the fit, of the steps so far, and `status` says so.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: a number among the parameters is no float, or a setting is out of range.
      GuideMismatch: the guide does not make the target's latents, before anything compiles.
      NonFiniteStep: a value or a gradient is no finite number; it names the step, the parameter
        and what is wrong, and has the fit before.
      CheckpointError: the checkpoint is damaged, or of another fit.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist, optax
    >>> from inference import elbo, fit
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> @gen
    ... def guide(p):
    ...     sample("mu", dist.Normal(p["loc"], jnp.exp(p["log_scale"])))
    >>> objective = elbo(Target(model, (), {"y": 2.0}), guide)
    >>> start = {"loc": 0.0, "log_scale": 0.0}
    >>> found = fit(jax.random.key(0), objective, start, steps=2000, samples=20)
    >>> report = found.report(jax.random.key(1))  # the posterior is Normal(1, sqrt(1/2))
    >>> bool(abs(found.parameters["loc"] - 1) < 0.02), bool(report)
    (True, True)
    """
    fix = "a loop over fits, of which the second compiles nothing"
    check_on_host("A fit", fix, key, parameters, data)
    key = checked_key(key)
    for name, value in (("steps", steps), ("samples", samples)):
        check_count(name, value)
    for name, value in (("progress", progress), ("average", average)):
        check_flag(name, value)
    if tolerance is not None:
        check_number("tolerance", tolerance, above=0, fix=0.01)
    if checkpoint is not None:
        checked_folder(checkpoint)
    _check(objective, optimizer, data, strategies)
    run = _Fit(key, objective, parameters, optimizer or ADAM, data, steps, samples, strategies)
    if checkpoint is not None:
        run.resume(checkpoint)
    status = "complete"
    ends = looks(steps) if tolerance is not None else []
    with bar(progress) as advance:
        try:
            while run.done < steps:
                run.block(min([end for end in ends if end > run.done] or [steps]))
                advance("fitting", run.done, steps)
                at = ends.index(run.done) if run.done in ends else None
                if at is not None and settled(run.values(), at, tolerance or 0.0):
                    status = f"settled after {run.done} of {steps} steps"
                    break
        except KeyboardInterrupt:
            if not run.done:
                raise
            status = f"interrupted after {run.done} of {steps} steps"
    return run.result(status, average)


class _Fit:
    """The state of a fit on the host, and its compiled blocks."""

    def __init__(
        self,
        key: jax.Array,
        objective: Any,
        parameters: Any,
        optimizer: optax.GradientTransformation,
        data: tuple,
        steps: int,
        samples: int,
        strategies: Any,
    ):
        self.key, self.objective, self.data, self.steps = key, objective, data, steps
        learned, self.rest = eqx.partition(_floats(parameters), eqx.is_inexact_array)
        if not jax.tree.leaves(learned):
            raise _nothing(parameters)
        call = Arguments.of((objective, self.rest, data), {})
        self.leaves = tuple(jnp.asarray(leaf) for leaf in call.leaves)
        chosen = strategies if callable(strategies) else tuple((strategies or {}).items())
        self.regimen = Regimen(call.static, optimizer, chosen, samples, min(_BUFFER, steps))
        # what is wrong with the objective is told in its own words, before anything compiles
        estimate = partial(self.regimen.value, self.leaves, key)
        _check_scalar(objective, jax.eval_shape(estimate, learned, 0))
        jax.eval_shape(self.regimen.gradient, self.leaves, key, learned, 0)
        # the state, how many steps are done, their values: assigned at once, as Ctrl-C may come
        # between any two lines
        self.at: tuple[Training, int, list[np.ndarray]] = self.regimen.begin(learned), 0, []
        self.block_size = BlockSize()
        self.store: Checkpoint | None = None

    @property
    def done(self) -> int:
        return self.at[1]

    def values(self) -> np.ndarray:
        return np.concatenate([np.zeros(0), *self.at[2]])

    def block(self, end: int) -> None:
        """Some steps more, not beyond `end`.

        Raises:
          NonFiniteStep: a value or a gradient is no finite number.
        """
        training, start, values = self.at
        count = self.block_size.next(min(self.regimen.buffer, end - start))
        made = self.block_size.timed(self.regimen.block, self._arguments(training, start, count))
        new, bad = np.asarray(made[1])[:count], int(made[2])
        if bad >= 0:
            # the steps before it are made again, to have the parameters of the first bad one
            training, kept, _ = self.regimen.block(*self._arguments(training, start, bad - start))
            self.at = training, bad, [*values, np.asarray(kept)[: bad - start]]
            raise self._not_finite(training, bad)
        if self.store is not None and jax.process_index() == 0:
            self.store.save_draws(start, {"value": new[None]})
            self.store.save_state(jax.tree.leaves(made[0]), 0, start + count)
        self.at = made[0], start + count, [*values, new]

    def _arguments(self, training: Training, start: int, count: int) -> tuple:
        return self.leaves, self.key, training, np.asarray(start), np.asarray(count)

    def resume(self, path: str | os.PathLike) -> None:
        """Go on from the checkpoint in the folder, if there is one."""
        training, *_ = self.at
        text = self.regimen.block.lower(*self._arguments(training, 0, 1)).as_text()
        identity = {
            "jax": jax.__version__,
            "sizes": f"{self.steps} steps",
            "key": of_arrays(jax.random.key_data(self.key)),
            "data": of_arrays(self.leaves),
            "begin": of_arrays(training.parameters),
            "program": fingerprint(text.encode()),
        }
        self.store = Checkpoint(path, identity)
        leaves, tree = jax.tree.flatten(training)
        found = self.store.load(leaves)
        if found is not None:
            saved, _, done = found
            like = [jnp.asarray(plain(x)) for x in saved]
            rows = self.store.draws(done)["value"][0] if done else np.zeros(0)
            self.at = jax.tree.unflatten(tree, like), done, [rows]

    def result(self, status: str, average: bool = True) -> Fitted:
        training = self.at[0]
        mean, last = (eqx.combine(x, self.rest) for x in (training.average, training.parameters))
        chosen = mean if average and self._mean_is_as_good(training) else last
        return fitted(self.objective, chosen, last, self.values(), self.data, status)

    def _mean_is_as_good(self, training: Training) -> bool:
        """Whether the objective is not known to be more at the last iterate than at the mean one,
        as it is where the steps were too few to get there."""
        key = jax.random.fold_in(self.key, 2**32 - 1)  # that of no step
        made = self.regimen.gains(self.leaves, key, training.average, training.parameters)
        gains = np.asarray(made, np.float64)
        error = gains.std(ddof=1) / math.sqrt(gains.size)
        return bool(gains.mean() >= -3 * error)  # no number is not as good

    def _not_finite(self, training: Training, step: int) -> errors.NonFiniteStep:
        parameters = training.parameters
        value, slopes = self.regimen.slope(self.leaves, self.key, parameters, step)
        wrong = [
            f"the gradient of {jax.tree_util.keystr(place) or 'the parameter'}"
            for place, slope in jax.tree.leaves_with_path(slopes)
            if not np.isfinite(slope).all()
        ]
        if not np.isfinite(value):
            wrong.insert(0, f"the value, {value}")
        why = self._faults(parameters)
        error = errors.NonFiniteStep(
            f"Step {step} of the fit (from 0) has a value or a gradient that is no finite number.",
            where=(*why[:3], errors.caller()),
            given="; ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""),
            expected="finite values and gradients",
            fix="error.fitted has the steps before; take a smaller step size, clip the gradient "
            "(optax.clip_by_global_norm), or bound the parameter that went astray",
        )
        error.fitted = self.result(f"stopped at step {step}, which is no number", average=False)
        return error

    def _faults(self, parameters: Any) -> list[str]:
        """What is wrong with the target at draws of the guide, in words with addresses."""
        if not isinstance(self.objective, Objective):
            return []
        objective, whole = self.objective, eqx.combine(parameters, self.rest)

        def one() -> dict[str, jax.Array]:
            args = objective.guide_args(whole, *self.data)
            choices = objective.guide.simulate(*args).choices
            return objective.target_of(whole, *self.data).faults(choices)

        found = jax.vmap(seed(one))(jax.random.split(self.key, _TRIES))
        return [f"at draws of the guide {name}" for name, flags in found.items() if flags.any()]


def _floats(parameters: Any) -> Any:
    """The parameters, their numbers as arrays."""

    def one(place: Any, leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        kind = jnp.result_type(leaf)
        if not jnp.issubdtype(kind, jnp.inexact):
            raise errors.InvalidArgument(
                "A parameter of a fit is no float, and has no derivative.",
                where=errors.caller(), given=f"parameters{jax.tree_util.keystr(place)}: {leaf!r}",
                expected="floats; what is not learned goes to `data`", fix="write 0.0 for 0",
            )  # fmt: skip
        return jnp.asarray(leaf, kind)

    return jax.tree.map_with_path(one, parameters)


def _check_scalar(objective: Any, made: Any) -> None:
    """Raise unless an objective gives one real number."""
    shapes = [(x.shape, x.dtype.kind) for x in jax.tree.leaves(made)]
    if shapes != [((), "f")]:
        raise errors.InvalidArgument(
            "An objective gives one number.",
            where=(errors.defined(getattr(objective, "run", objective)), errors.caller()),
            given="nothing" if not shapes else "; ".join(f"shape {shape}" for shape, _ in shapes),
            expected="a float of shape ()", fix="return the mean, or the sum, of what it makes",
        )  # fmt: skip


def _nothing(parameters: Any) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        "There is nothing to fit.", where=errors.caller(), given=f"parameters={shown(parameters)}",
        expected="a tree with floats in it", fix='{"loc": 0.0, "log_scale": 0.0}',
    )  # fmt: skip


def _check(objective: Any, optimizer: Any, data: Any, strategies: Any) -> None:
    if not isinstance(objective, Objective):
        expected = "elbo(target, guide), or a random program of the parameters"
        check_callable("objective", objective, expected, "fit(key, elbo(target, guide), ...)")
    if optimizer is not None and not isinstance(optimizer, optax.GradientTransformation):
        raise errors.InvalidArgument(
            "The optimizer is none of optax.", where=errors.caller(), given=shown(optimizer),
            expected="an optax.GradientTransformation", fix="optax.adam(0.01)",
        )  # fmt: skip
    if not isinstance(data, tuple):
        raise errors.InvalidArgument(
            "Data are a tuple of arguments.", where=errors.caller(), given=f"data={shown(data)}",
            expected="a tuple", fix="data=(x,)",
        )  # fmt: skip
    made = strategies.values() if isinstance(strategies, Mapping) else ()
    if any(isinstance(getattr(how, "baseline", None), Learned) for how in made):
        raise errors.InvalidArgument(
            "A baseline in a dict of strategies is not learned: its parameters are constants.",
            where=errors.caller(), given=f"strategies={shown(strategies)}",
            expected="a function of the parameters that gives strategies",
            fix='strategies=lambda p: {"z": reinforce(moving_average(p["level"]))}',
        )  # fmt: skip
    if strategies is not None and not callable(strategies) and not isinstance(strategies, Mapping):
        raise errors.InvalidArgument(
            "Strategies are a dict by address.", where=errors.caller(),
            given=f"strategies={shown(strategies)}",
            expected="a dict, or a function that gives one",
            fix='strategies={"z": reinforce()}',
        )  # fmt: skip
