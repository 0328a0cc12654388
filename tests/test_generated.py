"""The laws of the methods on generated programs, against enumeration in fractions.

The oracle is `semantics.generated.finite`: it enumerates a description, and shares no code with
`ppl`. Sums are of at most some thousand products of at most a dozen probabilities in
float64, each with relative rounding error 1e-16: 1e-12 leaves room. All that is
compiled is a function of the tables, so it compiles once for each static shape.
"""

import functools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings

from ppl import everything, integrate, paths, seed, select
from ppl.addresses import flatten, nest
from semantics.generated.finite import Program, sites, thawed
from semantics.generated.printing import Loop, compiled, inner, model_code
from semantics.generated.programs import LARGER, SHAPES, discrete, nested

EXACT = 1e-12
STARTS = 24  # from how many traces update and regenerate are tried
few = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# Compiling is what takes the time here.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


# -- the outcomes of a shape, as arrays ----------------------------------------------------


@functools.cache
def space(block):
    """All runs that a program of this shape can have, and the choices of each."""
    tables = tuple((info.name, ones(info.table)) for _, info in sites(block))
    full = Program(block, tables)
    runs = full.runs()
    return runs, [full.choices(run) for run in runs]


def ones(shape):
    return tuple(ones(shape[1:]) for _ in range(shape[0])) if shape else 1


def stack(maps):
    """Choice maps by path as one choice map with an axis in front."""
    return nest({path: np.stack([each[path] for each in maps]) for path in maps[0]})


def row(choices):
    """A choice map as one vector; a zero in front, so that that of none is not empty."""
    parts = [jnp.ravel(value) for _, value in sorted(flatten(choices).items())]
    return jnp.concatenate([jnp.zeros(1, int), *parts])


def key_of(vector):
    return tuple(vector.tolist())


# -- all methods at once, compiled once a shape ---------------------------------------------


@functools.cache
def methods(block):
    """A function of the tables and the observations: what each method makes of them."""
    model = compiled(model_code(block))
    found = dict(sites(block))
    choices = stack([flatten(thawed(each)) for each in space(block)[1]])
    codes = jax.vmap(row)(choices)
    certain = [path for path, info in found.items() if not info.conditional]
    moved = certain[:-1] or certain
    redrawn = select(*list(found)[: (len(found) + 1) // 2])

    def generated(tables, seen):
        trace, weight = model.generate(seen, tables)
        return jnp.exp(weight) * (codes == row(trace.choices)).all(1)

    def updated(trace, target):
        given = nest({path: flatten(target)[path] for path in moved})
        new, weight, discarded = model.update(trace, given)
        # all that the old trace had is in `new` or `discarded`: the key decides nothing
        back, undone, _ = seed(model.update)(jax.random.key(0), new, discarded)
        return {
            "row": row(new.choices),
            "score": new.score,
            "weight": weight,
            "same": (row(back.choices) == row(trace.choices)).all()
            & (row(back.present) == row(trace.present)).all(),
            "undone": undone,
            "back": back.score,
        }

    def regenerated(trace):
        new, weight, _ = model.regenerate(trace, redrawn)
        return {"row": row(new.choices), "weight": weight}

    @quick_jit
    def run(tables, seen):
        traces, weights = paths(lambda tables: model.simulate(tables))(tables)
        order = jnp.asarray(np.random.default_rng(0).permutation(len(weights)))
        picked = order[jnp.argsort(weights[order] <= 0, stable=True)[:STARTS]]
        starts = jax.tree.map(lambda leaf: leaf[picked], traces)
        targets = jax.tree.map(lambda leaf: jnp.roll(leaf, -1, 0), starts.choices)
        assessed = jax.vmap(lambda given: model.assess(given, tables))
        return {
            "simulate": (jax.vmap(row)(traces.choices), traces.score, traces.retval, weights),
            "assess": assessed(choices),
            "generate": integrate(generated)(tables, seen),
            "starts": (weights[picked], jax.vmap(row)(starts.choices)),
            "update": jax.vmap(lambda *each: paths(updated)(*each))(starts, targets),
            "regenerate": jax.vmap(lambda each: paths(regenerated)(each))(starts),
            "project": [
                jax.vmap(lambda trace, path=path: model.project(trace, select(path)))(starts)
                for path in found
            ],
        }

    return run, np.asarray(codes)


# -- the laws ------------------------------------------------------------------------------


def check_laws(program):
    """All six methods on one program."""
    run, codes = methods(program.block)
    result = jax.tree.map(np.asarray, run(*program.args, program.observed))
    runs, outcomes = space(program.block)
    prior = program.prior()
    exact = {key_of(code): float(prior[each]) for code, each in zip(codes, outcomes, strict=True)}
    returned = {key_of(code): each.result for code, each in zip(codes, runs, strict=True)}
    seen = dict(program.observations)
    fits = [seen.items() <= dict(outcome).items() for outcome in outcomes]
    check_simulate(exact, returned, *result["simulate"])
    check_assess(exact, returned, *result["assess"])
    evidence = np.where(fits, list(exact.values()), 0.0)
    np.testing.assert_allclose(result["generate"], evidence, rtol=0, atol=EXACT)
    assert program.posterior().mass == pytest.approx(evidence.sum(), abs=EXACT)
    weights, starts = result["starts"]
    real = np.flatnonzero(weights > 0)
    check_update(exact, starts, real, *result["update"])
    check_regenerate(exact, starts, real, *result["regenerate"])
    for start in real:
        total = sum(float(part[start]) for part in result["project"])
        assert total == pytest.approx(log(exact[key_of(starts[start])]), abs=EXACT)


def log(p):
    return math.log(p) if p else -math.inf


def check_simulate(exact, returned, rows, scores, retvals, weights):
    """simulate has the law exp(score), which is the program's, and its return value."""
    masses = dict.fromkeys(exact, 0.0)
    for i in np.flatnonzero(weights > 0):
        outcome = key_of(rows[i])
        masses[outcome] += weights[i]
        assert scores[i] == pytest.approx(log(exact[outcome]), abs=EXACT)
        assert retvals[i] == returned[outcome]
    assert masses == pytest.approx(exact, abs=EXACT)


def check_assess(exact, returned, scores, retvals):
    """assess is the log probability of every outcome, -inf of the impossible ones."""
    expected = [log(p) for p in exact.values()]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=EXACT)
    possible = np.isfinite(expected)
    wanted = np.array(list(returned.values()))
    np.testing.assert_array_equal(retvals[possible], wanted[possible])


def check_update(exact, starts, real, found, probabilities):
    """w = log p(t')/p(t) - log q(fresh), q the law of update; the discard undoes it with -w."""
    for start in real:
        before = log(exact[key_of(starts[start])])
        fresh = defaultdict(float)
        happened = np.flatnonzero(probabilities[start] > 0)
        for i in happened:
            fresh[key_of(found["row"][start, i])] += probabilities[start, i]
        for i in happened:
            outcome = key_of(found["row"][start, i])
            after = log(exact[outcome])
            assert found["score"][start, i] == pytest.approx(after, abs=EXACT)
            weight = after - before - log(fresh[outcome])
            assert found["weight"][start, i] == pytest.approx(weight, abs=EXACT)
            assert found["same"][start, i]
            if after > -math.inf:
                assert found["undone"][start, i] == pytest.approx(before - after, abs=EXACT)
                assert found["back"][start, i] == pytest.approx(before, abs=EXACT)


def check_regenerate(exact, starts, real, found, probabilities):
    """w = log p(t') K(t', t) / p(t) K(t, t'), K the law of regenerate."""
    kernel, weights = defaultdict(float), {}
    # two paths can start alike: both branches of a `cond` under `vmap` draw
    for a, start in {key_of(starts[start]): start for start in real}.items():
        for i in np.flatnonzero(probabilities[start] > 0):
            b = key_of(found["row"][start, i])
            kernel[a, b] += probabilities[start, i]
            weights[a, b] = found["weight"][start, i]
    for (a, b), forward in kernel.items():
        if exact[b] == 0:
            assert weights[a, b] == -math.inf
        elif (b, a) in kernel:
            ratio = log(exact[b]) + log(kernel[b, a]) - log(exact[a]) - log(forward)
            assert weights[a, b] == pytest.approx(ratio, abs=EXACT)
    assert all((a, a) in kernel for a, _ in kernel)  # so that something was compared


@pytest.mark.slow
@pytest.mark.parametrize("shape", [name for name in (SHAPES | LARGER) if name != "empty"])
def test_laws_of_a_shape(shape):
    @settings(few, max_examples=8)
    @given(discrete([shape]))
    def laws(program):
        check_laws(program)

    laws()


def test_laws_of_the_empty_program():
    """No choices: one outcome of probability one, which nothing changes."""
    program = find(discrete(["empty"]), lambda program: True)
    trace, weight = seed(program.model.generate)(jax.random.key(0), {}, *program.args)
    assert program.prior().weights == {(): 1}
    assert (trace.choices, float(trace.score), float(weight), int(trace.retval)) == ({}, 0, 0, 0)
    assert float(program.model.assess({}, *program.args)[0]) == 0
    for method, how in ((program.model.update, {}), (program.model.regenerate, select())):
        same, change, discarded = seed(method)(jax.random.key(0), trace, how)
        assert (same.choices, float(same.score), float(change), discarded) == ({}, 0, 0, {})
    assert float(program.model.project(trace, everything)) == 0


def depth(block):
    """How deep constructs nest."""
    within = [depth(body) for statement in block.statements for body in inner(statement)]
    return 1 + max(within) if within else 0


@pytest.mark.slow
@settings(few, max_examples=12)
@given(nested().filter(lambda program: depth(program.block) > 1))
def test_laws_of_nested_programs(program):
    check_laws(program)


# -- JAX's loops and Python's ----------------------------------------------------------------


@functools.cache
def both_forms(block):
    """The scores and results of all outcomes, with JAX's loops and with Python's."""
    runs, outcomes = space(block)
    rolled = compiled(model_code(block))
    unrolled = compiled(model_code(block, "python"))
    tables = {info.name: jnp.zeros(info.table) for _, info in sites(block)}
    absent = dict.fromkeys(unrolled.sites(tables), 0)
    taken = [{spot.unrolled: value for spot, value in run.values.items()} for run in runs]
    assert all(each.keys() <= absent.keys() for each in taken)
    together = stack([flatten(thawed(each)) for each in outcomes])
    apart = stack([absent | each for each in taken])

    @quick_jit
    def run(tables):
        return (
            jax.vmap(lambda each: rolled.assess(each, tables))(together),
            jax.vmap(lambda each: unrolled.assess(each, tables))(apart),
        )

    return run


def check_both_forms(program):
    (scores, results), (again, same) = both_forms(program.block)(*program.args)
    possible = np.isfinite(scores)
    assert possible.any()
    np.testing.assert_allclose(again, scores, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(same[possible], results[possible])


@settings(few, max_examples=10)
@given(discrete(["vmap", "scan"]))
def test_loops_of_jax_and_of_python_agree(program):
    check_both_forms(program)


def loops(block):
    """The number of loops in a block."""
    bodies = [body for statement in block.statements for body in inner(statement)]
    mine = sum(isinstance(statement, Loop) for statement in block.statements)
    return mine + sum(map(loops, bodies))


@pytest.mark.slow
@settings(few, max_examples=6)
@given(nested().filter(lambda program: loops(program.block) > 1))
def test_nested_loops_of_jax_and_of_python_agree(program):
    check_both_forms(program)
