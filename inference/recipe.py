"""How a kernel is made again of another target, so that one compiled program serves them all.

A kernel's functions hold the data of the target that it was made for. A recipe is what made the
kernel, without the target: of two kernels of one recipe, and targets of one model and of equal
shapes, the programs differ in numbers alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ppl import Target

if TYPE_CHECKING:
    from .kernel import Kernel

P = ParamSpec("P")


@dataclass(frozen=True)
class Recipe:
    """What made a kernel: equal recipes make equal kernels of equal targets.

    Attributes:
      identity: the function, and its other arguments with their types.
      make: `(target, parameters) -> kernel`.
      tunable: whether it is that of the kernel with other parameters, too.
    """

    identity: Hashable
    make: Callable[[Target, Any], Kernel] = field(compare=False)
    tunable: bool = True


def made_again(maker: Callable[Concatenate[Target, P], Kernel]) -> Any:
    """`maker`, a function of a target and settings, whose kernels have a recipe.

    They have none where a setting cannot be hashed, such as an array: such a kernel is compiled
    by itself.

    >>> import numpyro.distributions as dist
    >>> from inference import mh
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda mean: sample("x", dist.Normal(mean, 1.0)))
    >>> one, other = (mh(Target(model, (mean,)), "x") for mean in (0.0, 1.0))
    >>> one.recipe == other.recipe, one.recipe == mh(one.target, ("x",)).recipe
    (True, False)
    """
    signature = inspect.signature(maker)
    named = next(iter(signature.parameters))

    @wraps(maker)
    def made(*args: Any, **settings: Any) -> Any:
        kernel = maker(*args, **settings)
        bound = signature.bind(*args, **settings)
        bound.apply_defaults()
        kinds = tuple((k, type(x), x) for k, x in bound.arguments.items() if k != named)
        if not _hashable(kinds):
            return kernel
        rest = args if named in settings else args[1:]
        more = {name: value for name, value in settings.items() if name != named}

        def again(target: Target, parameters: Any) -> Kernel:
            return maker(target, *rest, **more).tuned(parameters)

        return kernel.of_recipe(Recipe((maker, kinds), again))

    return made


def of_parts(
    whole: Hashable, parts: list[Kernel], make: Callable[[list[Kernel]], Kernel]
) -> Recipe | None:
    """The recipe of a kernel that is made of others, whose parameters are theirs in a tuple.

    None if one of them has none. With other parameters than its parts' it is another kernel.
    """
    recipes = [part.recipe for part in parts if part.recipe is not None]
    if not parts or len(recipes) < len(parts) or not _hashable(whole):
        return None

    def again(target: Target, parameters: tuple) -> Kernel:
        pairs = zip(recipes, parameters, strict=True)
        return make([recipe.make(target, own) for recipe, own in pairs])

    return Recipe((whole, *recipes), again, tunable=False)


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True
