"""Conditional message passing: sweeps from several starts, on the host, with learning."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp

from ppl import Target, errors
from ppl.addresses import Masked
from ppl.randomness import checked_key

from ..running.progress import bar
from ..validation.objects import check_on_host, check_target
from ..validation.settings import check_count, check_flag, check_number
from .entries import Entries
from .factorization import Factorization
from .model import Tensor, in_order, tensor_of
from .noise import Likelihood
from .stages import Fit

ONCE = "a loop over fits, of which the second compiles nothing"


def message_passing(
    key: jax.Array,
    target: Target,
    *,
    sweeps: int = 200,
    learn: bool = True,
    rate: float = 0.2,
    damping: float | None = None,
    starts: int = 3,
    tolerance: float = 1e-4,
    progress: bool = True,
    checkpoint: str | os.PathLike | None = None,
) -> Factorization:
    """The posterior of a functional tensor model, in which its modes are independent.

    Of all laws that are products over the modes, the core, the constant and the noise's
    precision, it climbs to one whose evidence bound no single part can raise: the law of a mode
    is a Gaussian process with sites, folded in time linear in its coordinates. Hyperparameters
    go up the slope of the bound meanwhile: scales and variances of each kernel, degrees of
    freedom, parameters of a `Likelihood`. Components of a CP model that are not needed lose their
    variance: once the climb has converged, each is taken out for 20 sweeps, and stays out if the
    bound is larger without it (but for a `Likelihood`, whose bound does not tell); then it climbs
    again.

    Without damping and learning, no sweep lowers the bound of normal and of Student-t noise. For
    a `Likelihood` predictors are taken as normal, and the bound is a number near it.

    Args:
      key: one PRNG key, for where the starts begin.
      target: a model made by `cp` or `tucker`, whose choice "y" alone is observed.
      sweeps: how many, at most, after those of the starts, and after components were taken out.
      learn: whether hyperparameters are learned; if not, they are those of the model.
      rate: by how much the log of a hyperparameter changes in a sweep, about. It falls to a
        tenth of that on the way.
      damping: the share of the way that natural parameters go in a sweep; 1 by default, and 0.5
        for a `Likelihood`.
      starts: how many; after 20 sweeps each the one with the largest bound goes on.
      tolerance: of how much a sweep still moves the bound, in nats for each entry: below it, in
        the mean of ten sweeps, the fit has converged, and stops.
      progress: a bar, on a terminal only.
      checkpoint: a folder, written to every 10 sweeps; a run that finds one of itself there goes
        on from it, to the same bits.

    Returns:
      A `Factorization`; if Ctrl-C stops it, of the sweeps so far, and `status` says so.

    Raises:
      InvalidKey: `key` is not one PRNG key.
      InvalidArgument: the model is no functional tensor, another choice than "y" is observed, or
        a setting is out of range.
      NonFiniteStep: the bound is no finite number; `error.fitted` has the sweeps before.
      CheckpointError: the checkpoint is damaged, or of another run.

    Source: Fang, Yu, Liu & Zhe (ICLR 2024), whose sites these are, but for a bound, and with the
    mean of the product of two others where they have the product of means; hyperparameters by
    the slope of the evidence of each mode, with its sites held.

    >>> import jax, jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import cp, entries, message_passing
    >>> from ppl import Target
    >>> x = jnp.linspace(0.0, 1.0, 20)
    >>> rows = entries({"x": x, "z": x[::-1]})
    >>> model = cp(1, {"x": Matern32(0.5), "z": Matern32(0.5)})
    >>> target = Target(model, (rows,), {"y": jnp.sin(3 * x) * x[::-1]})
    >>> found = message_passing(jax.random.key(0), target, sweeps=30)
    >>> bool(jnp.abs(found.predict(rows).mean - target.observations["y"]).max() < 0.05)
    True
    """
    check_on_host("Message passing", ONCE, key)
    tensor, rows, y = checked(target)
    key = checked_key(key)
    check_count("sweeps", sweeps)
    check_count("starts", starts)
    check_flag("learn", learn)
    check_flag("progress", progress)
    check_number("rate", rate, above=0, fix=0.2)
    check_number("tolerance", tolerance, least=0, fix=1e-4)
    damping = damping_of(tensor, damping)
    fit = Fit(key, target, tensor, rows, y, learn * rate, damping, sweeps, starts, tolerance)
    if checkpoint is not None:
        fit.resume(checkpoint)
    with bar(progress) as advance:
        try:
            while not fit.over:
                fit.forward()
                advance("message passing", fit.at.done, fit.total)
        except KeyboardInterrupt:
            if fit.at.run is None or not fit.at.bounds:
                raise
            return fit.result(f"interrupted after {fit.at.done} sweeps")
    return fit.result(fit.status)


def damping_of(tensor: Tensor, damping: Any) -> float:
    """The damping that is asked for, or that which suits the noise."""
    if damping is None:
        return 0.5 if isinstance(tensor.noise, Likelihood) else 1.0
    check_number("damping", damping, above=0, most=1, fix=0.5)
    return float(damping)


def checked(target: Any) -> tuple[Tensor, Entries, jax.Array]:
    """The program, the entries and what they are, of a target that message passing takes.

    Raises:
      InvalidArgument: as for `message_passing`.
    """
    check_target(target)
    tensor = tensor_of(target.model)
    if tensor is None:
        raise errors.InvalidArgument(
            "Message passing is for functional tensors.",
            where=(f"model {target.model.name}", errors.caller()),
            given=f"the generative function {target.model.name}",
            expected="a model made by `cp` or `tucker`",
            fix="nuts, or fit, for other models",
        )  # fmt: skip
    if list(target.observed) != [("y",)] or isinstance(target.observed["y",], Masked):
        raise errors.InvalidArgument(
            'Message passing takes a target that observes "y", all of it.',
            where=errors.caller(),
            given=", ".join(errors.show(path) for path in target.observed) or "nothing observed",
            expected='Target(model, (rows,), {"y": values})',
            fix="leave out the entries that are missing; choices that are known: nuts",
        )  # fmt: skip
    check_on_host("Message passing", ONCE, target.args, target.observations, tensor)
    y = target.observations["y"]
    return tensor, in_order(target.args[0], tensor.names), jnp.asarray(y)
