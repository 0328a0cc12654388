"""`Kernel`: a Markov kernel on traces, with what a run can use beyond calling it.

A kernel is any random program from traces to traces; a plain function is one. A
`Kernel` is such a program that also has parameters (a step size, a mass matrix),
statistics of each step (the acceptance probability, say), and perhaps a way to tune its
parameters while a run warms up. It works on a state of its own, made from a trace by
`enter` and read back by `leave`, so that many steps in a row need not rebuild traces;
`kernel(trace)` enters, makes a step, and leaves.

Tuning is over before the first draw is kept: `Tuning.freeze` gives the parameters, and
`step` takes them as an argument that it cannot change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ppl import GenerativeFunction, Target, errors

from .recipe import Recipe
from .validation.same import check_same, check_trace
from .validation.settings import shown
from .weighted import Weighted

State = Any
Stats = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tuning:
    """How parameters are found during warm-up. Only `update` may draw.

    Attributes:
      init: `(state, n) -> tuning` before `n` steps of warm-up (`n` is a Python int).
      parameters: `tuning -> parameters` of the next step.
      update: `(tuning, state, stats) -> tuning` after a step.
      freeze: `tuning -> parameters` for good, after the last step.
      schedule: `n -> {"windows": array}`, what is known of a warm-up of `n` steps before it
        runs; for people.

    >>> from inference import Kernel, Tuning
    >>> count = Tuning(
    ...     init=lambda state, n: 0,
    ...     parameters=lambda tuning: tuning,
    ...     update=lambda tuning, state, stats: tuning + 1,
    ...     freeze=lambda tuning: tuning,
    ... )
    >>> lazy = Kernel("lazy", lambda parameters, state: (state, {}), 0, count)
    >>> tuning = count.update(count.init("a trace", 1), *lazy.step(0, "a trace"))
    >>> lazy.tuned(count.freeze(tuning)).parameters
    1
    """

    init: Callable[[State, int], Any]
    parameters: Callable[[Any], Any]
    update: Callable[[Any, State, Stats], Any]
    freeze: Callable[[Any], Any]
    schedule: Callable[[int], dict[str, Any]] | None = None


def _same(x: Any) -> Any:
    return x


@dataclass(frozen=True, eq=False)
class Kernel:
    """A random program `trace -> trace` with parameters, statistics, and tuning.

    Attributes:
      name: for statistics and messages.
      step: `(parameters, state) -> (state, stats)`, a random program.
      parameters: a pytree, used by `kernel(trace)`.
      tuning: how a warm-up finds the parameters; None keeps them.
      enter, leave: from a trace to a state and back.
      read: `state -> latents`, where that is cheaper than leaving.
      valid: `state -> bool`, whether a chain can start there (finite gradients, say).
      members: the number of traces in a state, for kernels on populations: then the
        kernel maps stacked traces to stacked traces. None: a single trace.
      draws: for kernels on populations, how many of the members, from the first on, are
        draws of the target.
      describe: `parameters -> dict`, their names, for people; left out where they are a dict
        or a named tuple.
      target: what it leaves invariant, where that is said: on any other it is refused.
      recipe: how a run makes it again of other data, so that it compiles once for all; None if
        it has to be compiled by itself.

    Raises:
      InvalidArgument: when it is called with a trace of another model, or of other arguments,
        than those of `target`.

    >>> import numpyro.distributions as dist
    >>> from inference import Kernel
    >>> from ppl import draw, law
    >>> up = Kernel("up", lambda p, x: (x + draw(dist.Bernoulli(p)), {}), 0.25)
    >>> law(up)(0).masses.tolist(), law(up.tuned(0.5))(0).masses.tolist()
    ([0.75, 0.25], [0.5, 0.5])
    """

    name: str
    step: Callable[[Any, State], tuple[State, Stats]]
    parameters: Any = ()
    tuning: Tuning | None = None
    enter: Callable[[Any], State] = _same
    leave: Callable[[State], Any] = _same
    read: Callable[[State], Any] | None = None
    valid: Callable[[State], Any] | None = None
    members: int | None = None
    draws: int | None = None
    target: Target | None = None
    describe: Callable[[Any], dict[str, Any]] | None = None
    recipe: Recipe | None = field(default=None, init=False, repr=False)

    def __call__(self, trace: Any) -> Any:
        if isinstance(trace, Target):
            raise _made_already(self)
        if isinstance(trace, Weighted):
            raise errors.InvalidArgument(
                "A kernel was given where a step is due.", where=errors.caller(), given=self.name,
                expected="a program from a weighted value to one", fix="lift(kernel)",
            )  # fmt: skip
        check_trace(f"The kernel {self.name}", self.target, trace, self.members is not None)
        return self.leave(self.step(self.parameters, self.enter(trace))[0])

    def tuned(self, parameters: Any) -> Kernel:
        """The same kernel with other parameters."""
        made = replace(self, parameters=parameters)
        recipe = self.recipe
        return made if recipe is None or not recipe.tunable else made.of_recipe(recipe)

    def of_recipe(self, recipe: Recipe | None) -> Kernel:
        """The same kernel, of this recipe. One whose functions are replaced later has none."""
        made = replace(self)
        object.__setattr__(made, "recipe", recipe)
        return made

    def named(self, parameters: Any) -> dict[str, Any]:
        """Parameters by name: "step_size", say, or "inverse_mass.axes" of a parameter that has
        parts; empty where they have no names."""
        if self.describe is not None:
            return self.describe(parameters)
        if not hasattr(parameters, "_asdict"):
            return dict(parameters) if isinstance(parameters, Mapping) else {}
        found = {}
        for name, value in parameters._asdict().items():
            parts = value._asdict().items() if hasattr(value, "_asdict") else ()
            found |= {f"{name}.{part}": x for part, x in parts} or {name: value}
        return found

    def warm(self) -> Tuning:
        """Its tuning; one that keeps the parameters if it has none."""
        if self.tuning is not None:
            return self.tuning
        return Tuning(
            init=lambda state, n: self.parameters,
            parameters=_same,
            update=lambda parameters, state, stats: parameters,
            freeze=_same,
        )


def as_kernel(kernel: Callable[[Any], Any]) -> Kernel:
    """A function `trace -> trace` as a `Kernel` without parameters; a `Kernel` as it is.

    Raises:
      InvalidArgument: it is no function of a trace.

    >>> from inference import as_kernel
    >>> stay = as_kernel(lambda trace: trace)
    >>> stay.parameters, stay("a trace")
    ((), 'a trace')
    """
    if isinstance(kernel, Kernel):
        return kernel
    if _takes_target(kernel):
        raise errors.InvalidArgument(
            "A function that makes a kernel was given where the kernel is due.",
            where=errors.caller(), given=shown(kernel), expected="a kernel of one target",
            fix=f"call it: {getattr(kernel, '__name__', 'make')}(target, ...)",
        )  # fmt: skip
    if not callable(kernel) or isinstance(kernel, (type, GenerativeFunction)):
        raise errors.InvalidArgument(
            "There is no kernel.", where=errors.caller(), given=shown(kernel),
            expected="a Kernel, or a random program from a trace to a trace",
            fix='mh(target, "x"), nuts(target), ...',
        )  # fmt: skip
    name = getattr(kernel, "__name__", type(kernel).__name__)
    return Kernel(name.strip("<>"), lambda _, trace: (kernel(trace), {}))


def kernel_for(target: Target, make: Callable[[Target], Any]) -> Kernel:
    """What `make` makes of a target, as a `Kernel` that is of this target.

    Raises:
      InvalidArgument: `make` is no function of a target, or makes a kernel of another one.

    >>> import numpyro.distributions as dist
    >>> from inference import mh
    >>> from inference.kernel import kernel_for
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda mean: sample("x", dist.Normal(mean, 1.0)))
    >>> kernel_for(Target(model, (0.0,)), lambda target: mh(target, "x")).target.args
    (0.0,)
    """
    check_maker(make)
    made = as_kernel(make(target))
    fix = f"make it of the target that is given: lambda target: {made.name.split()[0]}(target, ...)"
    check_same(f"The kernel {made.name}", made.target, target, "the target given to it", fix)
    return made


def check_maker(make: Any) -> None:
    """Raise `InvalidArgument` unless `make` may be a function that makes kernels of targets."""
    if isinstance(make, Kernel):
        raise _made_already(make)
    if not callable(make) or isinstance(make, (type, GenerativeFunction)):
        raise errors.InvalidArgument(
            "There is no function that makes a kernel.", where=errors.caller(), given=shown(make),
            expected="a function from a target to a kernel, since the target changes",
            fix='lambda target: mh(target, "x")',
        )  # fmt: skip


def _takes_target(f: Any) -> bool:
    """Whether a function's first argument is a target: it makes kernels, and is none."""
    if not callable(f) or isinstance(f, type):
        return False
    try:
        names = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):  # of what is not written in Python
        return False
    return names[:1] == ["target"]


def _made_already(kernel: Kernel) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        "A kernel was given where a function that makes one is due.",
        where=errors.caller(), given=kernel.name,
        expected="a function from a target to a kernel, since the target changes",
        fix='lambda target: mh(target, "x"), or what made this kernel',
    )  # fmt: skip
