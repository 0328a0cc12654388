"""Targets: a posterior as an unnormalised measure over the latent choices of a model.

Some lines over 400, since each method says what it refuses, and how that is mended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import errors
from .addresses import Masked, Selection, as_selection, flatten, nest, not_found
from .arguments import Arguments, is_array
from .border import entering
from .coordinates import Coordinates
from .estimates import check_density_exact
from .faults import faults
from .gaps import Gaps, filled, gaps_of
from .generative import GenerativeFunction, Trace, any_known, as_given, check_with
from .labels import Labels
from .missing import check_nothing_depends, leaving_out, partly_observed
from .program import Path
from .sites import check_values
from .tables import check_order
from .update import regenerate as regenerate_trace
from .update import update as update_trace


@jax.tree_util.register_pytree_node_class
class Target:
    """The measure p(latents, observations; args): a model, its arguments, observed choices.

    Observations are checked here, before anything compiles, and no method moves them.

    Args:
      model: a generative function.
      args: its arguments, a tuple.
      observations: nested dict; `Masked(value, mask)` observes part of an array, and with
        `impute=True` the rest of it is latent.
      dims: by address (a nested dict), a name for each axis of the choice, outermost first, those
        of loops among them; None for no name. Draws, summaries and exports have them.
      coords: by name of an axis, labels along it.

    Raises:
      AddressNotFound, ShapeError, DtypeError, SupportError: an observation does not fit.
      AddressNotFound, ShapeError, InvalidArgument: dims or coords do not fit, or data say that
        they are in another order.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def model():
    ...     mu = sample("mu", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(mu, 1.0))
    >>> target = Target(model, (), {"y": 2.0})
    >>> [path for path in target.latents]
    [('mu',)]
    """

    def __init__(
        self,
        model: GenerativeFunction,
        args: tuple = (),
        observations: Mapping[str, Any] | None = None,
        *,
        dims: Mapping[str, Any] | None = None,
        coords: Mapping[str, Any] | None = None,
    ):
        _check_call(model, args)
        model, observations = leaving_out(model, observations)
        self.model = model
        args = entering(tuple(args), {}, model.fixed, model.fn)[0]
        self.arguments = Arguments.of(args, {}, model.fixed)
        run = model._prepare(self.args, {})
        self.labels = Labels.of(dims, coords)
        found = run.check(observations or {}, "The observation")
        run.check_arguments(found)
        self.observations = nest({path: _known(value) for path, value in found.items()})
        self.sites = run.sites
        self.labels.check({path: site.shape for path, site in self.sites.items()})
        check_order(self.labels, flatten(observations or {}))

    def tree_flatten(self):
        return (self.model, self.arguments, self.observations), None

    @classmethod
    def tree_unflatten(cls, _, children):
        made = object.__new__(cls)
        made.model, made.arguments, made.observations = children
        made.labels = Labels()  # programs know none, so that other labels recompile nothing
        return made

    @property
    def args(self) -> tuple:
        return self.arguments.args

    def __getattr__(self, name: str) -> Any:
        if name == "sites":  # recomputed after a pytree round trip
            return self.model.sites(*self.args)
        raise AttributeError(name)

    def __repr__(self) -> str:
        def shown(leaf: Any) -> str:
            if isinstance(leaf, jax.core.Tracer) or jnp.size(leaf) > 12:
                return f"{jnp.result_type(leaf).name}{list(jnp.shape(leaf))}"
            return str(np.asarray(leaf).tolist())

        def each(tree: Any) -> str:
            if isinstance(tree, Mapping):
                return "{" + ", ".join(f"{k!r}: {each(v)}" for k, v in tree.items()) + "}"
            if isinstance(tree, Masked):
                more = ", impute=True" if tree.impute else ""
                return f"Masked({each(tree.value)}, {each(tree.mask)}{more})"
            return shown(tree) if is_array(tree) else repr(tree)

        args = ", ".join(each(a) for a in self.args) + ("," if len(self.args) == 1 else "")
        return f"Target({self.model.name}, ({args}), {each(self.observations)})"

    @property
    def observed(self) -> dict[Path, Any]:
        return flatten(self.observations)

    @property
    def latents(self) -> list[Path]:
        """The addresses that are not observed, or have gaps to impute, in the model's order."""
        gaps = self.gaps
        return [path for path in self.sites if path not in self.observed or path in gaps]

    @property
    def gaps(self) -> dict[Path, Gaps]:
        """What is missing of observed arrays and latent, by path."""
        return gaps_of(self.observed)

    # -- as a random program and a density -----------------------------------------------

    def generate(self, constraints: Mapping[str, Any] | None = None) -> tuple[Trace, jax.Array]:
        """`(t, w)`, properly weighted for the target (latents not constrained from the model)."""
        self._only_latents(constraints or {}, "The constraint")
        return self.model.generate(self._join(constraints or {}), *self.args)

    def log_density(self, latents: Mapping[str, Any]) -> jax.Array:
        """log p(latents, observations), unnormalised; missing elements are integrated out.

        A log density without draws, unless the model draws without addresses: it is then the
        log of an unbiased estimate, and a random program.

        Raises:
          MissingChoice: a latent has no value.
          InvalidArgument: something depends on missing elements of what is observed.
        """
        self._only_latents(latents, "The value")
        missing = [p for p in self.latents if p not in flatten(latents)]
        if missing:
            raise errors.MissingChoice(
                f"A latent choice has no value: {errors.show(missing[0])}.",
                where=(f"{errors.show(missing[0])} at {self.sites[missing[0]].source}",),
                expected="values for " + "; ".join(errors.show(p) for p in self.latents),
                fix="give all of them; generate() draws those that are missing",
            )
        everything = self._join(latents)
        if partly_observed(self):
            check_nothing_depends(self)
            run = self.model._prepare(self.args, {})
            given = run.check(everything, "The value", filler=True)
            return run.log_density({path: as_given(value) for path, value in given.items()})
        return self.model.assess(everything, *self.args)[0]

    def faults(self, latents: Mapping[str, Any]) -> dict[str, jax.Array]:
        """What is wrong with the model at these latents: by description, whether it is so.

        A parameter outside its constraint; a log density or a factor that is NaN or +inf.
        It may be compiled and mapped over latents, where no error can be raised.

        Raises:
          MissingChoice, AddressNotFound: not exactly the latents are given.

        >>> import numpyro.distributions as dist
        >>> from ppl import Target, gen, sample
        >>> @gen
        ... def model():
        ...     s = sample("s", dist.Normal(0.0, 1.0))
        ...     sample("y", dist.Normal(0.0, s))
        >>> found = Target(model, (), {"y": 0.5}).faults({"s": -1.0})
        >>> next(name for name, wrong in found.items() if wrong)
        'the parameter `scale` of "y" is outside positive(0)'
        """
        values = self._complete(latents, dict.fromkeys(self.latents))
        run = self.model._prepare(self.args, {})
        return faults(run, {**self.observed_values, **values})

    def update(self, trace: Trace, constraints: Mapping[str, Any]):
        """As the model's `update`; observed choices cannot be changed.

        `trace` is one of this target's, whose arguments it carries.
        """
        self._only_latents(constraints, "The constraint")
        return self.model.update(trace, self._with_data(constraints))

    def at(self, latents: Mapping[str, Any]) -> tuple[Trace, jax.Array]:
        """The trace with exactly these latents, and log p(latents, observations).

        The latents are a point of the padded space: those in branches not taken are 0,
        and anything else there has density zero.
        """
        run = self.model._prepare(self.args, {})
        given = run.check(self._join(latents), "The value", filler=True)
        return run.at({path: as_given(value) for path, value in given.items()})

    def moved(self, trace: Trace, latents: Mapping[str, Any]) -> tuple[Trace, jax.Array]:
        """`at(latents)`, reached from a trace: the trace there, and log p(there) / p(trace).

        Only what depends on the change is computed, as by `update`; but `latents` are a
        point of the padded space, so that a dimension-changing map may put out the 0 of a
        choice that is no longer made.
        """
        self._only_latents(latents, "The value")
        run = self.model._prepare((trace.arguments,), {})
        given = run.check(self._with_data(latents), "The value", filler=True)
        changed, log_ratio, _ = update_trace(run, trace, given, filler=True)
        return changed, log_ratio

    def regenerate(self, trace: Trace, selection: Selection | str | tuple[str, ...]):
        """As the model's `regenerate`, of the selected latents."""
        chosen, gaps = self.selection(selection), self.gaps
        if not any(chosen(path) for path in gaps):
            return self.model.regenerate(trace, chosen)
        run = self.model._prepare((trace.arguments,), {})
        return regenerate_trace(run, trace, chosen, gaps)

    def selection(self, selection: Selection | str | tuple[str, ...]) -> Selection:
        """The selected addresses that are latent.

        Raises:
          InvalidArgument: a name of the selection is an observed choice.
        """
        chosen = as_selection(selection)
        chosen.check(self.sites)
        fixed = frozenset(self.observed) - self.gaps.keys()
        for name in chosen._names:
            below = [p for p in self.sites if p[: len(name)] == name]
            if all(p in fixed for p in below):
                raise errors.InvalidArgument(
                    f"The selection names {errors.show(name)}, which is observed.",
                    where=(
                        f"{errors.show(name)} at {self.sites[below[0]].source}",
                        errors.caller(),
                    ),
                    expected="latents: " + "; ".join(errors.show(p) for p in self.latents),
                    fix="select a latent choice",
                )
        return Selection(lambda p: chosen(p) and p not in fixed, (), repr(chosen))

    def choices(self, trace: Trace) -> dict[str, Any]:
        """The latent choices of a trace."""
        values = flatten(trace.choices)
        return nest({path: values[path] for path in self.latents})

    def _only_latents(self, choices: Mapping[str, Any], what: str) -> None:
        for path in flatten(choices):
            if path in self.observed and path not in self.gaps:
                raise errors.InvalidArgument(
                    f"{what} gives {errors.show(path)}, which is observed.",
                    where=(f"{errors.show(path)} at {self.sites[path].source}", errors.caller()),
                    expected="latents: " + "; ".join(errors.show(p) for p in self.latents),
                    fix="leave it out: a chain starts from latents alone"
                    if what.startswith("The initial")
                    else "make a new Target to change the data",
                )

    def _join(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """The observations and other choices; of arrays with gaps, the data stay."""
        return nest(filled(self.observed, flatten(choices)))

    def _with_data(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """Choices alone, of arrays with gaps with their data."""
        values = flatten(choices)
        whole = filled({path: self.observed[path] for path in self.gaps}, values)
        return nest({path: whole[path] for path in values})

    # -- unconstrained space ----------------------------------------------------------

    def coordinates(self, paths: Iterable[Path] | None = None) -> Coordinates:
        """The unconstrained coordinates of the latents at `paths` (all), given the others.

        Raises:
          InvalidArgument: a latent is discrete, is not always there (it lies in a branch), or
            its support has no bijection.
        """
        run = self.model._prepare(self.args, {})
        paths = self.latents if paths is None else list(paths)
        for path in paths:
            site = self.sites[path]
            if site.conditional:
                raise errors.InvalidArgument(
                    f"{errors.show(path)} is not always there, so it has no fixed coordinates.",
                    where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                    expected="latents that every branch makes",
                    fix="move it by mh, or by a Move across dimensions",
                )
        return Coordinates(run, paths, self.gaps)

    def constrain(self, unconstrained: Mapping[str, Any]) -> tuple[dict[str, Any], jax.Array]:
        """`(latents, log |d latents / d unconstrained|)`.

        Raises:
          MissingChoice, AddressNotFound: not exactly the latents are given.
          InvalidArgument: as for `coordinates`; or a support depends on missing elements of
            what is observed.
        """
        coordinates = self.coordinates()
        check_nothing_depends(self, coordinates.moving)
        z = self._complete(unconstrained, coordinates.shapes)
        values, log_det = coordinates.constrain(z, self.observed_values)
        return nest({path: values[path] for path in self.latents}), log_det

    def unconstrain(self, latents: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `constrain`'s values."""
        coordinates = self.coordinates()
        check_nothing_depends(self, coordinates.moving)
        values = self._complete(latents, coordinates.shapes)
        return nest(coordinates.unconstrain({**self.observed_values, **values}))

    @property
    def observed_values(self) -> dict[Path, Any]:
        """What is observed by path; of a partial observation the whole array."""
        return {
            path: value.value if isinstance(value, Masked) else value
            for path, value in self.observed.items()
        }

    def _complete(self, choices: Mapping[str, Any], known: Mapping[Path, Any]) -> dict[Path, Any]:
        """`choices` by path; exactly the `known` paths must have a value."""
        values = flatten(choices)
        for path in values:
            if path not in known:
                raise not_found(path, known, "The value", (self.model.name,))
        for path in known:
            if path not in values:
                raise errors.MissingChoice(
                    f"A latent choice has no value: {errors.show(path)}.",
                    where=(f"{errors.show(path)} at {self.sites[path].source}", errors.caller()),
                    expected="values for " + "; ".join(errors.show(p) for p in known),
                    fix="give all of them",
                )
        return values

    def potential(self, unconstrained: Mapping[str, Any]) -> jax.Array:
        """-log density in unconstrained space: the `potential_fn` of numpyro's samplers.

        Up to rounding it is what this library's own kernels see. No draws.

        Raises:
          MissingChoice, AddressNotFound: not exactly the latents are given.
          InvalidArgument: as for `coordinates` and `log_density`; or the density is only
            estimated, since the model draws without addresses.
        """
        check_density_exact(self, "A potential")
        coordinates, rest = self.coordinates(), self.observed_values
        z = self._complete(unconstrained, coordinates.shapes)
        values, log_det = coordinates.constrain(z, rest)
        log_density = self.log_density(nest({path: values[path] for path in self.latents}))
        more = coordinates.rounded_off(z, values, rest)
        return -(log_density + (log_det if more is None else log_det + more))


def _check_generate(self: Target, *call: Any, **kwargs: Any) -> None:
    """What `generate` checks of known values before it is staged."""
    choices = call[0] if call else kwargs.get("constraints")
    if choices is not None and any_known(choices):
        self._only_latents(choices, "The constraint")
        run = self.model._prepare(self.args, {})
        run.check(self._join(choices), "The constraint")


def _check_log_density(self: Target, *call: Any, **kwargs: Any) -> None:
    """What `log_density` checks of known values before it is staged."""
    choices = call[0] if call else kwargs.get("latents")
    if choices is not None and any_known(choices):
        self._only_latents(choices, "The value")
        check_values(self.sites, choices, "The value", (self.model.name,))


def _check_update(self: Target, *call: Any, **kwargs: Any) -> None:
    """What `update` checks of known values before it is staged."""
    trace = call[0] if call else kwargs.get("trace")
    choices = call[1] if len(call) > 1 else kwargs.get("constraints")
    if trace is not None and choices is not None and any_known(choices):
        self._only_latents(choices, "The constraint")
        self.model._prepare(self.args, {}).check(choices, "The constraint")


check_with(Target.generate, _check_generate)
check_with(Target.log_density, _check_log_density)
check_with(Target.update, _check_update)


def _known(value: Any) -> Any:
    """An observation; one with places for gaps, and none in them, is a whole array."""
    whole = isinstance(value, Masked) and value.impute and np.all(value.mask)
    return value.value if whole else value


def _check_call(model: Any, args: Any) -> None:
    """Raise `InvalidArgument` unless `model` and `args` are a model and a tuple."""
    if not isinstance(model, GenerativeFunction):
        call = hasattr(model, "__bind_call__")
        raise errors.InvalidArgument(
            "A target needs a generative function.",
            where=errors.caller(),
            given=repr(model),
            expected="a function decorated with @gen",
            fix="give the model and its arguments apart: Target(model, args)"
            if call
            else "decorate it: Target(gen(f), args)",
        )
    if not isinstance(args, (tuple, list)):
        raise errors.InvalidArgument(
            "The arguments of a target are a tuple.",
            where=errors.caller(),
            given=f"{type(args).__name__}: {args!r}",
            expected="Target(model, args, observations)",
            fix="observations come third: Target(model, (), observations)"
            if isinstance(args, Mapping)
            else "wrap the argument: Target(model, (argument,))",
        )


