"""Smoothing: paths given all observations, from the particles that a filter has kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax

from ppl import GenerativeFunction, draw, errors

from ..validation.settings import check_count
from ..weighted import Weighted, each, log_evidence, normalized, spawn
from .filtering import Filtered, Path, check_filtered
from .step_models import check_inputs, check_model


def backward_sample(
    model: GenerativeFunction, filtered: Filtered, m: int, *, xs: Any = None
) -> Weighted:
    """`m` paths of all choices given all observations, by backward simulation.

    The last particle is chosen by its weight, and each before it by its weight times the
    density of the choices that came after (Godsill, Doucet and West 2004). Properly weighted:
    each path carries the evidence of the filter. Takes O(m n T) time and O(m n) memory.

    A state from which the choices that came after lead elsewhere than they did has no
    density there, so states that remember more than the last choices are smoothed rightly
    too, if less well.

    Args:
      model, xs: those of the filter.
      filtered: a result of `particle_filter(..., history=True)`.
      m: number of paths, independent given the filter.

    Returns:
      `Weighted` choices, arrays of shape (m, T, ...).

    Raises:
      InvalidArgument: the filter did not keep its history; `m` is less than 1; the model is no
        generative function; inputs of another length.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import backward_sample, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0, 2.0])}
    >>> def run():
    ...     found = particle_filter(walk, 0.0, ys, 50, history=True)
    ...     return backward_sample(walk, found, 20)
    >>> seed(run)(jax.random.key(0)).value["z"].shape
    (20, 3)
    """
    path = _kept(filtered)
    check_model(model)
    copies = spawn(m)
    _check_inputs(xs, path.log_weight.shape[0])
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    steps = path.log_weight.shape[0]

    def one() -> Any:
        i = draw(dist.Categorical(normalized(last.log_weight)))
        chosen, state = (jax.tree.map(lambda x: x[i], t) for t in (last.choices, last.states))

        def back(after: tuple, row: tuple) -> tuple:
            choices, state = after
            here, x = row

            def density(before: Any) -> jax.Array:
                score, (reached, _) = model.assess(choices, before, x)
                same = jax.tree.map(lambda a, b: jnp.all(a == b), reached, state)
                return jnp.where(jnp.all(jnp.array(jax.tree.leaves(same))), score, -jnp.inf)

            log_weight = here.log_weight + jax.vmap(density)(here.states)
            j = draw(dist.Categorical(normalized(log_weight)))
            chosen = jax.tree.map(lambda leaf: leaf[j], (here.choices, here.states))
            return chosen, chosen[0]

        rows = jax.tree.map(lambda leaf: leaf[:-1], path), _after(xs)
        _, earlier = lax.scan(back, (chosen, state), rows, length=steps - 1, reverse=True)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), earlier, chosen)

    begun = copies(Weighted((), log_evidence(filtered.particles)))
    return each(lambda s: Weighted(one(), s.log_weight))(begun)


def _check_inputs(xs: Any, steps: int) -> None:
    check_inputs(xs, "Backward sampling")
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(xs)}
    if lengths - {(steps,)}:
        raise errors.InvalidArgument(
            "The inputs of smoothing are those of the filter.", where=errors.caller(),
            given=f"first axes of {sorted(lengths)}", expected=f"{steps} rows in each array",
            fix="xs=xs, as particle_filter has them",
        )  # fmt: skip


def _after(xs: Any) -> Any:
    """The inputs of all steps but the first."""
    return jax.tree.map(lambda leaf: leaf[1:], xs)


def genealogy(filtered: Filtered) -> Weighted:
    """Each last particle with all of its ancestors: n weighted paths of choices.

    Properly weighted; but of the first steps of a long series few ancestors are left.

    Returns:
      `Weighted` choices, arrays of shape (n, T, ...).

    Raises:
      InvalidArgument: the filter did not keep its history.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import genealogy, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0, 2.0])}
    >>> run = seed(lambda: genealogy(particle_filter(walk, 0.0, ys, 50, history=True)))
    >>> run(jax.random.key(0)).value["z"].shape
    (50, 3)
    """
    path = _kept(filtered)

    def back(slots: jax.Array, row: Path) -> tuple[jax.Array, Any]:
        mine = jax.tree.map(lambda leaf: leaf[slots], row.choices)
        return row.ancestors[slots], mine

    slots = jnp.arange(path.log_weight.shape[1])
    _, found = lax.scan(back, slots, path, reverse=True)
    return Weighted(
        jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), found), filtered.particles.log_weight
    )


def fixed_lag(filtered: Filtered, lag: int) -> tuple[Any, jax.Array]:
    """The law of each step's choices given the observations up to `lag` steps later.

    By the ancestors, `lag` steps back, of the particles that are there then (Kitagawa and Sato
    2001). An approximation of smoothing that leaves out what is seen later still.

    Returns:
      `(choices, weights)`: arrays of shape (T, n, ...), and of shape (T, n) with rows that add
      up to one.

    Raises:
      InvalidArgument: the filter did not keep its history, or the lag is negative.

    >>> import jax, jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import fixed_lag, particle_filter
    >>> from ppl import gen, sample, seed
    >>> @gen
    ... def walk(z, _):
    ...     z = sample("z", dist.Normal(z, 1.0))
    ...     sample("y", dist.Normal(z, 1.0))
    ...     return z, None
    >>> ys = {"y": jnp.array([0.5, 1.0, 2.0])}
    >>> run = seed(lambda: fixed_lag(particle_filter(walk, 0.0, ys, 50, history=True), 1))
    >>> choices, weights = run(jax.random.key(0))
    >>> choices["z"].shape, weights.sum(1).round(4).tolist()
    ((3, 50), [1.0, 1.0, 1.0])
    """
    path = _kept(filtered)
    check_count("lag", lag, least=0)
    steps, n = path.log_weight.shape
    rows = jnp.arange(steps)

    def later(ahead: jax.Array, slots: jax.Array) -> jax.Array:
        """From the ancestors `ahead` steps back to those one step more; the end stays."""
        at = rows + ahead + 1
        further = jnp.take_along_axis(slots, path.ancestors[jnp.minimum(at, steps - 1)], 1)
        return jnp.where((at < steps)[:, None], further, slots)

    slots = jnp.broadcast_to(jnp.arange(n), (steps, n))
    slots = lax.fori_loop(0, lag, later, slots)
    choices = jax.tree.map(lambda leaf: jax.vmap(lambda x, i: x[i])(leaf, slots), path.choices)
    ends = jnp.minimum(rows + lag, steps - 1)
    return choices, jax.vmap(normalized)(path.log_weight[ends])


def _kept(filtered: Filtered) -> Path:
    check_filtered(filtered)
    if filtered.path is None:
        raise errors.InvalidArgument(
            "The filter did not keep its particles.", where=errors.caller(),
            given="a filter with history=False", expected="all particles",
            fix="particle_filter(..., history=True)",
        )  # fmt: skip
    return filtered.path
