"""Tempered targets: a power of the likelihood, or of the whole density, as a program.

The model is run again by one rule that makes every choice as it is; what is observed is
scored by a power of its density, and a latent's change of density by a factor. So a tempered
target is a `Target` like any other, with the same addresses, and every kernel, step and check
takes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Masked, Target, Trace, errors, factor, select
from ppl.distributions import log_density, total_log_density
from ppl.effects import sample_p
from ppl.language import inline
from ppl.program import CHOICE, DRAW, FACTOR, Choice, Factor, Map, Path, Program, Step
from ppl.walk import Result, Rule, scalar, walk

from ..validation.objects import check_target
from ..validation.settings import check_number, check_option

OF = ("likelihood", "everything")


def temper(target: Target, power: Any, of: str = "likelihood") -> Target:
    """The target of density p(latents) p(observations | latents)^power.

    With `of="everything"`, of density p(latents, observations)^power. Factors count as
    observations. At power 1 it is `target`; at power 0 the prior, on the latents where the
    likelihood is not zero. A kernel that leaves it invariant anneals (Neal 2001) or tempers.

    Args:
      power: a number, which may be traced; changing it recompiles nothing.
      of: what the power is taken of, "likelihood" or "everything".

    Raises:
      InvalidArgument: there is nothing to temper, or the model draws without addresses: a
        power of an estimate does not estimate the power.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.targets.temper import temper
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> target = Target(coin, (), {"heads": 1})
    >>> for power in (0.0, 0.5, 1.0):
    ...     print(f"{jnp.exp(temper(target, power).log_density({'fair': 1})):.4f}")
    0.5000
    0.3536
    0.2500
    """
    check_number("power", power, least=0, fix=0.5)
    model, args = tempered_model(target, of), (power, *target.args)
    labels = target.labels
    return Target(model, args, target.observations, dims=labels.tree, coords=labels.coords)


def tempered_model(target: Target, of: str = "likelihood") -> GenerativeFunction:
    """The model of `temper(target, power)`: `(power, *args)` are its arguments.

    Raises:
      InvalidArgument: as `temper`.
    """
    check_target(target)
    check_option("of", of, OF)
    model = target.model
    effects = model._prepare(target.args, {}).staged.program.effects
    if DRAW in effects:
        raise errors.InvalidArgument(
            "The model draws without addresses, so that its density is only estimated.",
            where=errors.caller(),
            given=f"a power of the density of {model.name}",
            expected="a model all of whose randomness has addresses",
            fix='give the draws addresses: sample("name", distribution)',
        )
    if any(isinstance(value, Masked) for value in target.observed.values()):
        raise errors.InvalidArgument(
            "The target observes part of an array, whose likelihood is not a choice's density.",
            where=errors.caller(), given="a Masked observation", expected="whole choices",
            fix="split the choice into two addresses, one of them observed",
        )  # fmt: skip
    if of == "likelihood" and not target.observed and FACTOR not in effects:
        raise errors.InvalidArgument(
            "The target has no likelihood to temper.", where=errors.caller(),
            given="neither observations nor factors",
            expected="observed choices, or factors",
            fix='give observations; or, where it is an argument, of="everything"',
        )  # fmt: skip
    return _made(model, frozenset(target.observed) if of == "likelihood" else None)


@lru_cache(maxsize=256)
def _made(model: GenerativeFunction, observed: frozenset[Path] | None) -> GenerativeFunction:
    """The tempered model; the same for the same model, so that nothing compiles again."""
    fixed = frozenset(i + 1 if isinstance(i, int) else i for i in model.fixed)
    return GenerativeFunction(partial(_run, model, observed), fixed, f"tempered {model.name}")


def heat(target: Target, trace: Trace, of: str = "likelihood") -> Any:
    """What the power is taken of, at a trace of `target`, in logs."""
    if of == "everything":
        return trace.score
    return target.model.project(trace, ~select(*target.latents))


def _run(
    model: GenerativeFunction, observed: frozenset[Path] | None, power: Any, *args: Any
) -> Any:
    run = model._prepare(args, {})
    return run.staged.rebuild(_again(observed, run.staged.program, power, *run.operands))


def _again(observed: frozenset[Path] | None, program: Program, power: Any, *operands: Any) -> list:
    """Run a program with its densities to a power."""
    steps = tuple(_whole(s) if isinstance(s, Map) and s.paths else s for s in program.steps)
    return walk(replace(program, steps=steps), operands, _Tempered(power, observed), {})[0]


@dataclass(frozen=True, eq=False)
class _Region(Choice):
    """The iteration of a `vmap`, made again as one call, so that it stays one iteration."""

    body: Program = None  # type: ignore[assignment]


def _whole(step: Map) -> Map:
    """The same `vmap` of one `_Region`: its elements stay independent, as a plate's are."""
    body = step.body
    reads = tuple(range(len(body.inputs)))
    outs = tuple(range(len(reads), len(reads) + len(body.outputs)))
    how = {"effects": frozenset({CHOICE}), "paths": body.paths, "source": step.source}
    region = _Region(reads, outs, step.evaluate, body=body, **how)
    return replace(step, body=Program(reads, outs, (region,), {}, {}))


class _Tempered(Rule):
    """Make every choice again; score the observed ones (None: all) and factors to a power."""

    handles = frozenset({CHOICE, FACTOR})

    def __init__(self, power: Any, observed: frozenset[Path] | None):
        self.power = power
        self.observed = observed

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            factor(_finite(args[0], self.power, args[0]))
            return [], {}, {}
        if isinstance(step, _Region):
            call = GenerativeFunction(partial(_again, self.observed, step.body))
            return inline(call(self.power, *args)), {}, {}
        assert isinstance(step, Choice)
        spec = step.spec
        how = {name: getattr(spec, name) for name in ("tree", "shape", "dtype", "kind", "support")}
        if self.observed is not None and step.path in self.observed:
            # scored once, so that a gradient passes through the likelihood once
            args, how["tree"] = jax.tree.flatten(_Powered(spec.tree.unflatten(args), self.power))
        (value,) = sample_p.bind(*args, **how, address=step.path, source=step.source)
        if self.observed is None:
            density = scalar(log_density(spec.tree.unflatten(args), value))
            factor(_finite(density, self.power - 1, 0.0))  # a density of zero scores itself
        return [value], {}, {}


class _Powered(dist.Distribution):
    """A power of a density, as one event. It is observed, so that nothing draws from it."""

    pytree_data_fields = ("base_dist", "power")

    def __init__(self, base_dist: dist.Distribution, power: Any):
        self.base_dist = base_dist
        self.power = power
        super().__init__(event_shape=base_dist.shape(), validate_args=False)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def log_prob(self, value: Any) -> Any:
        density = scalar(total_log_density(self.base_dist, value))
        return _finite(density, self.power, density)


def _finite(amount: Any, times: Any, otherwise: Any) -> Any:
    """times * amount, or `otherwise` where the amount is that of a weight of zero."""
    return jnp.where(jnp.isfinite(amount), times * amount, otherwise)
