"""What is wrong with a model at given choices: parameters outside their constraints,
densities that are no number. A run cannot raise where its values are traced; this names
the addresses afterwards.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from . import errors
from .distributions import elementwise, log_density
from .program import CHOICE, FACTOR, Factor, Path
from .supports import constrained, inner_distributions, support_name
from .walk import Result, Rule, walk


def faults(run: Any, values: dict[Path, Any]) -> dict[str, Any]:
    """By what is looked at, in words, whether it is wrong at these values of all choices.

    A parameter is wrong outside its constraint; a log density, or a factor, where it is NaN
    or +inf. Booleans, traced where the values are: it may be compiled and mapped.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from ppl.faults import faults
    >>> @gen
    ... def model():
    ...     s = sample("s", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(0.0, s))
    >>> found = faults(model._prepare((), {}), {("s",): -1.0, ("y",): 0.5})
    >>> [name for name, wrong in found.items() if wrong]
    ['the parameter `scale` of "y" is outside positive(0)', 'the log density of "y" is no number']
    """
    _, found, _ = walk(run.staged.program, run.operands, _Look(), dict(values))
    return {name: jnp.any(flag) for (name,), flag in found.get("faults", {}).items()}


class _Look(Rule):
    """All choices have values; puts out flags, by their description."""

    handles = frozenset({CHOICE, FACTOR})

    def visit(self, step: Any, args: list, inputs: Any) -> Result:
        if isinstance(step, Factor):
            name = f"the log weight of factor/observe at {step.source} is no number"
            return [], {"faults": {(name,): _no_number(args[0])}}, {}
        value = jnp.asarray(inputs[step.path], step.spec.dtype)
        d = step.spec.tree.unflatten(args)
        flags = {}
        for name, ok, support in _parameters(d):
            text = f"the parameter `{name}` of {errors.show(step.path)} is outside {support}"
            flags[text,] = ~jnp.all(ok)
        density = log_density(elementwise(d), value)
        flags[f"the log density of {errors.show(step.path)} is no number",] = _no_number(density)
        return [value], {"faults": flags}, {}


def _no_number(log: Any) -> Any:
    return jnp.any(jnp.isnan(log) | (log == jnp.inf))


def _parameters(d: dist.Distribution) -> Any:
    """The parameters that have a constraint of their own: name, whether it holds, its name."""
    for inner in (*inner_distributions(d), d):
        for name, constraint in constrained(inner).items():
            value = inner.__dict__.get(name)
            if value is not None and not constraints.is_dependent(constraint):
                yield name, constraint(jnp.asarray(value)), support_name(constraint)
