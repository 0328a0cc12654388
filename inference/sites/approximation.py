"""What each method of sites gives: a law, an evidence, and whether it has settled."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from ppl import GenerativeFunction, Target, errors
from ppl.program import Path

from ..validation.settings import check_count, check_number
from .fold import Folded, Sites, fold, walk_of
from .iterate import Method, Status, iterated, started
from .law import law_of
from .terms import Owners, Terms, check_fit, owners_of


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["log_evidence", "status", "mean", "variance", "sites", "target"],
    meta_fields=["path", "name"],
)
@dataclass(frozen=True)
class Approximation:
    """A posterior of a Gaussian process as a Gaussian process: its prior with Gaussian sites.

    Attributes:
      log_evidence: the approximate log p(observations); NaN where a site was skipped or would
        still move by more than a standard deviation, since it would be any number. Its first
        derivative in what the target is made of is right to first order in what `status.change`
        tells; there is no second.
      status: whether the sites have settled.
      mean, variance: of each f_i, `(n,)`; constants, without a derivative.
      sites: the natural parameters of the sites, `(n,)` each; constants too.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference.gaussian.matern import Matern12
    >>> from inference.gaussian.process import gp
    >>> from inference.sites.laplace import laplace
    >>> from ppl import Target, gen, sample
    >>> @gen
    ... def one():
    ...     f = sample("f", gp(Matern12(1.0), [0.0]))
    ...     sample("y", dist.Normal(f, 1.0))
    >>> found = laplace(Target(one, (), {"y": jnp.array([3.0])}), "f")
    >>> found.mean.round(4).tolist(), found.variance.round(4).tolist()
    ([1.5], [0.5])
    >>> bool(found.status.converged), int(found.status.iterations)
    (True, 1)
    """

    log_evidence: jax.Array
    status: Status
    mean: jax.Array
    variance: jax.Array
    sites: Sites
    target: Target = field(repr=False)
    path: Path
    name: str

    @property
    def law(self) -> GenerativeFunction:
        """The approximate law of f, at its address: an exact density, and joint draws, in O(n).

        So it is a proposal (`start(target, law)`), a guide, or where a chain starts.

        Raises:
          GradientThroughDraw: where a derivative is taken in what the target is made of. Sites
            are constants: `jax.lax.stop_gradient` of the arguments makes such a law.
        """
        sites, target = _constant(self.sites, self.target)
        process = Terms(target, self.path, {}).process()
        return law_of(process, sites, self.path, f"{self.name}({self.target.model.name})")


@jax.custom_jvp
def _constant(sites: Sites, target: Target) -> tuple[Sites, Target]:
    return sites, target


@_constant.defjvp
def _no_derivative(primals: tuple, tangents: tuple) -> Any:
    raise errors.GradientThroughDraw(
        "The law of sites has no derivative in what its target is made of.",
        where=errors.caller(), given="a law whose target's arguments are differentiated",
        expected="the derivative of log_evidence, or a law of constants",
        fix="Target(model, jax.lax.stop_gradient(args), observations) for the law",
    )  # fmt: skip


def _evidence(
    method: Method, path: Path, target: Target, owners: Owners, sites: Sites, folded: Folded
) -> jax.Array:
    """The log evidence at sites that have settled, which are constants."""
    terms = Terms(target, path, owners)
    found = method.evidence(terms, walk_of(terms.process()), sites, folded)
    return found + terms.constant(folded.mean)


_differentiable = jax.custom_jvp(_evidence, nondiff_argnums=(0, 1))


@_differentiable.defjvp
def _first(method: Method, path: Path, primals: tuple, tangents: tuple) -> tuple:
    """The derivative in the target alone: the sites have none that counts."""
    target, *rest = primals

    def of(target: Target) -> jax.Array:
        return _evidence(method, path, target, *rest)

    return jax.jvp(of, (_once(target),), tangents[:1])


@jax.custom_jvp
def _once(target: Target) -> Target:
    return target


@_once.defjvp
def _no_second(primals: tuple, tangents: tuple) -> Any:
    raise errors.InvalidArgument(
        "The evidence of sites has a first derivative only.", where=errors.caller(),
        given="a derivative of its derivative", expected="a gradient",
        fix="take differences of gradients",
    )  # fmt: skip


def approximated(
    method: Method, name: str, target: Target, address: str | Path, damping: Any, tolerance: Any,
    most: Any,
) -> Approximation:  # fmt: skip
    """What a method makes of a target."""
    path = check_fit(target, address)
    check_number("damping", damping, above=0, most=1, fix=1.0)
    if tolerance is not None:
        check_number("tolerance", tolerance, above=0, fix=1e-6)
    check_count("most", most)
    owners = owners_of(target, path)
    dtype = target.sites[path].dtype
    tolerance = jnp.finfo(dtype).eps ** 0.5 if tolerance is None else tolerance
    evidence, status, mean, variance, sites = _approximated(
        method, path, target, owners, damping, tolerance, most
    )
    return Approximation(evidence, status, mean, variance, sites, target, path, name)


ASTRAY = 1.0
"""Sites that would still move by so many standard deviations say nothing of the evidence."""


@partial(jax.jit, static_argnums=(0, 1))
def _approximated(
    method: Method, path: Path, target: Target, owners: Owners, damping: Any, tolerance: Any,
    most: Any,
) -> tuple:  # fmt: skip
    terms = Terms(jax.tree.map(lax.stop_gradient, target), path, owners)
    process = terms.process()
    walk = walk_of(process)
    start = started(terms, process.mean, process.variance)
    sites, status = iterated(method, terms, walk, start, damping, tolerance, most)
    sites = method.settled(terms, sites, fold(walk, sites))
    folded = fold(walk, sites)

    evidence = _differentiable(method, path, target, owners, sites, folded)
    astray = (status.skipped > 0) | ~(status.change <= ASTRAY)
    possible = evidence > -jnp.inf  # impossible data have that evidence, wherever sites go
    evidence = evidence * jnp.where(astray & possible, jnp.nan, 1.0)
    return evidence, status, folded.mean, folded.variance, sites
