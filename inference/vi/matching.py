"""Whether a guide makes the latents of a target: the same choices, on no wider supports."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import numpy as np
from numpyro.distributions import constraints

from ppl import GenerativeFunction, Site, Target, errors
from ppl.program import FACTOR, Path

from ..targets.stochastic import Stochastic
from ..validation.objects import check_no_gaps


def check_guide(target: Target, guide: GenerativeFunction | Stochastic, args: tuple) -> None:
    """Raise where the guide's choices are not the target's latents.

    Raises:
      GuideMismatch: a latent is missing or one too many, or it has another shape, another dtype
        or a support that is not inside the target's; both sides are shown.
    """
    made = guide.sites(*args)
    wanted = {path: target.sites[path] for path in target.latents}
    missing = [path for path in wanted if path not in made]
    extra = [path for path in made if path not in wanted]
    if missing or extra:
        raise errors.GuideMismatch(
            f"The guide {guide.name} does not make the latents of {target.model.name}.",
            where=[f"{errors.show(p)} at {made[p].source}" for p in extra[:2]]
            + [f"{errors.show(p)} at {wanted[p].source}" for p in missing[:2]],
            given="; ".join(map(errors.show, made)) or "no choices",
            expected="; ".join(map(errors.show, wanted)) or "no choices",
            fix=_advice(missing, extra, target),
        )
    for path, site in wanted.items():
        _check_site(made[path], site)
    if isinstance(guide, GenerativeFunction):
        check_no_gaps(target, "A guide of one's own", "mean_field, full_rank, laplace, flow, ...")


def supports_stay(target: Target) -> bool:
    """Whether what is observed is known to be inside its supports, whatever the latents are.

    Where an end of one depends on a latent, a score jumps as the latent crosses what was observed;
    what a model observes in place is not looked at, and may.
    """
    run = target.model._prepare(target.args, {})
    if FACTOR in run.staged.program.effects:
        return False
    return all(_stays(target.sites[path].distribution) for path in target.observed)


def _stays(d: Any) -> bool:
    try:
        return d is not None and _known(d.support)
    except (TypeError, AttributeError):  # ends that are computed of parameters without values
        return False


def _known(support: Any) -> bool:
    """Whether the ends of a support are numbers."""
    ends = [x for x in vars(_single(support)).values() if hasattr(x, "shape")]
    numbers = (np.ndarray, np.generic, jax.Array)
    return all(isinstance(x, numbers) and not isinstance(x, jax.core.Tracer) for x in ends)


def _advice(missing: list[Path], extra: list[Path], target: Target) -> str:
    for path in extra:
        if path in target.observed:
            return f"{errors.show(path)} is observed: leave it out of the guide"
        close = errors.near(path[-1], [p[-1] for p in missing])
        if close is not None:
            return f"is {errors.show(path)} meant to be {close!r}?"
    if missing:
        return f"make {errors.show(missing[0])} in the guide, or observe it"
    return f"leave {errors.show(extra[0])} out, or marginalize(guide, keep, using) it"


def _check_site(made: Site, wanted: Site) -> None:
    where = (f"{errors.show(made.path)} at {made.source}", f"in the model at {wanted.source}")
    if made.shape != wanted.shape:
        given, expected = f"shape {made.shape}", f"shape {wanted.shape}"
        fix = "give the guide's distribution the shape of the model's, by expand or reshape"
    elif np.issubdtype(made.dtype, np.floating) != np.issubdtype(wanted.dtype, np.floating):
        given, expected = f"{made.kind} {made.dtype}", f"{wanted.kind} {wanted.dtype}"
        fix = "a continuous latent needs a continuous guide, a discrete one a discrete guide"
    elif made.kind == "Delta" and wanted.kind != "Delta" and made.dtype.kind == "f":
        given, expected = "a point, which has no density", f"a density on {wanted.support}"
        fix = "a narrow Normal, whose scale is learned; a mode is laplace(target)"
    elif wanted.kind == "Delta" and made.kind != "Delta" and made.dtype.kind == "f":
        given, expected = f"{made.kind}, a density", "the point that the model says"
        fix = "make it no choice of the model, or observe it"
    elif not _inside(made, wanted):
        given, expected = f"{made.kind} on {made.support}", f"a support inside {wanted.support}"
        fix = (
            "take a distribution on the model's support, or transform one: "
            "dist.TransformedDistribution(base, dist.biject_to(support))"
        )
    else:
        return
    raise errors.GuideMismatch(
        f"The guide's choice {errors.show(made.path)} does not fit the model's.",
        where=where,
        given=given,
        expected=expected,
        fix=fix,
    )


def _inside(made: Site, wanted: Site) -> bool:
    """Whether all values of the guide's choice are possible in the model."""
    if made.distribution is None or wanted.distribution is None:
        return made.support == wanted.support
    with jax.ensure_compile_time_eval():  # ends that are computed of known numbers are known
        return within(made.distribution.support, wanted.distribution.support)


def within(inner: Any, outer: Any) -> bool:
    """Whether one support is known to lie in another."""
    inner, outer = _single(inner), _single(outer)
    if type(inner) is type(outer) and _ends(inner) == (None, None) == _ends(outer):
        return True
    if type(outer) is type(constraints.real):
        return not inner.is_discrete and inner.event_dim == 0
    if type(outer) is type(constraints.real_vector):
        return not inner.is_discrete and inner.event_dim <= 1
    (low, high), (least, most) = _ends(inner), _ends(outer)
    if (least, most) == (None, None):
        return False
    return _at_least(low, least) and _at_least(most, high, upper=True)


def _single(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _ends(support: Any) -> tuple[Any, Any]:
    """The ends of a support of numbers; None for an end that it does not have."""
    name = type(support).__name__.strip("_").lower()
    if name in ("boolean",):
        return 0, 1
    if name in ("unitinterval", "openinterval01"):
        return 0, 1
    return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)


def _at_least(a: Any, b: Any, upper: bool = False) -> bool:
    """Whether a >= b is known; an end that is not there is infinite."""
    if (b if not upper else a) is None:
        return True  # nothing is asked
    if (a if not upper else b) is None:
        return False
    try:
        return bool(np.all(np.asarray(a) >= np.asarray(b)))
    except Exception:  # an end that is computed is not known here
        return False
