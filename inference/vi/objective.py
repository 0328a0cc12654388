"""What is maximised: a random program of the arguments of a guide, made of a target and the guide.

Its mean is the objective; `expectation` of it has unbiased derivatives, and `fit` climbs it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Target, errors
from ppl.jumps import INSIDE

from ..targets.minibatch import Minibatch
from ..targets.stochastic import Stochastic
from ..validation.objects import check_target
from .matching import check_guide, supports_stay

Guide: TypeAlias = GenerativeFunction | Stochastic
"""What makes the latents of a target, and has a density, or an estimate of one."""

Targets: TypeAlias = Target | Minibatch | Callable[..., Target | Minibatch]
"""A target, or a minibatch of its data; or what makes one of the arguments of a guide."""


def _scope(target: Target) -> Any:
    """Where the guide's supports are inside the target's, and what is observed in its own."""
    return jax.named_scope(INSIDE) if supports_stay(target) else nullcontext()


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Objective:
    """`objective(*args)`: a random program whose mean is to be maximised.

    A pytree, whose leaves are the data of the target: two objectives that differ in their data
    only are one compiled program.

    Attributes:
      name: for messages, the call that made it.
      target: a target, or a function of the guide's arguments that makes one.
      guide: what makes the target's latents.
      run: `(target, guide, args) -> value`, the objective as a random program. One that has
        `of_minibatch` is the bound of one draw, which minibatches estimate.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Objective
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def coin():
    ...     fair = sample("fair", dist.Bernoulli(0.5))
    ...     sample("heads", dist.Bernoulli(jnp.where(fair == 1, 0.5, 0.75)))
    >>> guide = gen(lambda p: sample("fair", dist.Bernoulli(p)))
    >>> def squared(target, guide, args):  # the mean of the squared weight, which is at least Z^2
    ...     trace = guide.simulate(*args)
    ...     return -jnp.exp(2 * (target.log_density(trace.choices) - trace.score))
    >>> objective = Objective("squared", Target(coin, (), {"heads": 1}), guide, squared)
    >>> print(f"{integrate(objective)(0.4):.4f} {integrate(objective)(0.5):.4f}")
    -0.3906 -0.4062
    """

    name: str
    target: Targets
    guide: Guide
    run: Callable[[Target, Guide, tuple], Any]

    def __post_init__(self) -> None:
        if not callable(self.target) or isinstance(self.target, GenerativeFunction | type):
            check_target(self.target)
        if not isinstance(self.guide, GenerativeFunction | Stochastic):
            raise errors.InvalidArgument(
                "A guide is a generative function.",
                where=errors.caller(),
                given=repr(self.guide),
                expected="a function decorated with @gen, or normalize(...), marginalize(...)",
                fix="decorate it with @gen, and give the function, not a call of it",
            )

    def __call__(self, *args: Any) -> Any:
        """One draw of the objective.

        Raises:
          GuideMismatch: the guide does not make the target's latents.
        """
        made = self._made(args)
        if not isinstance(made, Minibatch):
            check_guide(made, self.guide, args)
            with _scope(made):
                return self.run(made, self.guide, args)
        if not getattr(self.run, "of_minibatch", False):
            raise errors.InvalidArgument(
                f"There is no {self.name} of a minibatch: but for linear ones it would be biased.",
                where=errors.caller(),
                given=repr(made),
                expected="elbo(minibatch(...), guide), or all data",
                fix="take elbo for the fit, and this objective of the whole target to compare",
            )
        numbers = jnp.zeros(made.size, int)
        some = made.target(numbers)
        check_guide(some, self.guide, self._of(made, args, numbers))
        with _scope(some):
            return made.bound(self.guide, args)

    def target_of(self, *args: Any) -> Target:
        """The target at these arguments of the guide, of all data.

        Raises:
          GuideMismatch: the guide does not make its latents.
        """
        made = self._made(args)
        whole = made.whole() if isinstance(made, Minibatch) else made
        check_guide(whole, self.guide, self.guide_args(*args))
        return whole

    def guide_args(self, *args: Any) -> tuple:
        """The arguments of the guide for the latents of all data."""
        made = self._made(args)
        if not isinstance(made, Minibatch):
            return args
        return self._of(made, args, jnp.arange(made.total))

    def _made(self, args: tuple) -> Target | Minibatch:
        target: Any = self.target
        made = target if isinstance(target, Target | Minibatch) else target(*args)
        if not isinstance(made, Minibatch):
            check_target(made)
        return made

    @staticmethod
    def _of(made: Minibatch, args: tuple, numbers: jax.Array) -> tuple:
        return args if made.local is None else (*args, numbers)

    def __repr__(self) -> str:
        return f"<objective {self.name}>"

    def tree_flatten(self) -> tuple[tuple, tuple]:
        made = None if isinstance(self.target, Target) else self.target
        known = self.target if made is None else None
        return (known, self.guide), (self.name, made, self.run)

    @classmethod
    def tree_unflatten(cls, aux: tuple, children: tuple) -> Objective:
        found = object.__new__(cls)
        name, made, run = aux
        for field, value in (
            ("name", name),
            ("target", children[0] if made is None else made),
            ("guide", children[1]),
            ("run", run),
        ):
            object.__setattr__(found, field, value)
        return found
