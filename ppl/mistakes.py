"""What Python, JAX and numpyro raise while a person's function is traced, in our words.

Also habits of other languages: `numpyro.sample` inside a model, `obs=`, a choice without
an address. Each is told what it is called here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.core
import numpyro.distributions as dist
from numpyro.primitives import _PYRO_STACK, Messenger

from . import errors
from .arguments import is_array
from .border import no_arrays

_DISTRIBUTIONS = dist.__file__.rsplit("__init__", 1)[0]


def translate(error: Exception, fn: Callable, args: tuple, kwargs: dict) -> Exception:
    """Our error for one raised while `fn(*args, **kwargs)` was traced; else the error itself."""
    concretization = (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    )
    shape = isinstance(error, TypeError) and "1D sequences of concrete values" in str(error)
    if shape or isinstance(error, concretization):
        return needs_value(errors.place_in(error), str(error).strip().splitlines()[0])
    return (
        _wrong_call(error, fn, args, kwargs)
        or _of_a_word(error)
        or of_distribution(error, "a distribution", errors.place_in(error))
        or _of_an_argument(error, fn, args, kwargs)
        or error
    )


def needs_value(where: str, given: str) -> errors.PythonControlFlow:
    """The error for Python that needs the value of something traced."""
    return errors.PythonControlFlow(
        "Python needed the value of a traced variable (an `if`, a loop, int(), a shape).",
        where=where,
        given=given,
        expected="a value known before the program runs",
        fix="use jax.lax.cond / jnp.where on random values; if it is an argument "
        "that is fixed, declare it: @gen(static_argnames=('n',))",
    )


def _wrong_call(error: Exception, fn: Callable, args: tuple, kwargs: dict) -> Exception | None:
    """Our error for a `TypeError` that is due to the arguments of the call itself."""
    if not isinstance(error, TypeError):
        return None
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # no signature to compare with
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as wrong:
        name = getattr(fn, "__name__", type(fn).__name__)
        return errors.InvalidArgument(
            f"{name} was called with the wrong arguments: {wrong}.",
            where=errors.caller(),
            given=f"{len(args)} positional" + "".join(f", {keyword}=" for keyword in kwargs),
            expected=f"{name}{signature}",
            fix="give the arguments of its signature",
        )
    return None


def _of_an_argument(error: Exception, fn: Callable, args: tuple, kwargs: dict) -> Exception | None:
    """Our error for Python that computed with an argument that is no array."""
    if not isinstance(error, (TypeError, AttributeError, ValueError)):
        return None
    text = str(error)
    for name, value in no_arrays(args, kwargs, fn).items():
        kind = type(value).__name__
        listed = isinstance(value, (list, tuple))
        # Python names the type, or says what a list or a string is not
        as_sequence = "sequence" in text or "converted to a scalar index" in text
        if f"{kind}'" in text or (as_sequence and (listed or isinstance(value, str))):
            return errors.DtypeError(
                f"The model computed with the {name}, which is no array.",
                where=(errors.place_in(error), errors.caller()),
                given=f"{kind}: {value!r}",
                expected="an array of numbers",
                fix="make it an array: jnp.asarray(value)" if listed else "pass numbers",
            )
    return None


# -- distributions ----------------------------------------------------------------------


def of_distribution(error: Exception, name: str, where: str) -> errors.PPLError | None:
    """Our error for one that numpyro's distributions raised, with the parameters it got.

    None for an error that arose elsewhere. The person's line is `where`.
    """
    if isinstance(error, ImportError):
        return errors.MissingPackage(
            f"numpyro needs a package to draw from this {name}, or for its density.",
            where=where,
            given=str(error),
            fix="install it; observed and scored choices may do without their sampler",
        )
    frame = _frame_of(error.__traceback__)
    text = " ".join(str(error).split())
    if frame is None:
        if isinstance(error, ValueError) and "invalid" in text and "parameter" in text:
            return errors.InvalidDistribution(
                text, where=where, fix="give parameters inside their constraints"
            )
        return None
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    kind = type(owner).__name__ if isinstance(owner, dist.Distribution) else name
    given = _parameters(frame)
    constrained = getattr(owner, "arg_constraints", {})
    wrong = {k: v for k, v in given.items() if k in constrained and not is_array(v)}
    fix = "give parameters whose shapes broadcast, in the constraints of the distribution"
    if any(isinstance(v, dist.Distribution) for v in wrong.values()):
        fix = f'sample it first: {next(iter(wrong))} = sample("{next(iter(wrong))}", ...)'
    elif wrong:
        fix = f"give a number or an array for {', '.join(wrong)}"
    elif isinstance(error, NotImplementedError):
        fix = "use another distribution, or give the value a density by factor"
    shown = ", ".join(f"{k} = {_short(v)}" for k, v in (wrong or given).items())
    why = f": {text}" if text and not wrong else ""
    return errors.InvalidDistribution(
        f"numpyro cannot make or use this {kind}{why[:200]}.",
        where=where,
        given=shown or None,
        expected="numbers or arrays as parameters" if wrong else None,
        fix=fix,
    )


def _frame_of(tb: TracebackType | None) -> FrameType | None:
    """The frame in which a person's code, or ours, entered numpyro's distributions.

    The constructor's, where there is one: metaclasses and wrappers stand before it.
    """
    found = None
    while tb is not None:
        code = tb.tb_frame.f_code
        if code.co_filename.startswith(_DISTRIBUTIONS):
            if found is None:
                found = tb.tb_frame
            if code.co_name == "__init__":
                return tb.tb_frame
        tb = tb.tb_next
    return found


def _parameters(frame: FrameType) -> dict[str, Any]:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount]
    local = frame.f_locals
    return {n: local[n] for n in names if n in local and n not in ("self", "cls", "validate_args")}


def _short(value: Any) -> str:
    if isinstance(value, dist.Distribution):
        return f"a {type(value).__name__} distribution"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)


# -- habits ------------------------------------------------------------------------------

_WORDS = {
    "sample": (
        'sample("address", distribution)',
        {
            "obs": "leave the data out of the model: Target(model, args, {address: data}); "
            "observe(distribution, value) conditions in place",
            "rng_key": "leave the key out: seed(model.simulate)(key, *args) gives keys to all",
            "sample_shape": "expand the distribution: sample(address, d.expand([n]))",
            "infer": "kernels are chosen where inference is run, by address",
        },
        "give the choice an address: sample(\"x\", distribution); "
        "draw(distribution) has none",
    ),
    "draw": (
        "draw(distribution)",
        {},
        "draw takes a distribution alone; seed(f)(key, *args) gives it its key",
    ),
    "factor": (
        "factor(log_weight)",
        {},
        "a factor has no name: factor(log_weight)",
    ),
    "observe": (
        "observe(distribution, value)",
        {},
        "an observation in place has no name: observe(distribution, value)",
    ),
}  # fmt: skip
_WRONG_CALL = re.compile(
    r"^(sample|draw|factor|observe)\(\) (got an unexpected keyword argument '(\w+)'|missing |"
    r"takes |got multiple values)"
)


def _of_a_word(error: Exception) -> Exception | None:
    """Our error for a word of the language that is called as another language calls it."""
    found = _WRONG_CALL.match(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    word, keyword = found[1], found[3]
    usage, keywords, fix = _WORDS[word]
    given = "" if keyword is None else f"{keyword}="
    return errors.InvalidArgument(
        f"{word} is called in another way here.",
        where=errors.place_in(error),
        given=f"{word}(..., {given})" if given else str(error),
        expected=usage,
        fix=keywords.get(keyword, fix) if keyword else fix,
    )


_NUMPYRO = {
    "sample": ("numpyro.sample", 'sample("name", distribution), and data in a Target'),
    "plate": (
        "numpyro.plate",
        'jax.vmap of the choices of one element, or sample("name", d.expand([n]))',
    ),
    "deterministic": ("numpyro.deterministic", "return the value: trace.retval has it"),
    "factor": ("numpyro.factor", "factor(log_weight), from ppl"),
    "param": ("numpyro.param", "make it an argument of the model"),
    "control_flow": ("numpyro's control flow", "jax.lax.scan or jax.lax.cond"),
}


class Foreign(Messenger):
    """Tells numpyro's words that stand in a model of ours, without a handler around them."""

    def process_message(self, msg: Any) -> None:
        if _PYRO_STACK and _PYRO_STACK[-1] is not self:
            return  # a handler of numpyro's own takes it
        kind = "factor" if msg.get("infer", {}).get("is_auxiliary") else msg["type"]
        word, ours = _NUMPYRO.get(kind, (f"numpyro's {kind}", "what ppl has for it"))
        name = f'"{msg["name"]}" at ' if "name" in msg else ""
        raise errors.InvalidArgument(
            f"{word} stands in a model of this library.",
            where=f"{name}{errors.caller()}",
            given=f'{word}("{msg["name"]}", ...)' if "name" in msg else word,
            expected="the words of ppl: sample, factor, observe",
            fix=f"{ours}; a whole model of NumPyro's comes in by from_numpyro(model)",
        )
