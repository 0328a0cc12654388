"""Staging: a Python function becomes a :class:`~ppl.program.Program`.

The only file that reads jaxprs. A function is traced once per abstract
arguments; the equations that hold no randomness are gathered into `Pure` steps
(evaluated by `jax.core.eval_jaxpr`, never re-bound by hand), and each construct
that holds some becomes a step of its own. `jit` and calls of generative
functions disappear: their bodies are spliced in, under the caller's address.

Longer than 400 lines because it is the one place that knows jaxprs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.extend.core.primitives as prims
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.extend.core import Literal
from jax.interpreters import partial_eval

from . import distributions, errors
from .arguments import Arguments
from .effects import EFFECTS, call_p, draw_p, effects_of, factor_p, map_p, sample_p, subprograms
from .mistakes import Foreign, translate
from .program import (
    CHOICE,
    DRAW,
    FACTOR,
    Branch,
    Choice,
    Custom,
    Draw,
    Factor,
    Loop,
    Map,
    Path,
    Program,
    Pure,
    Remat,
    Spec,
    Step,
    While,
)
from .supports import check_parameters

_CONSTANTS = (bool, int, float, complex, np.generic, np.ndarray)
_LABEL = {draw_p: DRAW, sample_p: CHOICE, factor_p: FACTOR}


@dataclass(frozen=True, eq=False)
class Staged:
    """A traced function: its program, and how results are put together again."""

    program: Program
    jaxpr: Any
    result: Arguments

    def rebuild(self, leaves: Sequence[Any]) -> Any:
        """The function's result from the program's outputs; constants become arrays."""
        arrays = [jnp.asarray(x) if isinstance(x, _CONSTANTS) else x for x in leaves]
        return self.result.with_leaves(arrays).args[0]


def lifted(closed: Any) -> tuple[list, Any]:
    """`(values, jaxpr)` with the traced values that it closes over as operands in front.

    A call inside a model is looked at again when the trace that made them is over.
    """
    traced = [isinstance(value, jax.core.Tracer) for value in closed.consts]
    if not any(traced):
        return [], closed

    def those(items: Sequence[Any], which: bool) -> list:
        return [x for x, t in zip(items, traced, strict=True) if t is which]

    jaxpr = closed.jaxpr
    invars = [*those(jaxpr.constvars, True), *jaxpr.invars]
    jaxpr = jaxpr.replace(constvars=those(jaxpr.constvars, False), invars=invars)
    values = those(closed.consts, True)
    return values, closed.replace(jaxpr=jaxpr, consts=those(closed.consts, False))


_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def stage(fn: Callable, arguments: Arguments, check: Callable[[Any], None] | None = None) -> Staged:
    """Trace `fn(*args, **kwargs)`; remembered per function and abstract arguments.

    Args:
      check: looks at the result once, while it is traced.

    Raises:
      PythonControlFlow: `fn` used a traced value in Python control flow.
      InvalidDistribution: a distribution was built from invalid parameters.
    """
    avals = arguments.avals()
    key = (arguments.static, avals, _context())
    # a bound method is a new object at each access: remember by its owner
    owner = getattr(fn, "__self__", fn)
    key = (*key, getattr(fn, "__func__", None), check is None)
    try:
        memory = _cache.setdefault(owner, {})
        if key in memory:
            return memory[key]
    except TypeError:  # an unhashable function or static argument: trace each time
        memory = None
    staged = _trace(fn, arguments, check)
    closes_over_tracers = any(isinstance(c, jax.core.Tracer) for c in staged.jaxpr.consts)
    if memory is not None and not closes_over_tracers:
        memory[key] = staged
    return staged


def _context() -> tuple:
    flags = ("jax_enable_x64", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
    return tuple(getattr(jax.config, flag) for flag in flags)


def _trace(fn: Callable, arguments: Arguments, check: Callable[[Any], None] | None) -> Staged:
    result: list[Arguments] = []

    def flat(*leaves):
        call = arguments.with_leaves(leaves)
        made = fn(*call.args, **call.kwargs)
        out = Arguments.of((made,), {})
        _no_calls(out)
        if check is not None:
            check(made)
        result.append(out)
        return out.leaves

    # equations traced for JAX's own error messages are replaced by ours
    try:
        # parameters that are known are checked by us; numpyro's checks of traced ones
        # would stay in the program as equations
        with numpyro.validation_enabled(False), Foreign():
            jaxpr = jax.make_jaxpr(flat)(*arguments.leaves)
    except errors.PPLError:
        raise
    except Exception as error:
        args, kwargs = arguments.args, arguments.kwargs
        called, args = (args[0], args[1:]) if fn is apply else (fn, args)
        ours = translate(error, called, args, kwargs)
        if ours is error:
            raise
        raise ours from error
    return Staged(build(jaxpr), jaxpr, result[-1].without_leaves())


def _no_calls(result: Arguments) -> None:
    """Raise when a result holds `model(args)`, a call that nobody ran."""
    for leaf in result.static[1]:
        if hasattr(leaf, "__bind_call__"):
            raise errors.OutsideModel(
                "A generative function was called, but no method ran it.",
                where=errors.caller(),
                given=f"the result {leaf!r}",
                expected='sample("name", model(args)) in a model, or a method of the model',
                fix='seed(model.simulate)(key, *args), or in a model sample("name", model(args))',
            )


def without_dead_draws(fn: Callable) -> Callable:
    """`fn`, a random program, without the draws that its result does not depend on.

    Its results have the same law.

    >>> import jax.numpy as jnp, numpyro.distributions as dist
    >>> from ppl import draw
    >>> from ppl.staging import without_dead_draws
    >>> def twice(x):
    ...     draw(dist.Normal(x, 1.0))  # of which nothing is made
    ...     return 2 * x
    >>> float(without_dead_draws(twice)(3.0))
    6.0
    """

    def run(*args: Any) -> Any:
        arguments = Arguments.of(args, {})
        staged = stage(fn, arguments)
        closed = staged.jaxpr
        needed = [True] * len(closed.jaxpr.outvars)
        small, used = partial_eval.dce_jaxpr(closed.jaxpr, needed)
        leaves = [leaf for leaf, use in zip(arguments.leaves, used, strict=True) if use]
        return staged.rebuild(jax.core.eval_jaxpr(small, closed.consts, *leaves))

    return run


def apply(fn: Callable, *args: Any, **kwargs: Any) -> Any:
    """`fn(*args, **kwargs)`: stages a function that is itself a pytree of arrays."""
    return fn(*args, **kwargs)


# -- building ---------------------------------------------------------------------


def build(closed: Any) -> Program:
    """The program of a closed jaxpr."""
    return _Builder(()).program(closed)[0]


class _Builder:
    """Builds one `Program`; `prefix` is the address of the generative function."""

    def __init__(self, prefix: Path, first_draw: int = 0):
        self.prefix = prefix
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.avals: dict[int, Any] = {}
        self.draws = first_draw

    def slot(self, aval: Any) -> int:
        number = len(self.avals)
        self.avals[number] = aval
        return number

    def constant(self, value: Any, aval: Any) -> int:
        number = self.slot(aval)
        self.constants[number] = value
        return number

    def program(self, closed: Any) -> tuple[Program, int]:
        jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
        inputs = tuple(self.slot(v.aval) for v in jaxpr.invars)
        outputs = self.splice(closed, inputs, self.prefix)
        program = Program(
            inputs, tuple(outputs), tuple(self.steps), self.constants, self.avals, self.draws
        )
        return program, self.draws

    def splice(self, closed: Any, inputs: Sequence[int], prefix: Path) -> list[int]:
        """Append the equations of `closed`, reading `inputs`; returns its output slots."""
        jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
        consts = getattr(closed, "consts", ())
        outer, self.prefix = self.prefix, prefix
        scope: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            scope[var] = self.constant(value, var.aval)
        eqns = _unpromoted(jaxpr.eqns)
        last_use = _last_uses(eqns, jaxpr.outvars)
        run: list = []
        start = 0
        for i, eqn in enumerate(eqns):
            found = _effects(eqn)
            if not found:
                if not run:
                    start = i
                run.append(eqn)
                continue
            self.flush(jaxpr, run, scope, last_use, start)
            run = []
            self.effectful(eqn, found, scope)
        self.flush(jaxpr, run, scope, last_use, start)
        self.prefix = outer
        return [self.read(scope, atom) for atom in jaxpr.outvars]

    def read(self, scope: dict, atom: Any) -> int:
        if isinstance(atom, Literal):
            return self.constant(literal(atom), atom.aval)
        return scope[atom]

    def flush(self, jaxpr, run: list, scope: dict, last_use: dict, start: int) -> None:
        """One `Pure` step for a run of equations without randomness."""
        if not run:
            return
        end = start + len(run) - 1
        defined = {v: None for eqn in run for v in eqn.outvars}
        outvars = [v for v in defined if last_use.get(v, -1) > end]
        kept = _needed(run, outvars)
        used: dict = {}
        for eqn in kept:
            for atom in eqn.invars:
                if not isinstance(atom, Literal) and atom not in defined:
                    used[atom] = None
        if not kept:
            return
        effects = frozenset().union(*(eqn.effects for eqn in kept))
        inner = jaxpr.replace(
            constvars=[], invars=list(used), outvars=outvars, eqns=kept, effects=effects
        )
        outputs = []
        for var in outvars:
            scope[var] = self.slot(var.aval)
            outputs.append(scope[var])
        self.steps.append(pure(inner, tuple(scope[v] for v in used), tuple(outputs)))

    def body(self, closed: Any) -> Program:
        """A nested program; its draws are numbered on from ours."""
        program, self.draws = _Builder(self.prefix, self.draws).program(closed)
        return program

    def name(self) -> Path:
        self.draws += 1
        return (f"#{self.draws - 1}",)

    def effectful(self, eqn: Any, found: frozenset, scope: dict) -> None:
        """The step of an equation that holds randomness, choices or scores."""
        p = eqn.params
        inputs = tuple(self.read(scope, atom) for atom in eqn.invars)
        if eqn.primitive is prims.jit_p:
            outputs = self.splice(p["jaxpr"], inputs, self.prefix)
        elif eqn.primitive is call_p:
            outputs = self.splice(p["jaxpr"], inputs, self.prefix + p["address"])
        else:
            step = self.step(eqn, p, inputs, found)
            self.steps.append(step)
            outputs = step.outputs
        for var, number in zip(eqn.outvars, outputs, strict=True):
            scope[var] = number

    def step(self, eqn: Any, p: dict, inputs: tuple[int, ...], found: frozenset) -> Step:
        common: dict[str, Any] = {
            "inputs": inputs,
            "outputs": tuple(self.slot(v.aval) for v in eqn.outvars),
            "evaluate": evaluator(eqn),
            "source": p.get("source", "<unknown>"),
            "effects": frozenset(_LABEL[e] for e in found if e in _LABEL),
        }
        primitive = eqn.primitive
        if primitive in (draw_p, sample_p):
            self.check_constants(eqn, inputs)
        if primitive is draw_p:
            name = self.name()
            return Draw(**common, name=name, paths=frozenset({name}), spec=spec_of(eqn))
        if primitive is sample_p:
            path = self.prefix + p["address"]
            return Choice(**common, path=path, paths=frozenset({path}), spec=spec_of(eqn))
        if primitive is factor_p:
            return Factor(**common, path=self.prefix)
        common["name"] = self.name()
        if primitive is prims.cond_p:
            branches = tuple(self.body(b) for b in p["branches"])
            paths = frozenset().union(*(b.paths for b in branches))
            return Branch(**common, paths=paths, branches=branches)
        if primitive is prims.while_p:
            return self.while_loop(p, common)
        if primitive is prims.scan_p:
            constants, carries = scan_arity(p)
            body = self.body(p["jaxpr"])
            return Loop(
                **common,
                body=body,
                paths=body.paths,
                constants=constants,
                carries=carries,
                length=p["length"],
                reverse=p["reverse"],
                unroll=p["unroll"],
            )
        if primitive is map_p:
            body = self.body(p["jaxpr"])
            return Map(
                **common,
                body=body,
                paths=body.paths,
                in_axes=p["in_axes"],
                size=p["size"],
                axis_name=p["axis_name"],
            )
        if primitive is prims.remat_p:
            body = self.body(p["jaxpr"])
            policy, cse = p["policy"], p["prevent_cse"]
            return Remat(**common, body=body, paths=body.paths, policy=policy, prevent_cse=cse)
        if primitive in (prims.custom_jvp_call_p, prims.custom_vjp_call_p):
            body = self.body(p["call_jaxpr"])
            return Custom(**common, body=body, paths=body.paths)
        if primitive is prims.closed_call_p:
            body = self.body(p["call_jaxpr"])
            return Custom(**common, body=body, paths=body.paths)
        raise errors.UnsupportedControlFlow(
            f"Randomness inside `{primitive.name}`, which this library cannot interpret.",
            where=_inner_source(eqn),
            expected="vmap, scan, fori_loop, map, cond, switch, jit, checkpoint",
            fix="move the draw or choice out of it and pass the value in",
        )

    def check_constants(self, eqn: Any, inputs: tuple[int, ...]) -> None:
        """Check the parameters of a draw or choice that are constants of the program.

        Arrays made while tracing (`jnp.array(-1.0)`) are known only here.
        """
        known = [self.constants.get(i) for i in inputs]
        # a function inside a jitted one may close over traced arrays
        known = [None if isinstance(value, jax.core.Tracer) else value for value in known]
        if any(value is not None for value in known):
            leaves = [
                v.aval if value is None else np.asarray(value)
                for v, value in zip(eqn.invars, known, strict=True)
            ]
            path = eqn.params.get("address")
            name = f"sample({errors.show(path)}, ...)" if path else "draw"
            d = eqn.params["tree"].unflatten(leaves)
            check_parameters(d, eqn.params["source"], name)

    def while_loop(self, p: dict, common: dict) -> Step:
        if common["effects"] - {DRAW}:
            inner = [
                i for v in p.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr") for i in [v]
            ]
            raise errors.UnsupportedControlFlow(
                "A choice under `while_loop`: the number of choices would be unknown.",
                where=_first_choice([getattr(i, "jaxpr", i) for i in inner]),
                given="sample/factor inside jax.lax.while_loop (or fori_loop of traced length)",
                expected="a loop whose length is known before the program runs",
                fix="use jax.lax.scan or a static fori_loop with a flag that says which steps "
                "count; anonymous draw() is allowed inside while_loop",
            )
        return While(
            **common,
            test=self.body(p["cond_jaxpr"]),
            body=self.body(p["body_jaxpr"]),
            test_constants=p["cond_nconsts"],
            body_constants=p["body_nconsts"],
        )


def pure(inner: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Pure:
    """A `Pure` step that evaluates the closed-over-nothing jaxpr `inner`."""

    def narrow(needed: tuple[bool, ...]) -> Pure:
        small, used = partial_eval.dce_jaxpr(inner, list(needed))
        kept = tuple(o for o, need in zip(outputs, needed, strict=True) if need)
        return pure(small, tuple(i for i, u in zip(inputs, used, strict=True) if u), kept)

    return Pure(
        inputs=inputs,
        outputs=outputs,
        evaluate=lambda *args: jax.core.eval_jaxpr(inner, (), *args),
        reads=_reads(inner),
        narrow=narrow,
        counter=_counters(inner),
    )


def _reads(jaxpr: Any) -> tuple[frozenset[int], ...]:
    """For each output, the positions of the inputs that it depends on."""
    known = {var: frozenset({i}) for i, var in enumerate(jaxpr.invars)}
    nothing: frozenset[int] = frozenset()
    for eqn in jaxpr.eqns:
        read = nothing.union(
            *(known[a] for a in eqn.invars if not isinstance(a, Literal) and a in known)
        )
        for var in eqn.outvars:
            known[var] = read
    return tuple(
        nothing if isinstance(v, Literal) else known.get(v, nothing) for v in jaxpr.outvars
    )


def read_by(fn: Callable, *avals: Any) -> frozenset[int]:
    """The positions of the arguments that any result of `fn` depends on.

    >>> import jax.numpy as jnp
    >>> from ppl.staging import read_by
    >>> sorted(read_by(lambda a, b, c: a + c, jnp.ones(2), 1.0, 2.0))
    [0, 2]
    """
    return frozenset().union(*_reads(jax.make_jaxpr(fn)(*avals).jaxpr))


def _counters(jaxpr: Any) -> dict[int, tuple[int, Any]]:
    """Outputs that are `input + literal`: {output position: (input position, literal)}."""
    position = {var: i for i, var in enumerate(jaxpr.invars)}
    found = {}
    made = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    for o, out in enumerate(jaxpr.outvars):
        eqn = None if isinstance(out, Literal) else made.get(out)
        if eqn is None or eqn.primitive is not prims.add_p:
            continue
        left, right = eqn.invars
        if isinstance(left, Literal):
            left, right = right, left
        if not isinstance(left, Literal) and left in position and isinstance(right, Literal):
            found[o] = (position[left], literal(right))
    return found


def _needed(run: list, outvars: list) -> list:
    """The equations of `run` that `outvars` depend on, and those with effects."""
    live = set(outvars)
    kept = []
    for eqn in reversed(run):
        if eqn.effects or not live.isdisjoint(eqn.outvars):
            kept.append(eqn)
            live.update(a for a in eqn.invars if not isinstance(a, Literal))
    return kept[::-1]


def _last_uses(eqns: Sequence[Any], outvars: Sequence[Any]) -> dict:
    last = {}
    for i, eqn in enumerate(eqns):
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                last[atom] = i
    for atom in outvars:
        if not isinstance(atom, Literal):
            last[atom] = len(eqns)
    return last


def _unpromoted(eqns: Sequence[Any]) -> list:
    """`eqns`, where a draw or choice reads scalars that numpyro gave more axes of size 1.

    numpyro reshapes a scalar parameter beside an array, which costs an equation each
    way under differentiation; the densities and samplers of these kinds broadcast.
    """
    scalars: dict = {}
    found = []
    for eqn in eqns:
        if eqn.primitive is prims.reshape_p:
            (operand,), (out,) = eqn.invars, eqn.outvars
            if operand.aval.shape == () and out.aval.shape and out.aval.size == 1:
                scalars[out] = operand
        narrow = eqn.primitive in (draw_p, sample_p)
        if narrow and eqn.params["kind"] in distributions.SCALAR_PARAMETERS:
            invars = [a if isinstance(a, Literal) else scalars.get(a, a) for a in eqn.invars]
            eqn = eqn.replace(invars=invars)
        found.append(eqn)
    return found


def literal(atom: Any) -> Any:
    """The value of a literal, with its dtype kept (a Python scalar would be weak)."""
    if getattr(atom.aval, "weak_type", False):
        return atom.val.item() if hasattr(atom.val, "item") else atom.val
    return np.asarray(atom.val, atom.aval.dtype)


def _effects(eqn: Any) -> frozenset:
    found = frozenset({eqn.primitive}) if eqn.primitive in EFFECTS else frozenset()
    for inner in subprograms(eqn.params):
        found |= effects_of(inner)
    return found


def evaluator(eqn: Any) -> Callable[..., list]:
    """Run one equation as it is, its effects left to the surrounding interpreter."""

    def evaluate(*args):
        bind = eqn.primitive.get_bind_params(eqn.params)
        out = eqn.primitive.bind(*args, **bind)
        return list(out) if eqn.primitive.multiple_results else [out]

    return evaluate


def spec_of(eqn: Any) -> Spec:
    p = eqn.params
    return Spec(
        tree=p["tree"],
        shape=tuple(p["shape"]),
        dtype=p["dtype"],
        kind=p["kind"],
        support=p["support"],
        leaves=tuple(a.aval for a in eqn.invars),
        levels=p.get("levels", ()),
        strategy=p.get("strategy"),
    )


def scan_arity(p: dict) -> tuple[int, int]:
    """Numbers of constants and carries of a `scan` equation (JAX 0.12 groups them).

    >>> import jax, jax.numpy as jnp
    >>> from ppl.staging import scan_arity
    >>> loop = lambda a, x: jax.lax.scan(lambda c, x: (a * c, x), x, jnp.ones(3))
    >>> scan_arity(jax.make_jaxpr(loop)(1.0, 2.0).eqns[-1].params)
    (1, 1)
    """
    if "num_consts" in p:
        return p["num_consts"], p["num_carry"]
    constants, carries, _ = p["ft_in"].unpack()
    return len(constants), len(carries)


def first_draw(eqn: Any) -> str | None:
    """The place of a draw inside an equation; None where there is none."""
    if not any(draw_p in effects_of(inner) for inner in subprograms(eqn.params)):
        return None
    return _inner_source(eqn)


def _inner_source(eqn: Any) -> str:
    return _first_choice(subprograms(eqn.params))


def _first_choice(jaxprs: Sequence[Any]) -> str:
    for jaxpr in jaxprs:
        for eqn in jaxpr.eqns:
            if eqn.primitive in EFFECTS:
                name = eqn.params.get("address")
                source = eqn.params.get("source", "<unknown>")
                return f"{errors.show(name)} at {source}" if name else source
            inner = _first_choice(subprograms(eqn.params))
            if inner != "<unknown>":
                return inner
    return "<unknown>"
