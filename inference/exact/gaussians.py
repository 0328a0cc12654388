"""Gaussian choices summed out: what `elimination` needs to know of them.

A summed choice is its mean plus a factor times standard normals e of its own, a *block*, and
what depends on it is `at + by e`. The law of all blocks that something still reads is held, and
conditioned on each choice that is made from them (Kalman 1960); `ppl.affine` says how code
depends on what is summed out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import draw, errors
from ppl.affine import AFFINE, Order, orders
from ppl.effects import sample_p
from ppl.estimators.flow import Known, Symbol, flows_through
from ppl.estimators.nodes import graph_of
from ppl.masks import leading
from ppl.program import Choice, Factor, Loop, Map, Path, Step
from ppl.randomness import bind_parameters
from ppl.sites import Site

from . import gaussian_series, picked, process_steps
from . import gaussian_states as states
from .conditioning import conditioned, diagonal, grown, part, tilted
from .gaussian_choices import is_gaussian, mean_and_factor
from .gaussian_states import Form
from .linear import (
    Bent,
    Block,
    GaussianLaw,
    Linear,
    Picked,
    at_of,
    is_symbol,
    order_of,
    places,
    spread,
)
from .normals import factor_of, predicted
from .process_steps import is_process, moments, noisy, seen_moments
from .refused import refused


@dataclass(frozen=True, eq=False)
class Gaussians:
    """The sums over Gaussian choices; see `elimination.Sums`.

    Attributes:
      simulate: whether values are simulated beside those that are given.
      fold: how series are gone through: "scan", "blocks" or "tree".
    """

    places: frozenset[Path]
    sites: dict[Path, Site]
    given: bool = False
    simulate: bool = False
    fold: str = "scan"
    way: str = "in a linear and Gaussian way"
    expected: str = (
        "Normal or MultivariateNormal choices, whose means are affine in what is summed out, "
        "and all else independent of it"
    )

    # -- symbols ---------------------------------------------------------------------

    def is_symbol(self, value: Any) -> bool:
        return is_symbol(value)

    def lost(self, why: str, aval: Any) -> Bent:
        return Bent(jnp.zeros(aval.shape, aval.dtype), why)

    def names(self, values: list) -> frozenset:
        dense = (block for v in values if isinstance(v, Linear) for block in v.blocks)
        return frozenset((*dense, *(v.block for v in values if isinstance(v, Picked))))

    def ready(
        self, step: Step, avals: Sequence[Any], args: list, law: GaussianLaw
    ) -> tuple[list, GaussianLaw]:
        return process_steps.ready(self, step, avals, args, law)

    def through(self, f: Callable, avals: Sequence[Any], args: list) -> list:
        if any(isinstance(value, Picked) for value in args):
            found = picked.through(f, avals, args)
            assert found is not None  # they are made ready
            return found
        given = [order_of(value) for value in args]
        out = orders(f, avals, given)
        blocks = tuple(dict.fromkeys(b for v in args if isinstance(v, Linear) for b in v.blocks))
        moving = [i for i, order in enumerate(given) if order == AFFINE]

        def affine(*at: Any) -> tuple[list, list]:
            full = [at_of(value) for value in args]
            for i, value in zip(moving, at, strict=True):
                full[i] = value
            outs = f(*full)
            return [v for v, order in zip(outs, out, strict=True) if order == AFFINE], outs

        if not any(order == AFFINE for order in out):
            outs, pairs = affine(*[args[i].at for i in moving])[1], iter(())
        else:
            at, push, outs = jax.linearize(affine, *[args[i].at for i in moving], has_aux=True)
            rows = [spread(args[i].by, args[i].blocks, blocks) for i in moving]
            by = jax.vmap(push, -1, -1)(*rows)
            pairs = iter(zip(at, by, strict=True))
        reads = _reads(f, avals, args, blocks)

        def symbol(value: Any, order: Order, own: tuple[Block, ...]) -> Any:
            if order.degree == 2:
                return Bent(value, order.why)
            if not order.degree:
                return value
            at, by = next(pairs)
            return Linear(at, _columns(by, blocks, own), own)

        return [symbol(v, o, own) for v, o, own in zip(outs, out, reads, strict=True)]

    # -- choices -----------------------------------------------------------------------

    def factor(self, step: Factor, args: list, law: GaussianLaw) -> GaussianLaw:
        raise refused(step, self)

    def choice(
        self, step: Choice, args: list, law: GaussianLaw, given: Any, copies: Any = None
    ) -> tuple[Any, GaussianLaw]:
        """`copies`: how many choices there are, as one array, and which arguments are of each."""
        spec, dtype = step.spec, law.mean.dtype
        shape = spec.shape if copies is None else (copies[0], *spec.shape)
        process = is_process(spec) and step.path in self.places
        if process:
            process_steps.check(step)
            if not copies and not any(map(is_symbol, args)) and not noisy(spec):
                return process_steps.choice(self, step, args, law, given)
        if any(isinstance(value, Picked) for value in args):
            return process_steps.kept(self, step, args, law, given, copies, shape)
        mean, factor = self._parts(step, args, copies)
        factor = factor.astype(dtype)
        at, by, blocks = (mean.at, mean.by, mean.blocks) if is_symbol(mean) else (mean, None, ())
        at = at.astype(dtype)
        by = jnp.zeros((at.size, 0), dtype) if by is None else by.astype(dtype)
        if step.path in self.places:
            block = Block(step.path, at.size)
            if process:  # its covariance may be singular, and has no factor then
                law = self._grown(law, block, factor)
                factor = jnp.eye(at.size, dtype=dtype)
            else:
                law = self._grown(law, block)
            by, blocks = jnp.concatenate([by, factor], -1), (*blocks, block)
            if given is not None:
                law = tilted(law, at, spread(by, blocks, law.blocks), given)
            by = by.astype(spec.dtype).reshape(*shape, by.shape[-1])
            return Linear(at.astype(spec.dtype).reshape(shape), by, blocks), law
        by = spread(by, blocks, law.blocks)
        return self._kept(step, shape, at, by, factor, law, given)

    def _grown(self, law: GaussianLaw, block: Block, covariance: Any = None) -> GaussianLaw:
        """The law with a new block that nothing depends on yet: standard normals, or of that
        covariance."""
        dtype = law.mean.dtype
        simulated = _normals(block.size, dtype) if self.simulate else None
        if covariance is None:
            covariance = jnp.eye(block.size, dtype=dtype)
        elif simulated is not None:
            simulated = factor_of(covariance) @ simulated
        return grown(law, block, covariance, simulated)

    def _kept(
        self, step: Choice, shape: tuple, at: Any, by: Any, factor: Any, law: Any, given: Any
    ) -> tuple[Any, GaussianLaw]:
        """A choice that is not summed out, but made from what is."""
        spec, dtype, present = step.spec, law.mean.dtype, None
        if given is not None and given.counts is not None:
            there = leading(given.counts, len(shape))
            present = jnp.broadcast_to(there, shape).reshape(-1)
        if self.given:
            assert given is not None
            value = jnp.asarray(given.value, spec.dtype)
            flat = value.reshape(-1).astype(dtype)
            if self.simulate:
                own = at + by @ law.simulated + factor @ _normals(at.size, dtype)
                flat, at = flat - own, jnp.zeros_like(at)
        else:
            covariance = by @ law.covariance @ by.T + factor @ factor.T
            mean = at + by @ law.mean
            predictive = predicted(mean, covariance, present, shape, spec.dtype)
            leaves, params = bind_parameters(predictive, step.source, errors.show(step.path))
            (value,) = sample_p.bind(*leaves, **params, address=step.path, source=step.source)
            flat = value.reshape(-1).astype(dtype)
        return value, conditioned(law, by, factor, flat - at, present)

    def _parts(self, step: Choice, args: list, copies: Any) -> tuple[Any, Any]:
        """The mean of a choice, of shape (k,), and a factor of its covariance, (k, k)."""
        spec = step.spec
        f, avals = partial(mean_and_factor, spec), list(spec.leaves)
        if is_process(spec):
            f = partial(moments if step.path in self.places else seen_moments, spec)
        elif not is_gaussian(spec.tree.unflatten(spec.leaves)):
            raise refused(step, self, f"a choice from {self.sites[step.path].kind}")
        if copies is not None:
            size, mapped = copies
            f = partial(_of_copies, jax.vmap(f, [0 if m else None for m in mapped], axis_size=size))
            avals = [jax.ShapeDtypeStruct((size, *jnp.shape(x)) if m else jnp.shape(x),
                                          jnp.result_type(x))
                     for x, m in zip(avals, mapped, strict=True)]  # fmt: skip
        mean, factor = orders(f, avals, [order_of(value) for value in args])
        if factor.degree:
            raise refused(step, self, "a scale that depends on it")
        if mean.degree == 2:
            raise refused(step, self, f"a mean that is not affine in it, but made by `{mean.why}`")
        found, known = self.through(f, avals, args)
        return found, known

    # -- the law -------------------------------------------------------------------------

    def nothing(self) -> GaussianLaw:
        none = jnp.zeros((0,), jnp.result_type(float))
        return GaussianLaw((), none, jnp.zeros((0, 0), none.dtype), jnp.zeros((), none.dtype),
                           none if self.simulate else None)  # fmt: skip

    def forget(self, law: GaussianLaw, values: list, outside: frozenset) -> GaussianLaw:
        live = self.names(values) | outside
        law = process_steps.ended(law, live)
        kept = tuple(block for block in law.blocks if block in live)
        return law if kept == law.blocks else part(law, kept)

    def reach(self, law: GaussianLaw, values: list) -> tuple[GaussianLaw, GaussianLaw]:
        """All of the law, if anything of it is read: its blocks may depend on each other."""
        if self.names(values):
            return replace(law, processes=()), replace(self.nothing(), processes=law.processes)
        inner = replace(self.nothing(), evidence=jnp.zeros_like(law.evidence))
        return inner, law

    def both(self, law: GaussianLaw, rest: GaussianLaw) -> GaussianLaw:
        n = rest.mean.size
        covariance = jnp.zeros((n + law.mean.size,) * 2, law.covariance.dtype)
        covariance = covariance.at[:n, :n].set(rest.covariance).at[n:, n:].set(law.covariance)
        simulated = None
        if self.simulate:
            simulated = jnp.concatenate([rest.simulated, law.simulated])
        return GaussianLaw((*rest.blocks, *law.blocks), jnp.concatenate([rest.mean, law.mean]),
                           covariance, rest.evidence + law.evidence, simulated,
                           (*rest.processes, *law.processes))  # fmt: skip

    def evidence(self, law: GaussianLaw) -> jax.Array:
        return process_steps.ended(law, frozenset()).evidence

    def settled(self, place: str, values: list, law: GaussianLaw) -> tuple[list, GaussianLaw]:
        """Values and the law without what is picked, and without processes."""
        values, law = process_steps.settled(self, place, values, law)
        return values, process_steps.ended(law, frozenset())

    # -- loops, branches and plates --------------------------------------------------------

    def form(
        self, law: GaussianLaw, values: list, avals: list, outside: frozenset, name: tuple
    ) -> Form:
        values, law = self.settled(_construct(name), values, law)
        return states.form(law, values, avals, outside, name)

    def pack(self, law: GaussianLaw, values: list, form: Form) -> Any:
        values, law = self.settled(_construct(form.name), values, law)
        return states.pack(law, values, form)

    def unpack(self, packed: Any, form: Form) -> tuple[list, GaussianLaw]:
        return states.unpack(packed, form)

    def along(
        self, step: Loop, args: list, law: GaussianLaw, inputs: Any, form: Form
    ) -> tuple[list, GaussianLaw] | None:
        return gaussian_series.along(self, step, args, law, inputs, form)

    def each(
        self, step: Map, args: list, law: Any, inputs: Any, outside: frozenset, run: Callable
    ) -> tuple[list, Any]:
        return states.each(self, step, args, law, inputs, outside, run)


def _construct(name: tuple) -> str:
    """What hands on values, for people."""
    return f"the end of a {name[-1]}" if name else "the end of a construct"


def _of_copies(f: Callable, *leaves: Any) -> list:
    """The mean and the factor of independent choices, together."""
    means, factors = f(*leaves)
    return [means.reshape(-1), diagonal(factors)]


def _normals(n: int, dtype: Any) -> jax.Array:
    return draw(dist.Normal(jnp.zeros(n, dtype), 1.0))


def _reads(
    f: Callable, avals: Sequence[Any], args: Sequence[Any], blocks: tuple[Block, ...]
) -> list[tuple[Block, ...]]:
    """The blocks that each output of `f` depends on."""
    number = {block: i for i, block in enumerate(blocks)}
    flows = [{Symbol(number[b]): frozenset() for b in v.blocks} if isinstance(v, Linear) else {}
             for v in args]  # fmt: skip
    found = flows_through(graph_of(jax.make_jaxpr(f)(*avals)), flows, frozenset(), Known({}))
    return [tuple(b for b in blocks if Symbol(number[b]) in flow) for flow in found]


def _columns(by: jax.Array, blocks: Sequence[Block], own: Sequence[Block]) -> jax.Array:
    """The columns of some of the blocks."""
    return by if tuple(own) == tuple(blocks) else jnp.take(by, places(blocks, own), -1)
