"""Every JAX construct around choices, nested in every other: exact laws against plain Python.

Each construct is described once, as the pair of what it is in JAX and what it is as
a Python loop over a callback `choose`. A program is one construct inside another,
between two choices of its own; the Python form enumerates its paths without `ppl`.
Masses are sums of at most some thousand products of at most fourteen probabilities,
each in float64 with relative rounding error 1e-16: 1e-12 leaves room.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax

from ppl import gen, integrate, paths, sample
from ppl.addresses import flatten, nest

EXACT = 1e-12
SLOW = pytest.mark.slow  # each construct inside itself is tried in the quick tests
QUICK = {"xla_backend_optimization_level": 0}  # compiling is what takes the time here

# A state is one of 0, 1, 2; a body maps states to states and makes choices.


def heads(x: Any) -> Any:
    """The probability of heads in state x."""
    return 0.2 + 0.35 * x


def heads_beside(x: Any) -> Any:
    """The same, of choices beside the inmost body."""
    return 0.85 - 0.3 * x


def faces(x: Any) -> Any:
    """The probabilities of three values in state x."""
    return np.array([0.2, 0.5, 0.3]) + x * np.array([0.2, -0.15, -0.05])


def state(x: Any) -> Any:
    """A sum of states as a state; in JAX one operation (`%` would be many)."""
    return lax.rem(x, jnp.asarray(3, x.dtype)) if isinstance(x, jax.Array) else x % 3


def weighted(ys: Any) -> Any:
    """A number from the states of a batch that tells its elements apart."""
    return (ys * np.array([1, 2, 4])[: len(ys)]).sum()


class Construct(NamedTuple):
    """`in_jax(body, name, n)` and `in_python(body, name, n)` are the same map of states.

    `name` makes addresses of the construct's own unique; `n` is the length of a loop.
    A body of `in_python` is a function of `(state, choose)`.
    """

    in_jax: Callable
    in_python: Callable
    loops: bool = False


def vmap(body, name, n):
    return lambda x: weighted(jax.vmap(body)(state(x + np.arange(n))))


def batch(body, name, n):
    return lambda x, choose: weighted([body(state(x + i), at(choose, i, n)) for i in range(n)])


def mapped(body, name, n):
    return lambda x: weighted(lax.map(body, state(x + np.arange(n))))


def scan(body, name, n):
    def run(x):
        def step(carry, k):
            new = body(state(carry + k))
            return new, new + carry

        last, ys = lax.scan(step, x, np.arange(n))
        return last + weighted(ys)

    return run


def scan_in_python(body, name, n):
    def run(x, choose):
        ys = []
        for k in range(n):
            new = body(state(x + k), at(choose, k, n))
            ys.append(new + x)
            x = new
        return x + weighted(ys)

    return run


def fori_loop(body, name, n):
    return lambda x: lax.fori_loop(0, n, lambda i, carry: body(state(carry + i)), x)


def fori_loop_in_python(body, name, n):
    def run(x, choose):
        for i in range(n):
            x = body(state(x + i), at(choose, i, n))
        return x

    return run


def beside(name):
    return lambda x: x + 2 * sample(f"{name}_beside", dist.Bernoulli(heads_beside(x)))


def beside_in_python(name):
    return lambda x, choose: x + 2 * choose((f"{name}_beside",), coin(heads_beside(x)))


def cond(body, name, n):
    return lambda x: lax.cond(x == 1, beside(name), body, x)


def cond_in_python(body, name, n):
    return lambda x, choose: (beside_in_python(name) if x == 1 else body)(x, choose)


def switch(body, name, n):
    return lambda x: lax.switch(x, [body, lambda x: 2 * x, beside(name)], x)


def switch_in_python(body, name, n):
    branches = [body, lambda x, choose: 2 * x, beside_in_python(name)]
    return lambda x, choose: branches[x](x, choose)


def custom_jvp(body, name, n):
    f = jax.custom_jvp(body)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return f


def custom_vjp(body, name, n):
    f = jax.custom_vjp(body)
    f.defvjp(lambda x: (f(x), None), lambda _, g: (g,))
    return f


def sub(body, name, n):
    return lambda x: sample(f"{name}_sub", gen(body)(x))


def sub_in_python(body, name, n):
    return lambda x, choose: body(x, below(choose, f"{name}_sub"))


same = lambda body, name, n: body  # noqa: E731
CONSTRUCTS = {
    "vmap": Construct(vmap, batch, loops=True),
    "scan": Construct(scan, scan_in_python, loops=True),
    "cond": Construct(cond, cond_in_python),
    "switch": Construct(switch, switch_in_python),
    "map": Construct(mapped, batch, loops=True),
    "fori_loop": Construct(fori_loop, fori_loop_in_python, loops=True),
    "jit": Construct(lambda body, name, n: jax.jit(body), same),
    "checkpoint": Construct(lambda body, name, n: jax.checkpoint(body), same),
    "custom_jvp": Construct(custom_jvp, same),
    "custom_vjp": Construct(custom_vjp, same),
    "sub": Construct(sub, sub_in_python),
}


# -- the program of the first state, in both forms: outer(own choice, inner(leaf)) --------


def in_jax(outer: Construct, inner: Construct):
    """The program as a generative function.

    Choices have three values and loops three rounds, or two where loops multiply the paths.
    """
    both = outer.loops and inner.loops

    def leaf(x):
        d = dist.Bernoulli(heads(x)) if both else dist.Categorical(faces(x))
        return state(x + sample("leaf", d))

    nested = inner.in_jax(leaf, "inner", 2 if both else 3)

    def body(x):
        d = dist.Bernoulli(heads_beside(x)) if outer.loops else dist.Categorical(faces(x))
        return state(nested(state(x + sample("own", d))))

    whole = outer.in_jax(body, "outer", 3)
    return gen(lambda x: whole(x))


def in_python(outer: Construct, inner: Construct) -> Callable:
    """The same as a function of `(state, choose)`, with `choose(path, probabilities)`."""
    both = outer.loops and inner.loops

    def leaf(x, choose):
        return state(x + choose(("leaf",), coin(heads(x)) if both else faces(x)))

    nested = inner.in_python(leaf, "inner", 2 if both else 3)

    def body(x, choose):
        own = choose(("own",), coin(heads_beside(x)) if outer.loops else faces(x))
        return state(nested(state(x + own), choose))

    return outer.in_python(body, "outer", 3)


# -- enumeration in Python --------------------------------------------------------


def coin(p: float) -> tuple[float, float]:
    return 1 - p, p


def at(choose: Callable, i: int, n: int) -> Callable:
    """Choices of element `i` of `n`."""
    return lambda path, probs, index=(), shape=(): choose(path, probs, (i, *index), (n, *shape))


def below(choose: Callable, name: str) -> Callable:
    """Choices under a name."""
    return lambda path, probs, index=(), shape=(): choose((name, *path), probs, index, shape)


class Run(NamedTuple):
    values: dict[tuple[tuple[str, ...], tuple[int, ...]], int]
    log_probability: float
    retval: int


def enumerate_runs(program: Callable, shapes: dict) -> Iterator[Run]:
    """All runs of a program; `shapes` collects the shape of each path's values.

    A run repeats a prefix of outcomes and takes 0 after it; the last outcome that
    has a successor is then increased, as in an odometer.
    """
    prefix: list[int] = []
    while True:
        run, trail = one_run(program, prefix, shapes)
        yield run
        while trail and trail[-1][0] == trail[-1][1] - 1:
            trail.pop()
        if not trail:
            return
        prefix = [value for value, _ in trail]
        prefix[-1] += 1


def one_run(program: Callable, prefix: list[int], shapes: dict) -> tuple[Run, list]:
    """A run, and its outcomes with the numbers of outcomes there were."""
    values, logs, trail = {}, [], []

    def choose(path, probs, index=(), shape=()):
        value = prefix[len(trail)] if len(trail) < len(prefix) else 0
        assert (path, index) not in values
        assert shapes.setdefault(path, shape) == shape
        values[path, index] = value
        logs.append(math.log(probs[value]))
        trail.append((value, len(probs)))
        return value

    retval = program(choose)
    return Run(values, math.fsum(logs), retval), trail


class Table(NamedTuple):
    """All runs as arrays: one row a run; absent values are 0."""

    values: dict[tuple[str, ...], np.ndarray]
    present: dict[tuple[str, ...], np.ndarray]
    log_probability: np.ndarray
    retval: np.ndarray


def rows(values: dict, present: dict) -> list[bytes]:
    """One key a row: the values and presences of all choices."""
    columns = []
    for path in sorted(values):
        value = np.asarray(values[path])
        here = np.broadcast_to(present.get(path, True), value.shape)
        columns += [value.reshape(len(value), -1), here.reshape(len(value), -1)]
    return [row.tobytes() for row in np.ascontiguousarray(np.concatenate(columns, 1), np.int8)]


def tables_of(program: Callable) -> list[Table]:
    """The table of each first state, with the same paths and the same number of rows.

    A shorter table is filled up with its first run, of log probability -inf.
    """
    shapes: dict = {}
    runs = [list(enumerate_runs(functools.partial(program, x), shapes)) for x in range(3)]
    size = max(map(len, runs))
    return [_table(some, size, shapes) for some in runs]


def _table(runs: list[Run], size: int, shapes: dict) -> Table:
    filled = runs + [runs[0]._replace(log_probability=-math.inf)] * (size - len(runs))
    values = {path: np.zeros((size, *shape), int) for path, shape in shapes.items()}
    present = {path: np.zeros((size, *shape), bool) for path, shape in shapes.items()}
    for i, run in enumerate(filled):
        for (path, index), value in run.values.items():
            values[path][(i, *index)] = value
            present[path][(i, *index)] = True
    logs = np.array([run.log_probability for run in filled])
    return Table(values, present, logs, np.array([run.retval for run in filled]))


# -- the laws ---------------------------------------------------------------------


def most_probable(table: Table, path: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """The most probable value of all elements of a choice, and its mass.

    A value that is absent extends no constraint, so runs that lack an element do not
    count; if all do, the mass of any value is 0.
    """
    values, present = table.values[path], table.present[path]
    masses: dict[bytes, float] = {np.zeros(values.shape[1:], int).tobytes(): 0.0}
    for value, here, log in zip(values, present, table.log_probability, strict=True):
        if here.all():
            masses[value.tobytes()] = masses.get(value.tobytes(), 0.0) + math.exp(log)
    best = max(masses, key=lambda key: masses[key])
    return np.frombuffer(best, int).reshape(values.shape[1:]), masses[best]


def constrained_path(tables: list[Table]) -> tuple[str, ...]:
    """The leaf if all its elements can happen together, else the choice before it."""
    for name in ("leaf", "own"):
        path = next(path for path in tables[0].values if path[-1] == name)
        if any(most_probable(table, path)[1] > 0 for table in tables):
            return path
    raise AssertionError("no choice of the pair happens everywhere")


PAIRS = list(itertools.product(CONSTRUCTS, CONSTRUCTS))


CASES = [
    pytest.param(outer, inner, id=f"{outer}-{inner}", marks=() if outer == inner else SLOW)
    for outer, inner in PAIRS
]


@pytest.mark.parametrize(("outer", "inner"), CASES)
def test_pair_has_the_law_of_its_python_form(outer, inner):
    """simulate, assess, and generate given an inner choice, against enumeration."""
    model = in_jax(CONSTRUCTS[outer], CONSTRUCTS[inner])
    tables = tables_of(in_python(CONSTRUCTS[outer], CONSTRUCTS[inner]))
    path = constrained_path(tables)

    def simulated(x):
        trace = model.simulate(x)
        return flatten(trace.choices), flatten(trace.present), trace.score, trace.retval

    @functools.partial(jax.jit, compiler_options=QUICK)
    def methods(x, choices, value):
        return (
            paths(simulated)(x),
            jax.vmap(lambda given: model.assess(given, x))(nest(choices)),
            integrate(lambda x: jnp.exp(model.generate(nest({path: value}), x)[1]))(x),
        )

    for x, table in enumerate(tables):
        value, mass = most_probable(table, path)
        simulation, assessed, evidence = methods(x, table.values, value)
        check_simulate(table, *jax.tree.map(np.asarray, simulation))
        check_assess(table, *assessed)
        assert float(evidence) == pytest.approx(mass, abs=EXACT)


def check_simulate(table: Table, results: Any, weights: np.ndarray) -> None:
    """The masses, scores, presences and return values of all runs, and no others."""
    values, present, score, retval = results
    assert values.keys() == table.values.keys()
    size = np.isfinite(table.log_probability).sum()
    expected = {key: i for i, key in enumerate(rows(table.values, table.present)[:size])}
    assert len(expected) == size
    happened = np.flatnonzero(weights > 0)
    keys = rows(values, present)
    which = np.array([expected[keys[i]] for i in happened])
    masses = np.bincount(which, weights=weights[happened], minlength=len(table.retval))
    assert weights.sum() == pytest.approx(1.0, abs=EXACT)
    np.testing.assert_allclose(masses, np.exp(table.log_probability), rtol=0, atol=EXACT)
    np.testing.assert_allclose(score[happened], table.log_probability[which], rtol=0, atol=EXACT)
    np.testing.assert_array_equal(retval[happened], table.retval[which])


def check_assess(table: Table, score: Any, retval: Any) -> None:
    """The log probability and return value of each run."""
    log, real = table.log_probability, np.isfinite(table.log_probability)
    np.testing.assert_allclose(score[real], log[real], rtol=0, atol=EXACT)
    np.testing.assert_array_equal(retval[real], table.retval[real])
