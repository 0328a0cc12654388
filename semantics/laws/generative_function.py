"""The laws of a generative function's six methods, on any object that has them and `sites`.

A finite model is enumerated: its methods are random programs, so the law of each comes
from `ppl.paths`. Of others, the laws that are equations are tried at seeded points, up to
rounding, and what `generate` and `simulate` denote is integrated if they make few choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import Any

import jax
import numpy as np
from hypothesis.strategies import SearchStrategy

from ppl import GenerativeFunction, Target, errors, seed
from ppl.addresses import flatten
from ppl.sites import check_values

from ..compiling import QUICK
from ..report import Verdict, over
from . import calls
from .cases import POINTS, Case, Same, case_of, crashed, fixed_keys
from .departures import Found, LeftOut
from .method_laws import (
    assess_law,
    generate_law,
    project_law,
    regenerate_law,
    simulate_law,
    update_law,
)
from .stacked import take

METHODS = ("simulate", "assess", "generate", "update", "regenerate", "project")


def check_generative_function(
    model: Any,
    *args: Any,
    constraints: Mapping[str, Any] | None = None,
    laws: Sequence[str] = (),
    max_examples: int = 25,
) -> list[Verdict]:
    """The laws of the six methods (see `ppl.GenerativeFunction`), one verdict for each.

    `simulate`: t has probability e^score, and all of them add up to one. `assess`: the
    score and the return value of the same choices. `generate`: E[e^w delta_t] is the
    measure of the traces that extend the constraint. `update`: w is the difference of the
    scores, and the discarded undo it. `regenerate`: w is the Metropolis ratio of its own
    law. `project`: adds up to the score over a partition. `purity`: the same key gives the
    same bits. `sites`: addresses, shapes, dtypes and supports are those foretold.
    `batching`: the methods under `vmap` are the methods, one by one.

    Args:
      model: any object with the six methods and `sites`, or a strategy of programs
        (objects with a `target`), of which each law is tried on `max_examples`.
      args: its arguments; programs bring their own.
      constraints: a choice map (the data, say) for which `generate` is checked too.
      laws: which of them, by name; all if none is named.

    A law that does not apply is passed and says "left out": `simulate` of a model with
    factors; scores, when the model also draws without addresses. A method that raises fails.

    Probabilities of a finite model are compared exactly (`"exact"`, departures of 1e-12 are
    seen in 64 bits). Others are compared at 20 traces (`"identity"`): errors are divided by
    the sizes of what is compared and may be 64 roundings. With up to three continuous scalars
    `simulate` and `generate` are also integrated on two grids (`"quadrature"`).

    Raises:
      InvalidArgument: `model` lacks a method, or there is no such law.

    Source: Cusumano-Towner et al., Gen (PLDI 2019); Lew et al., Probabilistic programming with
    stochastic probabilities (PLDI 2023), for what estimates denote.

    >>> import numpyro.distributions as dist
    >>> from ppl import gen, sample
    >>> from semantics.laws.generative_function import check_generative_function
    >>> @gen
    ... def model(p):
    ...     a = sample("a", dist.Bernoulli(p))
    ...     return sample("b", dist.Bernoulli(0.25 + 0.5 * a))
    >>> verdicts = check_generative_function(model, 0.25)
    >>> all(verdicts), {v.check: v.method for v in verdicts}["generate"]
    (True, 'exact')
    """
    if len(args) == 1 and isinstance(args[0], tuple) and not args[0]:
        raise errors.InvalidArgument(
            "The arguments of the model are given apart.", where=errors.caller(),
            given="check_generative_function(model, ())", expected="a model, *its arguments",
            fix="check_generative_function(model), or (model, *args)",
        )  # fmt: skip
    for name in laws:
        if name not in LAWS:
            guess = errors.near(name, LAWS)
            raise errors.InvalidArgument(
                "Unknown law of generative functions.", where=errors.caller(), given=repr(name),
                expected=", ".join(LAWS), fix=f"did you mean {guess!r}?" if guess else "name one",
            )  # fmt: skip
    laws = tuple(laws) or tuple(LAWS)
    if isinstance(model, SearchStrategy):
        known: dict[str, Case | Verdict] = {}

        def judged(law: str, program: Any) -> Verdict:
            code, t = program.code(), program.target
            if code not in known:
                known[code] = case_of(t.model, t.args, t.observations)
            return _judged(law, known[code])

        return [over(model, partial(judged, law), max_examples) for law in laws]
    missing = [name for name in (*METHODS, "sites") if not callable(getattr(model, name, None))]
    if missing:
        raise errors.InvalidArgument(
            f"A generative function has a method {missing[0]!r}.",
            where=errors.caller(),
            given=repr(model),
            expected="an object with " + ", ".join((*METHODS, "sites")),
            fix="give target.model, *target.args" if isinstance(model, Target) else "add it",
        )
    case = case_of(model, args, constraints or {})
    return [case] if isinstance(case, Verdict) else [_judged(law, case) for law in laws]


def _judged(name: str, case: Case | Verdict) -> Verdict:
    """The verdict of one law; what a method raises is a failure."""
    if isinstance(case, Verdict):
        return replace(case, check=name)
    found = Found(case)
    try:
        LAWS[name](case, found)
    except LeftOut as why:
        return Verdict(f"{name} (left out: {why})", True, "none", 0.0, found.limit, 0)
    except Exception as error:
        return crashed(name, error)
    passed = found.error <= found.threshold
    return Verdict(
        name, passed, found.method, found.error, found.threshold, found.n,
        effect=found.threshold * found.size, witness="" if passed else found.witness,
    )  # fmt: skip


# -- of all methods together ---------------------------------------------------------------


def _purity_law(case: Case, found: Found) -> None:
    """Run again, and staged again, everything has the same bits."""
    static, points, others = case.everything
    first, second = (case.sampled.run(calls.methods, static, points, others) for _ in range(2))
    fresh = case.sampled
    model = case.same.model
    if isinstance(model, GenerativeFunction) and isinstance(model.fn, FunctionType):
        anew = GenerativeFunction(partial(model.fn), model.fixed, model.name)  # not yet staged
        fresh = replace(fresh, same=Same(anew))
        points, others = replace(points, model=anew), replace(others, model=anew)
    third = fresh.run(lambda *args: calls.methods(*args), static, points, others)
    for other in (second, third):
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
            found.n += 1
            if a.tobytes() != b.tobytes():
                i = np.unravel_index(np.argmax(a != b), a.shape)
                words = f"with one key, a value is once {a[i]:.17g} and once {b[i]:.17g}"
                found.departs(1.0, found.limit, words)


def _sites_law(case: Case, found: Found) -> None:
    """Addresses, shapes, dtypes and supports are those that `sites` foretells."""
    for i in range(POINTS):
        choices = take(case.points.choices, i)
        have, foretold = flatten(choices), case.sites
        missing = [path for path in foretold if path not in have]
        try:
            if missing:
                raise errors.MissingChoice(f"A trace has no {errors.show(missing[0])}.")
            check_values(foretold, choices, "A trace", filler=True)
            for path, value in have.items():
                if value.dtype != foretold[path].dtype:
                    text = f"{errors.show(path)} is {value.dtype}, not {foretold[path].dtype}"
                    raise errors.DtypeError(text)
        except errors.PPLError as error:
            found.departs(1.0, found.limit, str(error))
    found.n += POINTS


def _batching_law(case: Case, found: Found) -> None:
    """The methods under `vmap` give what they give one by one."""
    static, points, others = case.everything
    batched, _ = case.sampled.run(calls.methods, static, points, others)
    trace, other = take((points, others), 0)
    program = lambda: calls.methods(case.same.model, case.args, static, trace, other)  # noqa: E731
    single = jax.jit(seed(program), compiler_options=QUICK)(fixed_keys(POINTS)[0])
    single = jax.tree.map(lambda leaf: np.asarray(leaf)[None], single)
    found.equal("a result of vmap", take(batched, np.s_[0, :1]), single, take(points, [0]))


Law = Callable[[Case, Found], None]
LAWS: dict[str, Law] = {
    "simulate": simulate_law,
    "assess": assess_law,
    "generate": generate_law,
    "update": update_law,
    "regenerate": regenerate_law,
    "project": project_law,
    "purity": _purity_law,
    "sites": _sites_law,
    "batching": _batching_law,
}
