"""Models written for NumPyro, as generative functions.

The other way needs no code: `Target(model, args, data).potential` is the
`potential_fn` of numpyro's samplers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.ops.pytree import PytreeTrace
from numpyro.primitives import Messenger

from . import errors
from .border import sized
from .distributions import log_density
from .generative import GenerativeFunction, gen
from .language import check_support, factor, sample


def from_numpyro(model: Callable, *, static_argnames: tuple[str, ...] = ()) -> GenerativeFunction:
    """The generative function with the density of a NumPyro model.

    Its choices are the sample sites without `obs`, at their names, in plates with
    the shape that the plates give; its log density is
    `numpyro.infer.util.log_density`. Sites with a value (`obs=`,
    `handlers.condition`), `numpyro.factor`, `handlers.mask` and `handlers.scale`
    are factors; `numpyro.contrib.control_flow.scan` and JAX's own control flow
    around sites are loops and branches. Two differences: data off their
    distribution's support are refused if they are known, and have density zero; and
    `Target.potential` has the whole Jacobian of a site under `mask` or `scale`,
    where numpyro's own `potential_energy` masks and scales it too.

    Returns a generative function whose return value is the dict of the sites made
    by `numpyro.deterministic`, those in numpyro's `scan` stacked: `draws.returned()` adds them to
    draws. Sites with a value have no address here: `target_from_numpyro` keeps them.

    Args:
      model: a NumPyro model (handlers around it stay in force).
      static_argnames: arguments known before the model runs (sizes of plates).

    Raises:
      InvalidArgument: raised at the first run, for a site that it cannot take: a
        parameter, a plate that subsamples, a key, a mutable, `numpyro`'s `cond`,
        a deterministic site inside of JAX's own control flow.
      SupportError: known data outside the support.
      ShapeError: data in a plate that have another size along its axis (NumPyro repeats them).

    >>> import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
    >>> from ppl import Target
    >>> from ppl.interop import from_numpyro
    >>> def model(y):
    ...     mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with numpyro.plate("data", len(y)):
    ...         numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> y = jnp.array([1.0, 2.0])
    >>> target = Target(from_numpyro(model), (y,))
    >>> print(f"{target.log_density({'mu': 1.0}):.4f}")
    -3.7568
    >>> kernel = numpyro.infer.NUTS(potential_fn=target.potential)
    >>> mcmc = numpyro.infer.MCMC(kernel, num_warmup=10, num_samples=5, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), init_params={"mu": jnp.zeros(())})
    >>> mcmc.get_samples()["mu"].shape
    (5,)
    """
    if not callable(model):
        raise errors.InvalidArgument(
            "from_numpyro takes a model.",
            where=errors.caller(),
            given=repr(model),
            expected="a function that calls numpyro.sample",
            fix="pass the function itself, not the result of calling it",
        )

    return imported(model, static_argnames)


def imported(
    model: Callable, static_argnames: tuple[str, ...], kept: frozenset[str] = frozenset()
) -> GenerativeFunction:
    """The generative function of a model, whose sites that are `kept` are choices with `obs` too.

    >>> import numpyro, numpyro.distributions as dist
    >>> from ppl.interop import imported
    >>> model = lambda: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=2.0)
    >>> len(imported(model, ()).sites()), len(imported(model, (), frozenset({"y"})).sites())
    (0, 1)
    """

    @functools.wraps(model)
    def run(*args: Any, **kwargs: Any) -> dict[str, Any]:
        with _Sites(kept) as sites:
            model(*args, **kwargs)
        return sites.deterministic

    made = gen(run, static_argnames=static_argnames)
    made.name = getattr(model, "__name__", type(model).__name__)
    return made


class _Sites(Messenger):
    """Answers NumPyro's messages in our language. The outermost handler that sees them."""

    def __init__(self, kept: frozenset[str]):
        super().__init__()
        self.kept = kept
        self.deterministic: dict[str, Any] = {}
        self.start = jnp.zeros(())

    def __enter__(self):
        super().__enter__()
        return self

    def process_message(self, msg: Any) -> None:
        msg["stop"] = True  # handlers outside belong to another program
        kind = msg["type"]
        if kind == "sample" and msg["name"] in self.kept and msg["value"] is not None:
            _kept(msg)
        elif kind == "sample":
            _sample(msg)
        elif kind == "deterministic":
            self.record(msg)
        elif kind == "control_flow":
            self.scan(msg)
        elif (kind in _REFUSED and msg["value"] is None) or kind == "mutable":
            what, fix = _REFUSED[kind]
            name = f'"{msg["name"]}" at ' if "name" in msg else ""
            raise errors.InvalidArgument(
                f"from_numpyro cannot take {what}.", where=f"{name}{errors.caller()}", fix=fix
            )

    def scan(self, msg: Any) -> None:
        """NumPyro's `scan` is `lax.scan`: sites in its body are choices of the loop, and what is
        deterministic there is stacked."""
        if getattr(msg["fn"], "__name__", "") != "scan_wrapper":
            raise errors.InvalidArgument(
                "from_numpyro cannot take numpyro's cond.",
                where=errors.caller(),
                fix="use jax.lax.cond: numpyro.sample works inside it here",
            )
        f, init, xs, length, reverse = msg["args"]
        outside = self.deterministic, self.start

        def body(carry: Any, x: Any) -> tuple:
            self.deterministic, self.start = {}, jnp.zeros(())
            try:
                carry, y = f(carry, x)
                return carry, (y, self.deterministic)
            finally:
                self.deterministic, self.start = outside

        carry, (ys, stacked) = jax.lax.scan(body, init, xs, length=length, reverse=reverse)
        self.deterministic.update(stacked)
        msg["value"] = (length, None, carry), (PytreeTrace({}), ys)

    def record(self, msg: Any) -> None:
        """Keep a deterministic site; what is made inside control flow cannot get out of it."""
        here = jnp.zeros(())
        tracers = [v for v in jax.tree.leaves(msg["value"]) if isinstance(v, jax.core.Tracer)]
        mapped = any(type(v) is not type(here) for v in tracers)
        if mapped or getattr(here, "_trace", None) is not getattr(self.start, "_trace", None):
            raise errors.InvalidArgument(
                "from_numpyro cannot return a deterministic site made inside control flow.",
                where=f'"{msg["name"]}" at {errors.caller()}',
                fix="return the value from the loop or branch, and record it outside",
            )
        self.deterministic[msg["name"]] = msg["value"]


_REFUSED = {
    "param": (
        "a parameter",
        "make it an argument of the model, or give it a value: "
        "handlers.substitute(model, data={name: value})",
    ),
    "plate": (
        "a plate that subsamples",
        "leave subsample_size out; or pass a minibatch as the data, "
        "under handlers.scale(scale=size / subsample_size)",
    ),
    "prng_key": ("a random key", "use numpyro.sample, or ppl.draw, in its place"),
    "mutable": ("a mutable site", "pass the state in, and out as a deterministic site"),
}


def _sample(msg: Any) -> None:
    """A choice with the site's unmasked distribution and a factor for the rest, or a factor."""
    fn, name, scale, value = msg["fn"], msg["name"], msg["scale"], msg["value"]
    shape = msg["kwargs"].get("sample_shape") or ()
    if shape:
        fn = fn.expand((*shape, *fn.batch_shape))
    if value is not None:
        _check_plates(msg, fn, value)
        known = not isinstance(value, jax.core.Tracer) and unmasked(fn) is fn
        if known and not msg["infer"].get("is_auxiliary"):
            shape = np.broadcast_shapes(np.shape(value), tuple(fn.shape()))
            where = (f'"{name}" at {errors.caller()}',)
            value = sized(value, f'"{name}" has', where)
            check_support(fn, np.broadcast_to(value, shape), f'"{name}"', where)
        factor(jnp.sum(_scaled(scale, log_density(fn, value))))
        return
    base = unmasked(fn)
    value = sample(name, base)
    if base is not fn or scale is not None:
        own = jnp.sum(log_density(base, value))
        all_of_it = jnp.sum(_scaled(scale, log_density(fn, value)))
        factor(jnp.where(own == -jnp.inf, 0.0, all_of_it - own))
    msg["value"] = value


def _kept(msg: Any) -> None:
    """A site with a value as a choice; where a mask leaves a value out, that value goes on."""
    fn, value = msg["fn"], msg["value"]
    shape = msg["kwargs"].get("sample_shape") or ()
    if shape:
        fn = fn.expand((*shape, *fn.batch_shape))
    _check_plates(msg, fn, value)
    drawn = sample(msg["name"], unmasked(fn))
    mask = mask_of(fn)
    if mask is not None:
        mask = jnp.reshape(mask, (*jnp.shape(mask), *(1,) * fn.event_dim))
        drawn = jnp.where(mask, drawn, value)
    msg["value"] = drawn


def mask_of(d: Any) -> Any:
    """The mask of a distribution, with its batch shape; None if it has none.

    >>> import numpyro.distributions as dist
    >>> from ppl.interop import mask_of
    >>> mask_of(dist.Normal(0.0, 1.0).expand([2]).mask(False)).tolist()
    [False, False]
    """
    if isinstance(d, dist.MaskedDistribution):
        inner = mask_of(d.base_dist)
        mask = jnp.broadcast_to(jnp.asarray(d._mask, bool), d.batch_shape)
        return mask if inner is None else mask & inner
    if isinstance(d, (dist.ExpandedDistribution, dist.Independent)):
        inner = mask_of(d.base_dist)
        if inner is None or isinstance(d, dist.ExpandedDistribution):
            return None if inner is None else jnp.broadcast_to(inner, d.batch_shape)
        return inner.all(tuple(range(len(d.batch_shape), inner.ndim)))
    return None


def _check_plates(msg: Any, fn: Any, value: Any) -> None:
    """Raise where data have not one row for each element of a plate: NumPyro repeats them."""
    shape = jnp.shape(value)
    batch = shape[: len(shape) - fn.event_dim] if fn.event_dim else shape
    for frame in msg["cond_indep_stack"]:
        rows = batch[frame.dim] if -frame.dim <= len(batch) else 1
        if rows != frame.size:
            raise errors.ShapeError(
                f'The data of "{msg["name"]}" do not fit the plate "{frame.name}".',
                where=f'"{msg["name"]}" at {errors.caller()}',
                given=f"shape {shape}, of which axis {frame.dim - fn.event_dim} is the plate's",
                expected=f"{frame.size} along that axis, as in {tuple(fn.shape())}",
                fix=f"reshape the data: jnp.reshape(value, {tuple(fn.shape())})"
                if np.prod(shape) == np.prod(fn.shape())
                else "give the data one element for each of the plate's",
            )


def _scaled(scale: Any, log: Any) -> Any:
    return log if scale is None else scale * log


def unmasked(d: Any) -> Any:
    """The distribution without its masks (itself if it has none).

    >>> import numpyro.distributions as dist
    >>> from ppl.interop import unmasked
    >>> type(unmasked(dist.Normal(0.0, 1.0).mask(False))).__name__
    'Normal'
    """
    if isinstance(d, dist.MaskedDistribution):
        return unmasked(d.base_dist)
    if isinstance(d, (dist.ExpandedDistribution, dist.Independent)):
        base = unmasked(d.base_dist)
        if base is d.base_dist:
            return d
        if isinstance(d, dist.Independent):
            return base.to_event(d.reinterpreted_batch_ndims)
        return base.expand(d.batch_shape)
    return d
