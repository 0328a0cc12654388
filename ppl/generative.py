"""Generative functions and traces: the six methods and their laws.

Notation: a model with arguments a denotes an (unnormalised) measure p(.; a) over
its choices. Every method is a keyless random program: seed it, integrate it, or
take its expectation.

Longer than 400 lines because the laws are written out where the methods are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist

from . import errors, notebook
from .addresses import At, Masked, Selection, as_path, as_selection, flatten, nest, not_found
from .arguments import Arguments, is_array
from .excluded_branches import check_branches
from .execute import Execute, Given
from .parameters import check_arguments
from .program import FACTOR, Factor, Path, Program, bodies
from .sites import Site, check_values, sites
from .staging import Staged, apply, lifted, stage
from .walk import walk


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """One run of a generative function: a frozen pytree.

    Attributes:
      model: the generative function.
      arguments: its arguments, as `Arguments(args, kwargs)`.
      choices: nested dict of values, stacked along `vmap` and `scan` axes.
      score: log p(choices; args), or log of an unbiased estimate of it when the
        model also draws without addresses.
      retval: the return value.
      present: for choices in branches only, whether they happened.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> @gen
    ... def model():
    ...     a = sample("a", dist.Bernoulli(0.5))
    ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
    >>> trace, log_weight = model.generate({"a": 1, "b": 0})
    >>> trace
    Trace(model; "a": 1, "b": 0; score=-2.079)
    >>> int(trace["b"]), int(trace.retval), bool(log_weight == trace.score)
    (0, 0, True)
    """

    model: GenerativeFunction
    arguments: Arguments
    choices: dict[str, Any]
    score: jax.Array
    retval: Any
    present: dict[str, Any]

    @property
    def args(self) -> tuple:
        return self.arguments.args

    def __getitem__(self, address: str | tuple[str, ...]) -> Any:
        """The value (or the dict of values) at an address.

        Raises:
          AddressNotFound: with the nearest address.
        """
        level: Any = self.choices
        path = as_path(address)
        for part in path:
            if not isinstance(level, Mapping) or part not in level:
                raise not_found(path, flatten(self.choices), "The trace lookup")
            level = level[part]
        return level

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {value}" for name, value in self._rows())
        return f"Trace({self.model.name}; {rows}; score={_shown(self.score)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the values of `repr`, in a table."""
        score = [("score", _shown(self.score))]
        return notebook.table(self._rows(), caption=f"Trace of {self.model.name}", foot=score)

    def _rows(self) -> list[tuple[str, str]]:
        return [(errors.show(p), _shown(v)) for p, v in flatten(self.choices).items()]


def _shown(x: Any) -> str:
    """A number, or the dtype and shape of what is more than one, or not known yet."""
    short = jnp.ndim(x) == 0 and not isinstance(x, jax.core.Tracer)
    return f"{x:.4g}" if short else f"{jnp.result_type(x).name}{list(jnp.shape(x))}"


class Call:
    """`model(args)`: what `sample("address", model(args))` takes. Nothing is run yet.

    Its choices lie below the address; it is no value, so that its operators are errors.

    Raises:
      InvalidArgument: it is used as a value.

    >>> import numpyro.distributions as dist
    >>> from ppl import Call, gen, sample
    >>> @gen
    ... def coin(p):
    ...     return sample("heads", dist.Bernoulli(p))
    >>> coin(0.25), isinstance(coin(0.25), Call)
    (coin(0.25), True)
    >>> two = gen(lambda: sample("a", coin(0.25)) + sample("b", coin(0.5)))
    >>> list(two.sites())
    [('a', 'heads'), ('b', 'heads')]
    """

    def __init__(self, model: GenerativeFunction, arguments: Arguments):
        self.model = model
        self.arguments = arguments

    def __bind_call__(self):
        staged, leaves = self.model.staged(self.arguments)
        values, jaxpr = lifted(staged.jaxpr)
        return (*values, *leaves), jaxpr, staged.rebuild

    def __repr__(self):
        return f"{self.model.name}{self.arguments!r}"

    __array_ufunc__ = None  # numpy leaves its operators to those below


def _used_as_value(self: Call, *_: Any) -> Any:
    """The operators of a `Call`: it is no value before it is sampled."""
    raise errors.InvalidArgument(
        f"{self.model.name}(...) is used as a value, but it is a call that has not been run.",
        where=errors.caller(),
        given=repr(self),
        expected="the value that the call returns",
        fix=f'sample("name", {self.model.name}(...)) in a model, '
        "or seed(model.simulate)(key, *args).retval",
    )


_OPERATORS = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul "
    "rmatmul neg pos abs lt le gt ge getitem iter len bool float int index"
)
for _operator in _OPERATORS.split():
    setattr(Call, f"__{_operator}__", _used_as_value)


# What a `Target` has and a generative function has not.
_OF_TARGETS = frozenset({
    "args", "at", "choices", "constrain", "coordinates", "latents", "log_density", "model",
    "moved", "observations", "observed", "observed_values", "potential", "selection",
    "unconstrain",
})  # fmt: skip


@jax.tree_util.register_pytree_node_class
class GenerativeFunction:
    """A function with addressed choices; made by `@gen`.

    It denotes a measure p(.; args) over its choices, of total mass one unless it
    scores with `factor` or `observe`. Its methods are random programs without keys.
    A pytree: the arrays of the function (an equinox module, say) are its leaves.

    >>> import numpyro.distributions as dist
    >>> from ppl import GenerativeFunction, gen, law, sample
    >>> @gen
    ... def coin(p):
    ...     return sample("heads", dist.Bernoulli(p))
    >>> isinstance(coin, GenerativeFunction), list(coin.sites(0.25))
    (True, [('heads',)])
    >>> law(lambda: coin.simulate(0.25)["heads"])().masses.tolist()
    [0.75, 0.25]
    """

    def __init__(self, fn: Callable, fixed: frozenset = frozenset(), name: str | None = None):
        self.fn = fn
        self.fixed = fixed
        self.name = name or getattr(fn, "__name__", type(fn).__name__)
        self.__doc__ = getattr(fn, "__doc__", None)

    def tree_flatten(self):
        leaves, tree = jax.tree.flatten(self.fn)
        if len(leaves) == 1 and leaves[0] is self.fn:
            return (), (None, self.fn, self.fixed, self.name)
        return (self.fn,), (tree, None, self.fixed, self.name)

    @classmethod
    def tree_unflatten(cls, aux, children):
        made = object.__new__(cls)
        made.fn = children[0] if children else aux[1]
        made.fixed, made.name = aux[2], aux[3]
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Call:
        return Call(self, Arguments.entering(args, kwargs, self.fixed, self.fn))

    def __repr__(self) -> str:
        return f"<generative function {self.name}>"

    def __getattr__(self, name: str) -> Any:
        # all that takes a target asks it for one of these first: here one place tells them all
        if name in _OF_TARGETS:
            raise errors.InvalidArgument(
                "A target was expected, not its model.",
                where=(f"model {self.name}", errors.caller()),
                given=f"the generative function {self.name}",
                expected="the posterior: a model, its arguments, and what is observed",
                fix=f"Target({self.name}, (...), {{...}})",
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- static knowledge ----------------------------------------------------------

    def staged(self, arguments: Arguments) -> tuple[Staged, tuple]:
        """The staged program, and the operands to run it on."""
        if jax.tree.leaves(self.fn) == [self.fn]:
            return stage(self.fn, arguments, self._check_result), arguments.leaves
        shifted = frozenset(i + 1 if isinstance(i, int) else i for i in self.fixed)
        with_fn = Arguments.of((self.fn, *arguments.args), arguments.kwargs, shifted)
        return stage(apply, with_fn, self._check_result), with_fn.leaves

    def _check_result(self, result: Any) -> None:
        """Raise for a distribution, or another thing that is no array, where a value was meant."""
        for leaf in jax.tree.leaves(result, is_leaf=lambda x: isinstance(x, dist.Distribution)):
            if isinstance(leaf, dist.Distribution):
                raise errors.InvalidDistribution(
                    f"{self.name} returns a distribution, where a value is meant.",
                    where=(errors.defined(self.fn), errors.caller()),
                    given=f"a {type(leaf).__name__} distribution",
                    expected="a value drawn from it",
                    fix='sample it: return sample("x", distribution)',
                )
            if not is_array(leaf):
                raise errors.InvalidArgument(
                    f"{self.name} returns something that is no array.",
                    where=(errors.defined(self.fn), errors.caller()),
                    given=f"{type(leaf).__name__}: {leaf!r}",
                    expected="arrays, numbers, or trees of them; None for nothing",
                    fix="return the arrays alone",
                )

    def _prepare(self, args: tuple, kwargs: dict) -> _Prepared:
        arguments = (
            args[0]
            if _is_arguments(args, kwargs)
            else Arguments.entering(args, kwargs, self.fixed, self.fn)
        )
        staged, operands = self.staged(arguments)
        return _Prepared(self, arguments, staged, operands, sites(staged.program))

    def sites(self, *args: Any, **kwargs: Any) -> dict[Path, Site]:
        """The choices, with shapes, dtypes, supports and source lines; nothing runs.

        Raises:
          DuplicateAddress, PrefixClash, BranchMismatch: faults of the model.
        """
        return dict(self._prepare(args, kwargs).sites)

    # -- the six methods ------------------------------------------------------------

    def simulate(self, *args: Any, **kwargs: Any) -> Trace:
        """t ~ p(.; args), with `trace.score` = log p(t; args).

        Raises:
          CannotSimulate: the model scores with `factor` or `observe`.

        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from ppl import gen, integrate, law, sample
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> law(lambda: model.simulate().retval)().masses.tolist()
        [0.5, 0.5]
        >>> # E[1 / p(t)] counts the traces
        >>> print(f"{integrate(lambda: jnp.exp(-model.simulate().score))():.1f}")
        4.0
        """
        run = self._prepare(args, kwargs).check_arguments()
        if FACTOR in run.staged.program.effects:
            raise errors.CannotSimulate(
                f"{self.name} scores with factor/observe, so it cannot be run forward exactly.",
                where=(_first_factor(run.staged.program), errors.caller()),
                expected="a model whose measure has total mass one",
                fix="use generate({}, *args): its log weight carries the factors; or make "
                "the observation a choice and constrain it",
            )
        return run.trace(run.rule(sums=("score",)), {})[0]

    def assess(self, choices: Mapping[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """`(log p(choices; args), return value)`.

        If the model also draws without addresses, the log of an unbiased estimate
        of the density of the choices. Choices in branches not taken have value 0.

        Raises:
          MissingChoice: a choice is not given.
          AddressNotFound, ShapeError, DtypeError, SupportError: as for `generate`.

        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from ppl import gen, sample
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> score, retval = model.assess({"a": 1, "b": 1})
        >>> print(f"{jnp.exp(score):.4f} {retval}")  # 1/2 times 3/4
        0.3750 1
        """
        run = self._prepare(args, kwargs).check_arguments()
        given = run.check(choices, "assess", filler=True)
        for path, site in run.sites.items():
            if path not in given or isinstance(given[path], (Masked, At)):
                raise errors.MissingChoice(
                    f"assess needs a value for {errors.show(path)}.",
                    where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                    expected=f"shape {site.shape}, {site.support}",
                    fix="give it, or use generate, which makes the missing choices"
                    + ("; in a branch not taken the value is 0" if site.conditional else ""),
                )
        rule = run.rule(constrained=frozenset(given), filler=True, sums=("score",))
        trace, sums, _ = run.trace(rule, {p: Given(v) for p, v in given.items()})
        del sums
        return trace.score, trace.retval

    def generate(
        self, constraints: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Trace, jax.Array]:
        """`(t, w)` with E[e^w delta_t] = p(dt; args) restricted to t extending the constraints.

        Choices not constrained are drawn from the model; w is the log density of
        the constrained ones (and factors). `Masked(value, mask)` constrains part
        of an array, and the weight is then that of the marginal.

        Raises:
          AddressNotFound, ShapeError, DtypeError, SupportError: a constraint does not fit.
          ExcludedBranch: known values exclude the branch of a constrained choice.

        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from ppl import gen, integrate, sample
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> def weighted():
        ...     trace, log_weight = model.generate({"b": 1})
        ...     return jnp.exp(log_weight) * jnp.array([1 - trace["a"], trace["a"]])
        >>> integrate(weighted)().round(4).tolist()  # p(a, b=1), for a = 0 and 1
        [0.125, 0.375]
        """
        run = self._prepare(args, kwargs).check_arguments()
        given = run.check(constraints, "The constraint")
        rule = run.rule(constrained=frozenset(given))
        trace, sums, _ = run.trace(rule, {p: as_given(v) for p, v in given.items()})
        return trace, sums.get("weight", jnp.zeros((), float))

    def update(
        self, trace: Trace, constraints: Mapping[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Trace, jax.Array, dict[str, Any]]:
        """`(t', w, discarded)` with w = log p(t'; args) - log p(t) - log q(fresh choices).

        t' has the constrained values and keeps the others; choices that only t'
        makes are drawn. Updating t' with `discarded` (and the old arguments) gives
        t back, with weight -w when nothing was fresh. Without `args`, the trace's.
        `At(index, value)` changes one element of a choice in a loop.

        Raises:
          AddressNotFound, ShapeError, DtypeError, SupportError: a constraint does not fit.
          ExcludedBranch: known values exclude the branch of a constrained choice.
          InvalidArgument: `trace` is no trace, or another model's.

        >>> import numpyro.distributions as dist
        >>> from ppl import gen, sample
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> trace, _ = model.generate({"a": 0, "b": 1})
        >>> changed, log_weight, discarded = model.update(trace, {"a": 1})
        >>> back, again, _ = model.update(changed, discarded)
        >>> print(f"{log_weight:.4f} {again:.4f}", back)  # log of 3/8 over 1/8, and undone
        1.0986 -1.0986 Trace(model; "a": 0, "b": 1; score=-2.079)
        """
        run = self._prepare(*_or_old(trace, args, kwargs)).check_arguments()
        from .update import update

        return update(run, trace, run.check(constraints, "The constraint"))

    def regenerate(
        self, trace: Trace, selection: Selection | str | tuple[str, ...], *args: Any, **kwargs: Any
    ) -> tuple[Trace, jax.Array, dict[str, Any]]:
        """`(t', w, discarded)`: t' redraws the selection from the model; w is the
        log ratio with which Metropolis-Hastings accepts t'.

        w = log p(t')/p(t) + log q(t; t')/q(t'; t), where q redraws the selected
        choices (and those that appear) given the others: what remains is the
        change of the log density of the choices kept. If the model also draws without
        addresses, the pseudo-marginal ratio (Andrieu and Roberts 2009).

        Raises:
          AddressNotFound: the selection names no choice.
          UnsupportedControlFlow: a selected choice depends on a draw without an address.
          InvalidArgument: `trace` is no trace, or another model's.

        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from ppl import gen, law, sample
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> trace, _ = model.generate({"a": 0, "b": 1})
        >>> ratio = law(lambda: model.regenerate(trace, "a")[1])()
        >>> jnp.exp(ratio.values).round(4).tolist(), ratio.masses.tolist()  # a still 0, or 1
        ([1.0, 3.0], [0.5, 0.5])
        """
        run = self._prepare(*_or_old(trace, args, kwargs)).check_arguments()
        chosen = as_selection(selection)
        chosen.check(run.sites)
        from .update import regenerate

        return regenerate(run, trace, chosen)

    def project(self, trace: Trace, selection: Selection | str | tuple[str, ...]) -> jax.Array:
        """The log density of the selected choices given what they depend on.

        Over a partition of the addresses it adds up to the score. A factor belongs
        to the address of the generative function it is in (`()` for the outermost).

        Raises:
          AddressNotFound: the selection names no choice.
          InvalidArgument: `trace` is no trace.

        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> from ppl import gen, sample, select
        >>> @gen
        ... def model():
        ...     a = sample("a", dist.Bernoulli(0.5))
        ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
        >>> trace, _ = model.generate({"a": 0, "b": 1})
        >>> some, rest = model.project(trace, "b"), model.project(trace, ~select("b"))
        >>> print(f"{jnp.exp(some):.4f} {jnp.exp(rest):.4f} {jnp.exp(trace.score):.4f}")
        0.2500 0.5000 0.1250
        """
        _check_trace(trace)
        run = self._prepare((trace.arguments,), {})
        chosen = as_selection(selection)
        chosen.check(run.sites)
        rule = run.rule(weighed=chosen, sums=("weight",))
        values = {path: Given(given.value) for path, given in run.old(trace).items()}
        _, sums, _ = run.trace(rule, values)
        return sums.get("weight", jnp.zeros((), float))


# What each method checks of the values that are known where it is called, before it is
# staged with all of its arguments traced (`ppl.randomness.program_of`).


def check_with(method: Callable, check: Callable) -> None:
    """Let `check(self, *args, **kwargs)` run before `method` is staged."""
    method.__check__ = check  # type: ignore[attr-defined]


def _keep_static(method: Callable, before: int) -> None:
    """Let the model's static arguments be static when `method` is staged.

    `before` is how many arguments of its own the method takes before the model's.
    """

    def fixed(self: GenerativeFunction) -> frozenset:
        return frozenset(i + before if isinstance(i, int) else i for i in self.fixed)

    method.__fixed__ = fixed  # type: ignore[attr-defined]


_keep_static(GenerativeFunction.simulate, 0)
_keep_static(GenerativeFunction.assess, 1)
_keep_static(GenerativeFunction.generate, 1)
_keep_static(GenerativeFunction.update, 2)
_keep_static(GenerativeFunction.regenerate, 2)


def _check_choices(name: str, what: str, filler: bool = False) -> Callable:
    """The check of a method whose first argument is a choice map, called `name`."""

    def check(self: GenerativeFunction, *call: Any, **kwargs: Any) -> None:
        choices = call[0] if call else kwargs.pop(name, None)
        run = self._prepare(call[1:], kwargs).check_arguments()
        if choices is not None and any_known(choices):
            run.check(choices, what, filler)

    return check


def _check_update(self: GenerativeFunction, *call: Any, **kwargs: Any) -> None:
    """The check of `update`: a trace, then a choice map."""
    trace = call[0] if call else kwargs.pop("trace", None)
    choices = call[1] if len(call) > 1 else kwargs.pop("constraints", None)
    if trace is not None and choices is not None:
        args, kwargs = _or_old(trace, call[2:], kwargs)
        run = self._prepare(args, kwargs).check_arguments()
        if any_known(choices):
            run.check(choices, "The constraint")


def _check_simulate(self: GenerativeFunction, *args: Any, **kwargs: Any) -> None:
    self._prepare(args, kwargs).check_arguments()


def any_known(choices: Any) -> bool:
    """Whether a choice map has something to check before tracing."""
    if isinstance(choices, Mapping) and not choices:
        return False
    leaves = jax.tree.leaves(choices)
    return not leaves or any(not isinstance(leaf, jax.core.Tracer) for leaf in leaves)


check_with(GenerativeFunction.simulate, _check_simulate)
check_with(GenerativeFunction.generate, _check_choices("constraints", "The constraint"))
check_with(GenerativeFunction.assess, _check_choices("choices", "assess", filler=True))
check_with(GenerativeFunction.update, _check_update)


def _first_factor(program: Program) -> str:
    """`file:line` of the first `factor` or `observe`."""
    step = next(s for s in program.steps if FACTOR in s.effects)
    if isinstance(step, Factor):
        return f"factor at {step.source}"
    return next(_first_factor(body) for body in bodies(step) if FACTOR in body.effects)


def _is_arguments(args: tuple, kwargs: dict) -> bool:
    return len(args) == 1 and not kwargs and isinstance(args[0], Arguments)


def _or_old(trace: Trace, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    _check_trace(trace)
    return (args, kwargs) if args or kwargs else ((trace.arguments,), {})


def _check_trace(trace: Any) -> None:
    """Raise `InvalidArgument` for what is no trace."""
    if not isinstance(trace, Trace):
        raise errors.InvalidArgument(
            "A trace was expected.",
            where=errors.caller(),
            given=type(trace).__name__,
            expected="a Trace: the result of simulate, or the first one of generate",
            fix="trace = seed(model.simulate)(key, *args)",
        )


def as_given(value: Any) -> Given:
    if isinstance(value, At):
        raise errors.InvalidArgument(
            "At(index, value) is for update: it changes one element of an old value.",
            where=errors.caller(),
            fix="constrain a part of an array with Masked(value, mask)",
        )
    if isinstance(value, Masked):
        return Given(value.value, value.mask, demanded=value.mask)
    return Given(value)


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A model with its arguments, staged and ready to be walked."""

    model: GenerativeFunction
    arguments: Arguments
    staged: Staged
    operands: tuple
    sites: dict[Path, Site]

    def check(self, choices: Mapping[str, Any], what: str, filler: bool = False) -> dict[Path, Any]:
        """`choices` by path, checked; with `filler`, zeros may stand in branches not taken."""
        given = check_values(self.sites, choices, what, (self.model.name,), filler)
        check_branches(self.staged.program, self.operands, self.sites, given, what, filler)
        return given

    def check_arguments(self, values: Mapping[Path, Any] | None = None) -> _Prepared:
        """Itself, after looking at what known arguments (and values) make of parameters."""
        check_arguments(self.staged.program, self.operands, values)
        return self

    def old(self, trace: Trace) -> dict[Path, Given]:
        """The trace's values, each kept where it was present.

        Raises:
          InvalidArgument: the trace is another model's.
        """
        values, present = flatten(trace.choices), flatten(trace.present)
        if trace.model.fn is not self.model.fn and values.keys() != self.sites.keys():
            raise errors.InvalidArgument(
                f"The trace is of another model than {self.model.name}.",
                where=errors.caller(),
                given=f"a trace of {trace.model.name}",
                expected=f"a trace with the addresses of {self.model.name}: "
                + "; ".join(errors.show(p) for p in self.sites),
                fix=f"use the methods of {trace.model.name}, or a trace of {self.model.name}",
            )
        return {path: Given(value, present.get(path)) for path, value in values.items()}

    def rule(self, **how: Any) -> Execute:
        """A rule for this model; it reports presence where that can vary."""
        return Execute(conditional=self.conditional, **how)

    @property
    def conditional(self) -> frozenset[Path]:
        return frozenset(path for path, site in self.sites.items() if site.conditional)

    def at(self, given: dict[Path, Given]) -> tuple[Trace, Any]:
        """The trace with these values, 0 in branches not taken, and their log weight."""
        rule = self.rule(constrained=frozenset(given), filler=True)
        trace, sums, _ = self.trace(rule, given)
        return trace, sums.get("weight", jnp.zeros((), float))

    def log_density(self, given: dict[Path, Given]) -> Any:
        """The log density of what is kept, where nothing depends on what is not. No draws.

        All choices have a value, of the padded space as for `at`.
        """
        rule = self.rule(constrained=frozenset(given), filler=True, sums=("weight",), blank=True)
        sums = walk(self.staged.program, self.operands, rule, given)[2]
        return sums.get("weight", jnp.zeros((), float))

    def trace(self, rule: Execute, inputs: dict[Path, Given]) -> tuple[Trace, dict, dict]:
        """Walk under a rule; the trace, the sums, and the per-path presence."""
        outs, found, sums = walk(self.staged.program, self.operands, rule, inputs)
        values = found.get("choices", {})
        here = found.get("present", {})
        present = {p: jnp.asarray(here[p]) for p in self.sites if p in here}
        trace = Trace(
            model=self.model,
            arguments=self.arguments,
            choices=nest({path: values[path] for path in self.sites}),
            score=jnp.asarray(sums.get("score", jnp.zeros((), float))),
            retval=self.staged.rebuild(outs),
            present=nest(present),
        )
        return trace, sums, present


def _tuple(value: Any) -> tuple:
    """A tuple; one name or position alone is taken as one of them."""
    return (value,) if isinstance(value, (str, int)) else tuple(value)


def _name(fn: Callable) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _takes_any(fn: Callable) -> bool:
    """Whether a function takes any number of positional arguments."""
    kinds = [p.kind for p in inspect.signature(fn).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


def gen(
    fn: Callable | None = None,
    *,
    static_argnames: tuple[str, ...] = (),
    static_argnums: tuple[int, ...] = (),
) -> Any:
    """Make a function with addressed choices a generative function.

    Args:
      static_argnames, static_argnums: arguments that are known before the program
        runs (loop lengths, flags); strings and functions always are.

    >>> import jax, numpyro.distributions as dist
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def coin(p):
    ...     return sample("heads", dist.Bernoulli(p))
    >>> score, heads = coin.assess({"heads": 1}, 0.25)
    >>> print(f"{score:.4f}")
    -1.3863
    """
    if fn is None:
        return functools.partial(
            gen, static_argnames=static_argnames, static_argnums=static_argnums
        )
    static_argnames = _tuple(static_argnames)
    static_argnums = _tuple(static_argnums)
    fixed = frozenset(static_argnames) | frozenset(static_argnums)
    if fixed:
        names = list(inspect.signature(fn).parameters)
        beyond = [n for n in static_argnums if not 0 <= n < len(names)]
        if beyond and not _takes_any(fn):
            raise errors.InvalidArgument(
                f"static_argnums has {beyond[0]}, which is no argument of {_name(fn)}.",
                where=errors.caller(),
                given=f"{_name(fn)}{inspect.signature(fn)}",
                expected=f"positions from 0 to {len(names) - 1}",
                fix="count the arguments from 0, or name them: static_argnames=(...)",
            )
        unknown = [n for n in static_argnames if n not in names]
        if unknown:
            guess = errors.near(unknown[0], names)
            raise errors.InvalidArgument(
                f"static_argnames names {unknown[0]!r}, which is no argument of {_name(fn)}.",
                where=errors.caller(),
                expected=", ".join(names),
                fix=f"did you mean {guess!r}?" if guess else "use a name of its signature",
            )
        fixed |= {names.index(n) for n in static_argnames}
    return GenerativeFunction(fn, fixed)
