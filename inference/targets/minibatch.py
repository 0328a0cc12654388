"""Some of the data in place of all of them: estimates without bias, scaled in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ppl import GenerativeFunction, Selection, Target, Trace, draw, errors, select
from ppl.addresses import as_selection

from ..validation.objects import check_callable, check_no_gaps, check_target
from ..validation.settings import check_count


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Estimates of a log density, and of a bound, from `size` of `total` data; see `minibatch`.

    Called with latents it is a random program, whose mean is the log density of all data.

    Attributes:
      batch: from the numbers of some data to the target of these data only.
      total, size: how many data there are, and are taken at a time.
      local: the latents that belong to one datum each; None if there are none.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import Minibatch, minibatch
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda x: sample("y", dist.Normal(x, 1.0)))
    >>> x = jnp.arange(3.0)
    >>> some: Minibatch = minibatch(lambda i: Target(model, (x[i],), {"y": x[i]}), total=3, size=2)
    >>> some
    Minibatch(2 of 3 data)
    """

    batch: Callable[[jax.Array], Target]
    total: int
    size: int
    local: Selection | None = None

    def __call__(self, latents: Mapping[str, Any]) -> jax.Array:
        if self.local is not None:
            raise errors.InvalidArgument(
                "The latents of a minibatch change with the data that are drawn.",
                where=errors.caller(),
                given=f"local={self.local!r}",
                expected="an objective with a guide of these latents, elbo(minibatch(...), guide)",
                fix="leave `local` out where no latent belongs to one datum",
            )
        target = self.target(self.drawn())
        trace, score = target.at(latents)
        return self.scaled(target.model, trace, score, select(*target.observed))

    def drawn(self) -> jax.Array:
        """The numbers of a batch, with replacement: a random program."""
        return draw(dist.DiscreteUniform(0, self.total - 1).expand([self.size]))

    def target(self, numbers: jax.Array) -> Target:
        """The target of some data.

        Raises:
          InvalidArgument: `batch` makes none.
        """
        made = self.batch(numbers)
        check_target(made)
        fix = "leave impute out where nothing depends on what is missing; or use all data, by nuts"
        check_no_gaps(made, "A minibatch", fix)
        return made

    def whole(self) -> Target:
        """The target of all data."""
        return self.target(jnp.arange(self.total))

    def bound(self, guide: Any, args: tuple) -> jax.Array:
        """log p - log q of a batch, what belongs to its data scaled to all: a random program.

        A guide of local latents gets the numbers of the data as its last argument.
        """
        numbers = self.drawn()
        target = self.target(numbers)
        if self.local is None:
            trace = guide.simulate(*args)
            counted, of_guide = select(*target.observed), trace.score
        else:
            self._check_local(target, guide)
            trace = guide.simulate(*args, numbers)
            counted = self.local | select(*target.observed)
            of_guide = self.scaled(guide, trace, trace.score, self.local)
        at, score = target.at(trace.choices)
        return self.scaled(target.model, at, score, counted) - of_guide

    def _check_local(self, target: Target, guide: Any) -> None:
        """Raise where the local latents are none, or the guide's cannot be scored apart."""
        assert self.local is not None
        local = target.selection(self.local)
        for path in target.latents:
            site = target.sites[path]
            if local(path) and site.shape[:1] != (self.size,):
                raise errors.InvalidArgument(
                    f"The latent {errors.show(path)} does not belong to one datum each.",
                    where=(f"{errors.show(path)} at {site.source}", errors.caller()),
                    given=f"shape {site.shape}, for {self.size} data",
                    expected=f"shape ({self.size}, ...), stacked along the data",
                    fix="leave it out of `local`: it is shared by all data",
                )
        if not isinstance(guide, GenerativeFunction):
            raise errors.InvalidArgument(
                "The latents of each datum need a guide that scores its choices apart.",
                where=errors.caller(),
                given=repr(guide),
                expected="a generative function, one choice for each address",
                fix="write the guide with @gen: its last argument are the numbers of the data",
            )

    def scaled(
        self, model: GenerativeFunction, trace: Trace, score: Any, counted: Selection
    ) -> jax.Array:
        """A log density in which what is `counted` counts total / size times."""
        return score + (self.total / self.size - 1) * model.project(trace, counted)

    def __repr__(self) -> str:
        return f"Minibatch({self.size} of {self.total} data)"


def minibatch(
    batch: Callable[[jax.Array], Target],
    total: int,
    size: int,
    *,
    local: Selection | str | tuple[str, ...] | None = None,
) -> Minibatch:
    """Unbiased estimates of a log density from `size` of `total` data, drawn with replacement.

    Of latents x the estimate is log p(x) + total / size log p(batch | x), and its gradient is
    an unbiased estimate of the gradient (Welling and Teh 2011, equation 4). Only what the
    batch's target observes is scaled, not a `factor` in its model. In `elbo(minibatch(...), guide)`
    the bound is estimated so, for latents of the data's own, too (Hoffman et al. 2013).

    Args:
      batch: from the numbers of some data, ints of shape (size,), to the posterior given these
        data only.
      total: the number of data.
      size: the number of data in a batch.
      local: latents that belong to one datum each, stacked along the data: their densities are
        scaled, too, and the guide makes those of a batch, from its numbers as a last argument.

    Raises:
      InvalidArgument: `total` or `size` is not a positive int.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from inference import minibatch
    >>> from ppl import Target, gen, integrate, sample
    >>> @gen
    ... def line(x):
    ...     slope = sample("slope", dist.Normal(0.0, 1.0))
    ...     sample("y", dist.Normal(slope * x, 1.0))
    >>> x, y = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.5, 1.0, 4.0])
    >>> some = minibatch(lambda i: Target(line, (x[i],), {"y": y[i]}), total=3, size=2)
    >>> whole = Target(line, (x,), {"y": y}).log_density({"slope": 1.0})
    >>> print(f"{integrate(some)({'slope': 1.0}):.4f} {whole:.4f}")
    -5.3008 -5.3008
    """
    expected = "a function from the numbers of some data to a target"
    check_callable("batch", batch, expected, "batch=lambda i: Target(model, (x[i],), {'y': y[i]})")
    check_count("total", total)
    check_count("size", size)
    return Minibatch(batch, total, size, None if local is None else as_selection(local))
