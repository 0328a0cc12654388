"""The evidence lower bound with its divergences in closed form.

Given what the guide has made before a latent, log p - log q of it has the mean -KL(q || p). That
is so where the model makes the latent from observations and from latents that, in the guide, do
not follow from it: those tell nothing of it, once what the guide makes it from is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ppl import GenerativeFunction, Site, Target, dependencies, errors
from ppl.addresses import flatten, nest
from ppl.execute import Execute
from ppl.generative import as_given
from ppl.missing import check_nothing_depends
from ppl.program import CHOICE, FACTOR, Choice, Loop, Path, Program, Step, bodies
from ppl.walk import Result, Rule, walk

from ..targets.stochastic import Stochastic
from ..validation.objects import check_no_gaps
from .closed_forms import divergence, family, known
from .drawn import check_exact


def analytic_elbo(target: Target, guide: GenerativeFunction | Stochastic, args: tuple) -> Any:
    """One draw of the bound, where log p - log q has its mean instead, if that is known.

    >>> import jax, numpyro.distributions as dist
    >>> from inference.vi.analytic import analytic_elbo
    >>> from ppl import Target, gen, sample, seed
    >>> model = gen(lambda: sample("y", dist.Normal(0 * sample("z", dist.Normal(0, 1)), 1)))
    >>> guide = gen(lambda: sample("z", dist.Normal(0, 1)))
    >>> bound = lambda: analytic_elbo(Target(model, (), {"y": 0.0}), guide, ())
    >>> print(f"{seed(bound)(jax.random.key(0)):.4f}")  # the log evidence, whatever is drawn
    -0.9189
    """
    check_exact(guide, "A closed form", args)
    assert isinstance(guide, GenerativeFunction)
    closed = closed_forms(target, guide, args)
    check_nothing_depends(target)
    check_no_gaps(target, "A closed form", "analytic=False")
    choices = guide.simulate(*args).choices
    everything = nest({**target.observed, **flatten(choices)})
    q, sampled_q = _apart(guide, args, choices, closed)
    p, sampled_p = _apart(target.model, target.args, everything, closed)
    known_part = sum(divergence(a, q[path], b, p[path]) for path, (a, b) in closed.items())
    return sampled_p - sampled_q - known_part


def closed_forms(
    target: Target, guide: GenerativeFunction, args: tuple
) -> dict[Path, tuple[Site, Site]]:
    """The latents whose divergence is known, each as it is in the guide and in the model.

    Raises:
      InvalidArgument: there is none.
    """
    made, wanted = guide.sites(*args), target.sites
    below = dependencies(guide, *args)
    above = dependencies(target.model, *target.args).parents
    found, why = {}, []
    for path in target.latents:
        q, p = made[path], wanted[path]
        after = set(below.descendants(path))
        if not known(family(q), family(p)):
            why.append(f"{errors.show(path)}: {q.kind} and {p.kind}")
        elif (after & set(above[path])) - {path}:
            why.append(f"{errors.show(path)}: the model makes it from what the guide makes of it")
        elif path in above[path] and not _in_order(target, guide, args, path, path in after):
            why.append(f"{errors.show(path)}: the guide's loop has another order than the model's")
        else:
            found[path] = q, p
    if not found:
        raise errors.InvalidArgument(
            "No latent has a divergence in closed form.",
            where=[f"{errors.show(p)} at {made[p].source}" for p in target.latents[:2]]
            + [errors.caller()],
            given="; ".join(why) or "no latents",
            expected="a guide whose choice has the family of the model's: Normal and Normal, ...",
            fix="elbo(target, guide), which needs none",
        )
    return found


def _in_order(
    target: Target, guide: GenerativeFunction, args: tuple, path: Path, chained: bool
) -> bool:
    """Whether what the model makes an element of a chain from precedes it in the guide."""
    q = guide._prepare(args, {})
    if family(q.sites[path]) in ("dirichlet", "multivariate normal"):
        return False  # its elements are not made one by one
    p = target.model._prepare(target.args, {})
    same = _loops(q.staged.program, path) == _loops(p.staged.program, path)
    return not chained or (same and q.sites[path].axes == p.sites[path].axes)


def _loops(program: Program, path: Path) -> tuple[bool, ...]:
    """The loops around a choice, outermost first: whether each runs backwards."""
    for step in program.steps:
        if path in step.paths:
            own = (step.reverse,) if isinstance(step, Loop) else ()
            for body in bodies(step):
                if path in body.paths:
                    return own + _loops(body, path)
    return ()


def _apart(
    model: GenerativeFunction, args: tuple, choices: Mapping[str, Any], closed: Mapping[Path, Any]
) -> tuple[dict[Path, list], Any]:
    """Of the closed choices the parameters; of all others the log density."""
    run = model._prepare(args, {}).check_arguments()
    given = {path: as_given(v) for path, v in run.check(choices, "The value", True).items()}
    execute = run.rule(constrained=frozenset(given), filler=True, sums=("weight",), blank=True)
    rule = _Apart(frozenset(closed), execute)
    _, found, sums = walk(run.staged.program, run.operands, rule, given)
    return found["parameters"], sums.get("weight", jnp.zeros((), float))


class _Apart(Rule):
    """Put out the parameters of the closed choices, and score the others."""

    handles = frozenset({CHOICE, FACTOR})
    sums = ("weight",)

    def __init__(self, closed: frozenset[Path], execute: Execute):
        self.closed = closed
        self.execute = execute

    def visit(self, step: Step, args: list, inputs: Any) -> Result:
        if isinstance(step, Choice) and step.path in self.closed:
            parameters = [jnp.asarray(arg) for arg in args]
            return [inputs[step.path].value], {"parameters": {step.path: parameters}}, {}
        return self.execute.visit(step, args, inputs)

    def absent(self, step: Any, i: int, inner: Any) -> dict[str, Any]:
        return self.execute.absent(step, i, inner)
