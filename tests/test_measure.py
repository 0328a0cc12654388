"""Finite measures and kernels obey the laws of synthetic measure theory, exactly.

Weights are rational, so equality is `==`. Each law also runs on a fixed case with three
states and no symmetry: at two states every invariant kernel is reversible.
"""
# pyright: reportArgumentType=false, reportIndexIssue=false

import inspect
import math
import re
import sys
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semantics.measures import matrix, measure
from semantics.measures.matrix import InvalidKernel, Kernel, NotUnique
from semantics.measures.measure import InvalidMeasure, Measure, ZeroMass, dirac, uniform, zero

STATES = "abc"
ROUNDING = 2.0**-53  # the relative error of one float operation, and of one fsum


# A law holds for forty examples of its strategies, and always in the listed cases.
def law(strategies, *cases):
    def decorate(test):
        for each in cases:
            test = example(*each)(test)
        return settings(max_examples=40, deadline=None)(given(*strategies)(test))

    return decorate


weights = st.builds(Fraction, st.integers(0, 4), st.integers(1, 3))
functions = st.fixed_dictionaries({x: weights for x in STATES})
relabelings = st.fixed_dictionaries({x: st.sampled_from(STATES) for x in STATES})
measures = st.builds(Measure, st.dictionaries(st.sampled_from(STATES), weights))
mappings = st.fixed_dictionaries({x: measures for x in STATES})
subsets = st.sets(st.integers(0, 3), min_size=1)
positive = st.fixed_dictionaries({x: weights.filter(bool) for x in STATES})
floats = st.fixed_dictionaries({x: st.floats(2.0**-20, 1.0) for x in STATES})

MU = Measure({"a": Fraction(1, 6), "b": Fraction(1, 3), "c": Fraction(1, 2)})
NU = Measure({"a": Fraction(5, 2), "b": 1, "c": Fraction(1, 4)})
F = {"a": Fraction(2), "b": Fraction(0), "c": Fraction(7, 3)}
G = {"a": Fraction(1, 2), "b": Fraction(3), "c": Fraction(1)}
MERGE = {"a": "c", "b": "c", "c": "b"}
ROWS = {"a": MU, "b": NU, "c": Measure({"a": 3})}
MORE = {"a": dirac("b"), "b": Measure({"b": 2, "c": Fraction(1, 7)}), "c": NU}


def fractions(*rows):
    return [[Fraction(entry) for entry in row.split()] for row in rows]


SKEW = Kernel(STATES, fractions("1/2 1/3 1/6", "0 1/4 3/4", "4/5 1/5 0"))
CYCLE = Kernel(STATES, fractions("0 1 0", "0 0 1", "1 0 0"))
SWAP = Kernel(STATES, fractions("0 1 0", "1 0 0", "0 0 1"))
LEAVE = Kernel(STATES, fractions("1/2 1/4 1/4", "0 0 1", "0 1/3 2/3"))
THREE_OR_FOUR = Kernel(range(4), fractions("0 1 0 0", "0 0 1 0", "1/2 0 0 1/2", "1 0 0 0"))


@st.composite
def chains(draw, states=None):
    """Markov kernels on one to four states, with many zeros."""
    states = range(draw(st.integers(1, 4))) if states is None else states
    row = st.lists(st.sampled_from([0, 0, 1, 2, 5]), min_size=len(states), max_size=len(states))
    rows = {x: Measure(dict(zip(states, draw(row.filter(any)), strict=True))) for x in states}
    return Kernel.of(states, lambda x: rows[x].normalized())


def close(found, expected, roundings):
    """Every weight has a relative error of at most so many roundings."""
    assert expected.exact and found.support == expected.support
    assert found.exact == (not found.support)
    for x, w in expected.weights.items():
        assert abs(Fraction(found[x]) - w) <= roundings * Fraction(ROUNDING) * w


@law([measures, mappings, mappings], [MU, ROWS, MORE])
def test_monad(mu, k, h):
    assert mu.bind(dirac) == mu
    assert mu.bind(k).bind(h) == mu.bind(lambda x: k[x].bind(h))
    assert all(dirac(x).bind(k) == k[x] for x in STATES)


@law([measures, measures, functions, functions], [MU, NU, F, G])
def test_fubini(mu, nu, f, g):
    both = mu.product(nu)
    assert both == mu.bind(lambda x: nu.bind(lambda y: dirac((x, y))))
    assert both == nu.bind(lambda y: mu.bind(lambda x: dirac((x, y))))
    assert nu.product(mu).map(lambda p: p[::-1]) == both
    assert both.integrate(lambda p: f[p[0]] * g[p[1]]) == mu.integrate(f) * nu.integrate(g)
    assert both.map(lambda p: p[0]) == mu.scale(lambda _: nu.mass)


@law([measures, relabelings, relabelings, functions, functions], [MU, MERGE, MERGE, F, G])
def test_pushforward_and_density(mu, f, then, g, h):
    """Functoriality, Frobenius reciprocity, change of variables."""
    pushed = mu.map(f)
    assert pushed == mu.bind(lambda x: dirac(f[x]))
    assert all(pushed[y] == mu.restrict(lambda x, y=y: f[x] == y).mass for y in STATES)
    assert mu.map(lambda x: x) == mu and pushed.map(then) == mu.map(lambda x: then[f[x]])
    assert mu.scale(lambda x: g[f[x]]).map(f) == pushed.scale(g)
    assert pushed.integrate(g) == mu.integrate(lambda x: g[f[x]])
    assert mu.scale(g).integrate(h) == mu.integrate(lambda x: g[x] * h[x])
    assert mu.scale(g).scale(h) == mu.scale(lambda x: g[x] * h[x])


@law([measures, measures, mappings, functions], [MU, NU, ROWS, F])
def test_kock_integral(mu, nu, k, f):
    """Numbers are the measures on one point; integration is then `bind`, and is all of μ.

    M(X + Y) = M(X) x M(Y), and everything is linear.
    """
    assert mu.bind(lambda x: Measure({(): f[x]}))[()] == mu.integrate(f)
    assert mu.bind(k).integrate(f) == mu.integrate(lambda x: k[x].integrate(f))
    assert Measure({x: mu.integrate(lambda y, x=x: y == x) for x in STATES}) == mu
    assert mu.scale(f).bind(k) == mu.bind(lambda x: k[x].scale(lambda _: f[x]))
    assert mu.restrict(lambda x: x == "a") + mu.restrict(lambda x: x != "a") == mu
    assert mu + zero() == mu and mu + nu == nu + mu
    assert (mu + nu).bind(k) == mu.bind(k) + nu.bind(k)
    assert (mu + nu).integrate(f) == mu.integrate(f) + nu.integrate(f)


@law([measures, measures, functions, functions], [NU, MU, F, G])
def test_radon_nikodym(base, other, f, g):
    """Existence, uniqueness, the chain rule; and the value at fault when there is none."""
    middle = base.scale(f)
    top, density = middle.scale(g), middle.derivative(base)
    assert density == {x: f[x] for x in base.support}
    inner = top.derivative(middle)
    assert top.derivative(base) == {x: inner.get(x, 0) * density[x] for x in base.support}
    singular = set(other.support) - set(middle.support)
    if not singular:
        assert middle.scale(other.derivative(middle)) == other
    else:
        with pytest.raises(measure.NotAbsolutelyContinuous, match="reference has none") as caught:
            other.derivative(middle)
        assert caught.value.value in singular


@law([measures, measures, measures, chains(STATES)], [MU, NU, Measure({"b": 3}), SKEW])
def test_total_variation(mu, nu, other, kernel):
    """sup over all events; a metric; no kernel makes measures easier to tell apart."""
    distance = mu.total_variation(nu)
    events = [a for n in range(4) for a in combinations(STATES, n)]
    assert distance == max(abs(sum(mu[x] - nu[x] for x in a)) for a in events)
    assert distance == nu.total_variation(mu) and (distance == 0) == (mu == nu)
    assert distance <= mu.total_variation(other) + other.total_variation(nu)
    assert kernel.push(mu).total_variation(kernel.push(nu)) <= distance
    if mu.mass and nu.mass:
        p, q = mu.normalized(), nu.normalized()
        assert p.mass == 1 and 2 * p.total_variation(q) == sum(abs(p[x] - q[x]) for x in STATES)


def test_null_values_do_not_exist():
    half_known = Measure({"a": 1, "b": 0, "c": Fraction(0)})
    assert half_known == dirac("a") and hash(half_known) == hash(dirac("a"))
    assert half_known.integrate({"a": 5}) == 5  # not evaluated at "b"
    assert half_known.support == ("a",) and zero() == Measure({"a": 0.0})


def test_one_float_makes_floats():
    """Exactness is lost as a whole, never in part; exact inputs keep it."""
    exact, mixed = Measure({"a": Fraction(1, 3), "b": 1}), Measure({"a": Fraction(1, 3), "b": 1.0})
    assert exact.exact and not mixed.exact and dict(mixed.weights) == {"a": 1 / 3, "b": 1.0}
    assert not exact.bind({"a": exact, "b": mixed}).exact
    assert not exact.scale({"a": 1, "b": 0.0}).exact
    assert not exact.product(mixed).exact and not (exact + mixed).exact
    assert isinstance(exact.derivative(mixed)["a"], float)
    assert exact.integrate({"a": True, "b": np.int32(2)}) == Fraction(7, 3)
    assert exact.integrate({"a": 1, "b": np.float32(2)}) == 1 / 3 + 2
    assert Measure({"a": np.array(2)}).exact and dirac(1).integrate({1: math.inf}) == math.inf
    assert Measure.of([("a", 0.1)] * 10)["a"] == 1.0  # added one by one, they fall short


OPERATIONS = {
    "bind": lambda mu, nu: mu.bind(lambda x: nu if x == "a" else mu),
    "product": lambda mu, nu: mu.product(nu),
    "map": lambda mu, nu: mu.map(MERGE),
    "scale": lambda mu, nu: mu.scale(nu.weights),
    "normalized": lambda mu, nu: mu.normalized(),
    "derivative": lambda mu, nu: Measure(mu.derivative(nu)),
    "add": lambda mu, nu: mu + nu,
    "integrate": lambda mu, nu: dirac(()).scale(lambda _: mu.integrate(nu.weights)),
    "total_variation": lambda mu, nu: Measure({(): mu.total_variation(nu)}),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
@law([floats, floats])
def test_floats_agree_with_fractions(operation, first, second):
    """Two roundings (an operation, then fsum); 3 covers their second order terms."""
    exactly = [Measure({x: Fraction(w) for x, w in ws.items()}) for ws in (first, second)]
    close(operation(Measure(first), Measure(second)), operation(*exactly), 3)


MISTAKES = [  # of types too
    (lambda: Measure({"b": math.inf}), InvalidMeasure, "weight of 'b' is not finite", "b"),
    (lambda: Measure({"a": -1}), InvalidMeasure, "weight of 'a' is not", "a"),
    (lambda: Measure.of([("c", 2), ("c", -1)]), InvalidMeasure, "of 'c' is not finite", "c"),
    (lambda: MU.scale({**G, "b": -2}), InvalidMeasure, "'b' is not finite", "b"),
    (lambda: Measure({"a": math.nan}), InvalidMeasure, "not a real number", None),
    (lambda: Measure({"a": np.ones(2)}), InvalidMeasure, r"array\(\[1., 1.\]\)", None),
    (lambda: Measure({math.nan: 1}), InvalidMeasure, "does not equal itself", math.nan),
    (lambda: MU.map(lambda x: [x]), InvalidMeasure, "use tuples for arrays", ["a"]),
    (lambda: MU.bind({**ROWS, "b": 2}), InvalidMeasure, "at 'b' is not a measure", "b"),
    (lambda: Measure({1: 1, -1: 1}).integrate(lambda x: x * math.inf), InvalidMeasure, "sum", None),
    (lambda: zero().normalized(), ZeroMass, "cannot be normalized", None),
    (lambda: Kernel("", []), InvalidKernel, "a kernel needs states", None),
    (lambda: Kernel("aa", [[1, 0], [1, 0]]), InvalidKernel, "each listed once", None),
    (lambda: Kernel("ab", [[1], [1]]), InvalidKernel, r"expected: \(2, 2\)", None),
    (lambda: Kernel("ab", [[1], [0, 1]]), InvalidKernel, "different lengths", None),
    (lambda: Kernel("ab", [[1, 0], [2, -1]]), InvalidKernel, "row of 'b' has an entry", "b"),
    (lambda: Kernel("ab", [[1, 0], [0.5, 0.4]]), InvalidKernel, "'b' does not add up", "b"),
    (lambda: Kernel.of("ab", MORE.get), InvalidKernel, "leaves the states", "c"),
    (lambda: SKEW.push(dirac("z")), InvalidKernel, "'z' is not a state", "z"),
    (lambda: SKEW.then(Kernel.identity("acb")), InvalidKernel, "different order", None),
    (lambda: Kernel.mixture([SKEW], [0.5, 0.5]), InvalidKernel, "expected: 1 numbers", None),
    (lambda: Kernel.mixture([SKEW, SKEW], [2, -1]), InvalidKernel, "expected: 2 numbers", None),
    (lambda: SKEW.is_irreducible(zero()), ZeroMass, "names no states", None),
    (lambda: Kernel("a", [[1]], markov=False).stationary(), InvalidKernel, "only a Markov", None),
    (lambda: Kernel.identity("ab").stationary(), NotUnique, "'a' and 'b' lie", "b"),
]


@pytest.mark.parametrize("call, error, message, value", MISTAKES, ids=[m[2] for m in MISTAKES])
def test_errors(call, error, message, value):
    with pytest.raises(error, match=message) as caught:
        call()
    assert repr(caught.value.value) == repr(value)


@law([measures, chains(STATES), chains(STATES), chains(STATES)], [NU, SKEW, CYCLE, LEAVE])
def test_matrices_are_kernels(pi, k, h, m):
    """Rows, push, joint, composition, mixture are those of the monad; a category."""
    assert Kernel.of(STATES, k) == k
    assert k.push(pi) == pi.bind(k)
    assert k.joint(pi) == pi.bind(lambda x: k(x).map(lambda y: (x, y)))
    assert [k.joint(pi).map(lambda p, i=i: p[i]) for i in (0, 1)] == [pi, k.push(pi)]
    assert k.then(h).then(m) == k.then(h.then(m))
    assert Kernel.identity(STATES).then(k) == k == k.then(Kernel.identity(STATES))
    mixed = Kernel.mixture([k, h], [Fraction(1, 5), Fraction(4, 5)])
    for x in STATES:
        assert k.then(h)(x) == k(x).bind(h)
        assert mixed(x) == Measure.of([(k(x), 1), (h(x), 4)]).normalized().bind(lambda row: row)


@law([measures, chains(STATES), chains(STATES)], [NU, SKEW, CYCLE])
def test_reverse(pi, k, h):
    """The same joint law from the other end; an involution; it reverses composition."""
    after, back = k.push(pi), k.reverse(pi)
    assert back.joint(after).map(lambda p: p[::-1]) == k.joint(pi)
    assert all(back.reverse(after)(x) == k(x) for x in pi.support)
    assert all(back(y) == dirac(y) for y in STATES if not after[y])
    both, steps = k.then(h).reverse(pi), h.reverse(after).then(back)
    assert all(both(z) == steps(z) for z in h.push(after).support)


@law([measures, chains(STATES)], [uniform(STATES), CYCLE], [MU, SWAP], [Measure({"c": 1}), SWAP])
def test_detailed_balance(pi, k):
    """It holds iff π is invariant and the chain is its own reverse.

    The second alone does not do: a swap of two states undoes itself from any π.
    """
    itself = all(k.reverse(pi)(x) == k(x) for x in pi.support)
    assert k.is_reversible(pi) == (k.is_invariant(pi) and itself)
    assert (k.invariance_error(pi) == 0) == (pi.bind(k) == pi)
    expected = max(abs(pi[x] * k(x)[y] - pi[y] * k(y)[x]) for x, y in product(STATES, STATES))
    assert k.reversibility_error(pi) == expected


def metropolis(pi, q, ratio):
    def step(x):
        moves = [(y, w * min(Fraction(1), ratio(x, y))) for y, w in q(x).weights.items()]
        return Measure.of([*moves, (x, 1 - sum(w for _, w in moves))])

    return Kernel.of(q.states, step)


@law([positive, chains(STATES)], [dict(MU.weights), SKEW])
def test_metropolis_is_reversible(target, q):
    pi = Measure(target)
    k = metropolis(pi, q, lambda x, y: pi[y] * q(y)[x] / (pi[x] * q(x)[y]))
    assert k.is_reversible(pi) and k.is_invariant(pi)
    assert Kernel.mixture([k, k.then(k)], [Fraction(1, 3), Fraction(2, 3)]).is_invariant(pi)
    if k.is_irreducible():
        assert k.stationary() == pi.normalized()


def test_metropolis_without_the_proposal_ratio_is_caught():
    k = metropolis(MU, SKEW, lambda x, y: MU[y] / MU[x])
    # By hand: a keeps 1/6 * 1/2, and gets 1/2 * 4/5 * 1/3 from c: 13/60 against 1/6.
    assert k.push(MU)["a"] - MU["a"] == Fraction(1, 20)
    assert k.invariance_error(MU) >= Fraction(1, 20)
    assert k.reversibility_error(MU) > 0


def powers(kernel, n):
    """possible[t - 1][i, j]: whether t steps can lead from i to j, for t = 1, ..., n."""
    step = (kernel.rows > 0).astype(int)
    return [np.linalg.matrix_power(step, t) > 0 for t in range(1, n + 1)]


@law([chains(), subsets], [LEAVE, {1, 2}], [SWAP, {0, 1}], [THREE_OR_FOUR, {1}])
def test_graph_against_powers(k, chosen):
    """A cycle is met within n steps, and a return with and without it within 3 n."""
    n = len(k.states)
    possible = powers(k, 3 * n)
    reach = np.any(possible, axis=0)
    periods = [math.gcd(*(t for t, p in enumerate(possible, 1) if p[i, i])) for i in range(n)]
    assert k.is_irreducible() == reach.all() and [k.period(x) for x in k.states] == periods
    assert k.is_aperiodic() == all(p == 1 for p in periods)
    some = {i % n for i in chosen}
    on = Measure({k.states[i]: 1 for i in some})
    assert k.is_irreducible(on) == all(reach[i, j] for i in some for j in some)
    assert k.is_aperiodic(on) == all(periods[i] == 1 for i in some)


@law([chains()], [SKEW], [LEAVE], [SWAP])
def test_stationary(k):
    """It is invariant, and refused iff some states never meet a common state."""
    n = len(k.states)
    reach = np.any([np.eye(n, dtype=bool), *powers(k, n)], axis=0)
    if all((reach[i] & reach[j]).any() for i in range(n) for j in range(n)):
        pi = k.stationary()
        assert pi.exact and pi.mass == 1 and pi.bind(k) == pi
    else:
        with pytest.raises(NotUnique):
            k.stationary()


@law([positive, chains(STATES)], [dict(MU.weights), SKEW])
def test_float_matrices_agree_with_fractions(target, k):
    """Nonnegative terms only, so the roundings along the longest path add up.

    With one for each input: joint 3, push 5 (two sums), reverse 3 + 5 + 1. Elimination at
    n = 3: 7 for the 2 x 2 remainder, 21 for the last weight, 44 normalized.
    """
    pi, x = Measure(target), Kernel(STATES, k.rows.astype(float))
    close(x.joint(pi), k.joint(pi), 4)
    close(x.push(pi), k.push(pi), 6)
    for state in STATES:
        close(x.then(x)(state), k.then(k)(state), 6)
        if k.push(pi)[state]:
            close(x.reverse(pi)(state), k.reverse(pi)(state), 10)
    assert x.is_invariant(pi, 8 * ROUNDING * float(pi.mass)) == k.is_invariant(pi)
    if k.is_irreducible():
        close(x.stationary(), k.stationary(), 45)


def test_stationary_by_hand():
    # a = a/2 + 4c/5, b = a/3 + b/4 + c/5, so a : b : c = 24 : 44/3 : 15 = 72 : 44 : 45.
    assert SKEW.stationary() == Measure({"a": 72, "b": 44, "c": 45}).normalized()
    # Rare steps keep their digits, as nothing is subtracted.
    e = Fraction(1, 2**40)
    k = Kernel(STATES, [[1 - e * e, e * e, 0], [0, 1 - e, e], [Fraction(1, 2), 0, Fraction(1, 2)]])
    expected = Measure({"a": 1 / e**2, "b": 1 / e, "c": 2}).normalized()
    assert k.stationary() == expected
    close(Kernel(STATES, k.rows.astype(float)).stationary(), expected, 45)


def test_rows_that_are_not_probabilities():
    """Substochastic rows are allowed when stated; float rows may miss one by 1e-10."""
    loses = Kernel("ab", [[Fraction(1, 2), 0], [0, 3]], markov=False)
    assert loses.push(uniform("ab")) == Measure({"a": Fraction(1, 4), "b": Fraction(3, 2)})
    assert not loses.then(Kernel.identity("ab")).markov
    assert loses.reverse(uniform("ab")) == Kernel.identity("ab")
    ends = Kernel("a", [[0]], markov=False)
    assert not ends.is_irreducible() and ends.period("a") == 0
    assert Kernel("a", [[1 - 5e-11]])("a")["a"] == 1 - 5e-11
    for short in (1 - 2e-10, 1 - Fraction(1, 10**30)):
        with pytest.raises(InvalidKernel, match="does not add up"):
            Kernel("a", [[short]])


def test_records_are_frozen():
    weights, rows = {"a": 1}, np.eye(3)
    mu, k = Measure(weights), Kernel(STATES, rows)
    weights["a"] = rows[0, 0] = 2
    assert mu == dirac("a") and {k} == {Kernel.identity(STATES)}
    with pytest.raises(TypeError, match="does not support item assignment"):
        mu.weights["a"] = 2
    with pytest.raises(ValueError, match="read-only"):
        k.rows[0, 0] = 0


@pytest.mark.parametrize("module", [measure, matrix], ids=["measure", "matrix"])
def test_oracle_shares_no_code(module):
    """It imports the standard library, numpy and itself, nothing of what it judges."""
    names = re.findall(r"^\s*(?:from|import) ([\w.]+)", inspect.getsource(module), re.MULTILINE)
    assert {"math", "fractions"} <= set(names)
    assert {each.split(".")[0] for each in set(names) - {".measure"}} <= sys.stdlib_module_names | {
        "numpy"
    }
