"""`sum_out`: a model without some of its choices, which are summed out exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppl import GenerativeFunction, Selection, errors, select
from ppl.addresses import as_selection, flatten, nest, not_found
from ppl.arguments import is_array
from ppl.border import arrived
from ppl.execute import Given
from ppl.masks import check_mask, leading
from ppl.program import Path
from ppl.quadrature import outcomes
from ppl.sites import Site

from ..gaussian.lanes import WAYS
from ..gaussian.process import GaussianProcess
from ..validation.objects import check_model
from ..validation.settings import check_option
from .elimination import Inputs, run
from .finite import Finite
from .finite_plan import planned
from .gaussian_choices import DEVIATION, innermost
from .gaussians import Gaussians


def sum_out(
    model: GenerativeFunction,
    selection: Selection | str | tuple[str, ...],
    *,
    missing: Mapping[str, Any] | None = None,
    along: str | None = None,
) -> GenerativeFunction:
    """The model without the selected choices, which are summed out: the exact law of the others.

    A generative function of the other choices, in their order, with their addresses, shapes and
    supports; its densities are differentiable, and it can be used wherever a model can. A choice
    that depends on what is summed out is made from its law given the choices before. The return
    value is that of the model, with None for what depends on a summed choice. `restore`,
    `beliefs` and `most_likely` find out about the summed choices again.

    *Choices of finitely many values* (Bernoulli, categorical, binomial, ...) may be used in any
    way. They are summed out one after the other, each as soon as nothing reads it any more: in
    straight code, in branches, nested calls and loops (the forward algorithm). Elements of an
    array, and copies under `vmap`, that depend on each other one by one cost as many times one.

    *Gaussian choices* (Normal, MultivariateNormal) must be used affinely: in means of Normal and
    MultivariateNormal choices whose scales do not depend on them (the Kalman filter).

    If both kinds are selected, the Gaussian ones are summed out given the finite ones, and then
    these; so all values of the finite ones are gone through where Gaussian ones depend on them.

    Args:
      model: the model.
      selection: which choices to sum out.
      missing: by address, a mask of elements of other choices that are not known (true where
        missing): they are left out of every density, and their values mean nothing. Masks have
        the leading axes of the choice's value, as those of `Masked` do.
      along: how a `lax.scan` of Gaussian choices that is seen through one choice is gone through:
        "scan" step by step, "blocks" in some blocks side by side, "tree" all at once, "roots"
        step by step with square roots of covariances; None for the fastest on the device. The
        numbers are the same.

    Raises:
      AddressNotFound: the selection, or `missing`, names no choice of the model.
      InvalidArgument: a summed choice has infinitely many values and is not Gaussian; or
        something depends on it in a way that cannot be summed; or the state of a loop depends on
        ever more of them.
      CannotEnumerate: too many outcomes would have to be held together; it says how many.
      ShapeError: a mask is not one of the choice's values.
      The last three are raised where the arguments of the model are known, before anything is
      compiled.

    Source: Zhang and Poole (1994); Rabiner (1989); Kalman (1960); for plates Obermeyer et al.,
    Tensor variable elimination for plated factor graphs (ICML 2019).

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import sum_out
    >>> from ppl import gen, sample
    >>> @gen
    ... def weather(often):
    ...     def day(rain, _):
    ...         rain = sample("rain", dist.Bernoulli(jnp.where(rain == 1, 0.75, often)))
    ...         sample("wet", dist.Bernoulli(jnp.where(rain == 1, 1.0, 0.5)))
    ...         return rain, None
    ...     jax.lax.scan(day, 0, None, length=3)
    >>> quiet = sum_out(weather, "rain")
    >>> list(quiet.sites(0.25))
    [('wet',)]
    >>> score, _ = quiet.assess({"wet": jnp.ones(3, int)}, 0.25)
    >>> print(f"{jnp.exp(score):.6f}")  # the sum over 2^3 paths
    0.353516
    """
    check_model(model)
    chosen, masks = as_selection(selection), _masks(missing)
    stages = (chosen,)
    if along is not None:
        check_option("along", along, WAYS)
    inner = model.fn
    if isinstance(inner, SummedOut):  # summing out twice is once
        both = {**dict(zip(inner.masked, inner.masks, strict=True)), **masks}
        stages = (*inner.stages, chosen)
        masks, model, along = both, inner.model, along or inner.along
    fn = SummedOut(model, [jnp.asarray(m) for m in masks.values()], stages, tuple(masks), along)
    return GenerativeFunction(fn, model.fixed, f"sum_out({model.name})")


def _masks(missing: Any) -> dict[Path, Any]:
    """Masks by path; raise `InvalidArgument` for what are none."""
    if missing is None:
        return {}
    found = flatten(dict(missing)) if isinstance(missing, Mapping) else {(): missing}
    for path, mask in found.items():
        if not path or not is_array(mask) or not jnp.issubdtype(jnp.result_type(mask), jnp.bool_):
            raise errors.InvalidArgument(
                "Missing elements are masks by address.",
                where=errors.caller(),
                given=type(missing if not path else mask).__name__,
                expected='{"address": mask}, booleans that are true where an element is missing',
                fix='missing={"y": jnp.isnan(ys)}',
            )
    return found


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["model", "masks"],
    meta_fields=["stages", "masked", "along"],
)
@dataclass(frozen=True, eq=False)
class SummedOut:
    """The function of a model some of whose choices are summed out.

    Attributes:
      masks: which elements are missing, of the choices `masked`.
      stages: what to sum out; each names choices that those before have left.
    """

    model: GenerativeFunction
    masks: list[jax.Array]
    stages: tuple[Selection, ...]
    masked: tuple[Path, ...]
    along: str | None

    def leaving_out(self, seen: Mapping[Path, Any]) -> SummedOut:
        """The same, without what is not seen: as `Masked` observations of a target have it."""
        masks = dict(zip(self.masked, self.masks, strict=True))
        gone_of = {path: ~jnp.asarray(arrived(flags)) for path, flags in seen.items()}
        for path, gone in _masks(nest(gone_of)).items():
            if path in masks:  # flags of fewer axes stand for all that lies behind them
                most = max(gone.ndim, masks[path].ndim)
                gone = leading(gone, most) | leading(masks[path], most)
            masks[path] = gone
        kept = list(masks.values())
        return SummedOut(self.model, kept, self.stages, tuple(masks), self.along)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        prepared, sums = self.planned(*args, **kwargs)
        program, given = prepared.staged.program, self.present(prepared)
        outs, _ = run(program, prepared.operands, sums.nothing(), sums, given)
        return prepared.staged.rebuild([None if sums.is_symbol(out) else out for out in outs])

    def planned(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The model with its arguments, and the sums over its choices.

        Of choices of both kinds, the model is that in which the Gaussian ones are summed out.
        """
        prepared = self.model._prepare(args, kwargs)
        sites = prepared.sites
        left = dict(sites)
        for stage in self.stages:
            stage.check(left)
            left = {path: site for path, site in left.items() if not stage(path)}
        self.present(prepared)
        paths = [path for path in sites if path not in left]
        finite = [path for path in paths if outcomes(sites[path].distribution) is not None]
        others = frozenset(paths) - frozenset(finite)
        for path in sorted(others):
            check_gaussian(sites[path])
        if not others:
            return prepared, _plan(prepared, frozenset(finite), self.present(prepared))
        if not finite:
            fastest = "scan" if jax.default_backend() == "cpu" else "tree"
            return prepared, Gaussians(others, sites, fold=self.along or fastest)
        inner = GenerativeFunction(
            replace(self, stages=(select(*others),)), self.model.fixed, self.model.name
        )
        prepared = inner._prepare(args, kwargs)
        return prepared, _plan(prepared, frozenset(finite), {})

    def present(self, prepared: Any) -> Inputs:
        """For each choice of which elements are missing, those that are there."""
        found = {}
        for path, mask in zip(self.masked, self.masks, strict=True):
            if path not in prepared.sites:
                raise not_found(path, prepared.sites, "`missing`")
            found[path] = Given(None, counts=~check_mask(prepared.sites[path], mask))
        return found


def check_gaussian(site: Site) -> None:
    """Raise `InvalidArgument` for a choice that is of neither kind."""
    if type(innermost(site.distribution)) not in (*DEVIATION, GaussianProcess):
        raise errors.InvalidArgument(
            f"{errors.show(site.path)} cannot be summed out.",
            where=(f"{errors.show(site.path)} at {site.source}", errors.caller()),
            given=f"a choice from {site.kind}",
            expected="finitely many known values (Bernoulli, categorical, ...), or a Normal, "
            "MultivariateNormal or gp choice",
            fix="leave it to a kernel, or to the particles",
        )


def _plan(prepared: Any, paths: frozenset[Path], inputs: Inputs) -> Finite:
    """The sums over finite choices, with what a first look at the program shows."""

    def look(sums: Finite) -> None:
        def once(operands: tuple, inputs: Inputs) -> int:
            run(prepared.staged.program, operands, sums.nothing(), sums, inputs)
            return 0

        jax.eval_shape(once, prepared.operands, inputs)

    return planned(Finite(paths, prepared.sites), look)[0]
