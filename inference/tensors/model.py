"""Functional tensor models: entries whose modes are continuous, categorical, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import GenerativeFunction, errors, sample

from ..gaussian.inputs import array_of
from ..gaussian.kernel import Kernel, check_kernel
from ..validation.settings import check_count, check_flag, check_number, shown
from .entries import Entries
from .factors import Factors
from .forms import CP, Tucker
from .noise import Likelihood, Noise, NormalNoise, StudentTNoise

RESERVED = ("level", "core", "precision", "y")


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernels", "noise", "level", "known_core"],
    meta_fields=["form", "names", "ranks", "effects"],
)
@dataclass(frozen=True)
class Tensor:
    """The program of a functional tensor model, made by `cp` and `tucker`.

    Attributes:
      kernels: of each mode, one whose leaves have a number for each function, `(p_k,)`: for its
        components, and the last for its main effect, if there are `effects`.
      noise: what entries are, given the predictor.
      level: the standard deviation of the constant that is added, with `effects`.
      known_core: of a Tucker model whose core is given, `ranks`.
      form, names, ranks: CP or Tucker; of the modes.
    """

    kernels: tuple[Kernel, ...]
    noise: Noise
    level: Any
    known_core: Any
    form: CP | Tucker
    names: tuple[str, ...]
    ranks: tuple[int, ...]
    effects: bool

    @property
    def has_core(self) -> bool:
        """Whether a core is a choice."""
        return isinstance(self.form, Tucker) and self.known_core is None

    def __call__(self, rows: Entries) -> jax.Array:
        rows = in_order(rows, self.names)
        level = sample("level", dist.Normal(0.0, self.level)) if self.effects else 0.0
        each = zip(self.names, self.kernels, rows.coordinates, strict=True)
        functions = [sample(name, Factors(kernels, at)) for name, kernels, at in each]
        core = self._core()
        precision = None
        if isinstance(self.noise, (NormalNoise, StudentTNoise)):
            shape = self.precisions(rows.sizes)
            gamma = dist.Gamma(self.noise.shape, self.noise.rate).expand(shape)
            precision = sample("precision", gamma.to_event(len(shape)))
        predictor = self.predictor(functions, core, level, rows)
        return sample("y", self.noise.law(predictor, self.of_entries(precision, rows.index)))

    def _core(self) -> Any:
        if self.has_core:
            normal = dist.Normal(jnp.zeros(self.ranks), 1.0)
            return sample("core", normal.to_event(len(self.ranks)))
        return self.known_core

    def precisions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the noise's precision: one for all entries, or for each coordinate."""
        return () if self.noise.by is None else (sizes[self.names.index(self.noise.by)],)

    def of_entries(self, precision: Any, index: jax.Array) -> Any:
        """Which of the precisions, or of their laws, each entry has."""
        if self.noise.by is None:
            return precision
        at = index[:, self.names.index(self.noise.by)]
        return jax.tree.map(lambda each: each[at], precision)

    def over_entries(self, each: jax.Array, index: jax.Array, size: tuple[int, ...]) -> jax.Array:
        """The sum of a number of each entry, for each precision."""
        if self.noise.by is None:
            return jnp.sum(each)
        at = index[:, self.names.index(self.noise.by)]
        return jnp.zeros(size, each.dtype).at[at].add(each)

    def predictor(
        self, functions: Sequence[jax.Array], core: Any, level: Any, rows: Entries
    ) -> jax.Array:
        """The predictor of each entry, of functions `(p_k, n_k)`."""
        at = [f[:, index].T for f, index in zip(functions, rows.index.T, strict=True)]
        vectors = [v[:, :rank] for v, rank in zip(at, self.ranks, strict=True)]
        flat = None if core is None else jnp.ravel(core)
        found = jnp.sum(self.form.partial(0, vectors, (flat, None)) * vectors[0], -1)
        if not self.effects:
            return found
        return found + level + sum(v[:, -1] for v in at)


def in_order(rows: Any, names: tuple[str, ...]) -> Entries:
    """The entries, with their modes in this order.

    Raises:
      InvalidArgument: these are no entries, or their modes have other names.
    """
    if not isinstance(rows, Entries):
        raise errors.InvalidArgument(
            "A functional tensor has entries.", where=errors.caller(), given=shown(rows),
            expected=f"entries with the modes {', '.join(names)}",
            fix=f"entries({{{', '.join(f'{name!r}: ...' for name in names)}}})",
        )  # fmt: skip
    if sorted(rows.names) != sorted(names):
        raise errors.InvalidArgument(
            "The modes of the entries are not those of the model.", where=errors.caller(),
            given=", ".join(rows.names), expected=", ".join(names),
            fix="columns named as the kernels of the model",
        )  # fmt: skip
    if rows.names == names:
        return rows
    order = [rows.names.index(name) for name in names]
    return Entries(tuple(rows.coordinates[k] for k in order), rows.index[:, order], names)


def cp(
    rank: int,
    kernels: Mapping[str, Kernel | Sequence[Kernel]],
    *,
    noise: Noise | None = None,
    effects: bool = False,
    level: float = 10.0,
) -> GenerativeFunction:
    """A table as a sum of `rank` products of functions, one for each mode, and noise.

    y_n = Σ_r Π_k u^k_r(x_nk) + noise, of independent Gaussian processes u^k_r. Its argument are
    `entries`; its choices are the functions of each mode, at the mode's name, as an array of
    components and coordinates; "precision", of normal and Student-t noise, of which a mode has
    one for each coordinate if the noise differs by it; and "y".

    Args:
      kernels: of the modes by name: one kernel for all components, or a list of one for each, of
        one kind; with `effects`, it may have one more, for the main effect. `Exchangeable()` is
        the kernel of categories.
      noise: `NormalNoise()` by default, `StudentTNoise()`, or a `Likelihood`.
      effects: whether each mode has a main effect, too, which is the last row of its functions,
        and there is a constant, the choice "level".
      level: the standard deviation of that constant.

    Raises:
      InvalidArgument: a kernel is none, or is not of the kind of the others of its mode; there
        is one too many or too few; or a mode has the name of another choice.

    Source: Fang, Yu, Liu & Zhe, Functional Bayesian Tucker Decomposition for Continuous-indexed
    Tensor Data (ICLR 2024).

    >>> import jax.numpy as jnp
    >>> from inference.gaussian import Exchangeable, Matern32
    >>> from inference.tensors import cp, entries
    >>> model = cp(2, {"day": Matern32(5.0), "place": Exchangeable()}, effects=True)
    >>> rows = entries({"day": [0.0, 1.0, 1.0], "place": [0, 0, 1]})
    >>> [(path[0], site.shape) for path, site in model.sites(rows).items()]
    [('level', ()), ('day', (3, 2)), ('place', (3, 2)), ('precision', ()), ('y', (3,))]
    """
    check_count("rank", rank)
    names = _names(kernels)
    return _model("cp", CP(), names, (rank,) * len(names), kernels, noise, effects, level, None)


def tucker(
    ranks: int | Sequence[int],
    kernels: Mapping[str, Kernel | Sequence[Kernel]],
    *,
    core: Any = None,
    noise: Noise | None = None,
    effects: bool = False,
    level: float = 10.0,
) -> GenerativeFunction:
    """A table by functions of each mode, whose products are summed with the numbers of a core.

    y_n = Σ_s core_s Π_k u^k_(s_k)(x_nk) + noise. The core is a choice, "core", of shape `ranks`
    and of independent standard normals, unless it is given.

    Args:
      ranks: how many functions each mode has, or one number for all modes.
      core: the core, if it is known.
      kernels, noise, effects, level: as for `cp`.

    Raises:
      InvalidArgument: as for `cp`, or ranks or a core do not fit.

    Source: as for `cp`.

    >>> import jax.numpy as jnp
    >>> from inference.gaussian import Matern32
    >>> from inference.tensors import entries, tucker
    >>> model = tucker((2, 1), {"day": Matern32(5.0), "heat": Matern32(1.0)})
    >>> rows = entries({"day": [0.0, 1.0], "heat": [0.5, 0.7]})
    >>> [(path[0], site.shape) for path, site in model.sites(rows).items()]
    [('day', (2, 2)), ('heat', (1, 2)), ('core', (2, 1)), ('precision', ()), ('y', (2,))]
    """
    names = _names(kernels)
    each = (ranks,) * len(names) if isinstance(ranks, (int, np.integer)) else tuple(ranks)
    if len(each) != len(names):
        raise errors.InvalidArgument(
            "A Tucker model has a rank for each mode.", where=errors.caller(),
            given=f"{len(each)} ranks", expected=f"{len(names)}, for {', '.join(names)}",
            fix=f"ranks={(2,) * len(names)}",
        )  # fmt: skip
    for rank in each:
        check_count("ranks", rank)
    if core is not None:
        shape = np.shape(array_of(core))
        if shape != each or array_of(core).dtype.kind not in "fiu":
            raise errors.InvalidArgument(
                "The core does not fit the ranks.", where=errors.caller(), given=shown(core),
                expected=f"numbers of shape {each}", fix=f"core=jnp.ones({each})",
            )  # fmt: skip
        core = jnp.asarray(core, float)
    return _model("tucker", Tucker(each), names, each, kernels, noise, effects, level, core)


def _names(kernels: Any) -> tuple[str, ...]:
    if not isinstance(kernels, Mapping) or not kernels:
        raise errors.InvalidArgument(
            "A functional tensor has a kernel for each mode.", where=errors.caller(),
            given=shown(kernels), expected="a mapping from names to kernels",
            fix='{"day": Matern32(5.0), "place": Exchangeable()}',
        )  # fmt: skip
    for name in kernels:
        if not isinstance(name, str) or not name or name in RESERVED:
            raise errors.InvalidArgument(
                "A mode has a name of its own.", where=errors.caller(), given=shown(name),
                expected=f"another word than {', '.join(RESERVED)}", fix='"day"',
            )  # fmt: skip
    return tuple(kernels)


def _model(
    kind: str,
    form: CP | Tucker,
    names: tuple[str, ...],
    ranks: tuple[int, ...],
    kernels: Mapping[str, Any],
    noise: Any,
    effects: bool,
    level: Any,
    core: Any,
) -> GenerativeFunction:
    check_flag("effects", effects)
    check_number("level", level, above=0, fix=10.0)
    noise = NormalNoise() if noise is None else noise
    if not isinstance(noise, (NormalNoise, StudentTNoise, Likelihood)):
        raise errors.InvalidArgument(
            "The noise of a functional tensor is none that is known.", where=errors.caller(),
            given=shown(noise), expected="NormalNoise(), StudentTNoise() or Likelihood(of)",
            fix="Likelihood(lambda eta: dist.Poisson(jnp.exp(eta)))",
        )  # fmt: skip
    if noise.by is not None and noise.by not in names:
        raise errors.InvalidArgument(
            "The noise differs by a mode that the model has not.", where=errors.caller(),
            given=f"by={shown(noise.by)}", expected=" or ".join(map(repr, names)),
            fix=f"{type(noise).__name__}(by={names[-1]!r})",
        )  # fmt: skip
    stacked = tuple(
        _stacked(name, kernels[name], rank, effects)
        for name, rank in zip(names, ranks, strict=True)
    )
    program = Tensor(stacked, noise, level, core, form, names, ranks, effects)
    return GenerativeFunction(program, name=kind)


def _stacked(name: str, given: Any, rank: int, effects: bool) -> Kernel:
    """One kernel for all functions of a mode, whose leaves have a number for each."""
    width = rank + effects
    if isinstance(given, (list, tuple)):
        each = list(given)
        if effects and len(each) == rank:
            each.append(each[-1])
        if len(each) != width:
            raise errors.InvalidArgument(
                f"The mode {name!r} has another number of functions.", where=errors.caller(),
                given=f"{len(given)} kernels",
                expected=f"{rank}, for the components" + ("; or one more" if effects else ""),
                fix="one kernel, for all of them",
            )  # fmt: skip
    else:
        each = [given] * width
    for kernel in each:
        check_kernel(kernel)
    trees = {jax.tree.structure(kernel) for kernel in each}
    if len(trees) > 1:
        raise errors.InvalidArgument(
            f"The kernels of the mode {name!r} are of several kinds.", where=errors.caller(),
            given=", ".join(sorted({type(kernel).__name__ for kernel in each})),
            expected="one kind for all functions of a mode",
            fix="the sum of the kinds, for each: Matern12(1.0) + Matern32(10.0)",
        )  # fmt: skip
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x, float) for x in leaves]), *each)


def tensor_of(model: Any) -> Tensor | None:
    """The program of a functional tensor model; None of another one."""
    found = getattr(model, "fn", None)
    return found if isinstance(found, Tensor) else None
