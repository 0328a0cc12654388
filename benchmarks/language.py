"""What the language costs against hand-written JAX.

    python -m benchmarks.language [--quick] [--json]

Every hand-written program computes the same values (checked before anything is
timed): direct formulas for densities, one `jax.random.normal` per vector.

Longer than 400 lines because each item stands beside its hand-written twin.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from ppl import At, Trace, draw, gen, integrate, sample, seed

from .measure import Figure, best, equations, first_call, flops, medians, stages
from .report import report

HAND = "hand-written JAX"
C = 0.5 * math.log(2 * math.pi)
KEY = jax.random.key(0)
EQUATIONS, TIME = 1.02, 1.05


# -- the hand-written densities --------------------------------------------------------


def normal(v, loc, scale):
    """Normal log density; the logarithm of a known scale is known."""
    z = (v - loc) / scale
    log = math.log(scale) if isinstance(scale, float) else jnp.log(scale)
    return -0.5 * z * z - (log + C)


def half_normal(v, scale):
    return jnp.where(v >= 0, normal(v, 0.0, scale) + math.log(2), -jnp.inf)


def half_cauchy(v, scale):
    z = v / scale
    return jnp.where(v >= 0, math.log(2 / (math.pi * scale)) - jnp.log1p(z * z), -jnp.inf)


# -- models, with their hand-written simulate, assess and generate ---------------------


@dataclass(frozen=True)
class Case:
    """A model and its hand-written double.

    `simulate(key, *args)` and `generate(key, y, *args)` return choices and density
    (and weight); `density(choices, *args)` the log density; `site` is what `update`
    changes, and `ratio(choices, value, *args)` the log density ratio of that change, where
    it does not take all of the density. `aligned`: the hand-written draws are our numbers.
    """

    name: str
    model: Any
    args: tuple
    simulate: Callable
    density: Callable
    generate: Callable
    site: str
    particles: int
    aligned: bool = True
    ratio: Callable | None = None


@gen
def _regression(x):
    slope = sample("slope", dist.Normal(0.0, 10.0))
    intercept = sample("intercept", dist.Normal(0.0, 10.0))
    sigma = sample("sigma", dist.HalfNormal(1.0))
    return sample("y", dist.Normal(intercept + slope * x, sigma).to_event(1))


def regression(rows: int, particles: int) -> Case:
    """Bayesian linear regression, one predictor."""
    x = jnp.linspace(-1.0, 1.0, rows)

    def likelihood(c, x):
        return normal(c["y"], c["intercept"] + c["slope"] * x, c["sigma"]).sum()

    def prior(c):
        return (
            normal(c["slope"], 0.0, 10.0)
            + normal(c["intercept"], 0.0, 10.0)
            + half_normal(c["sigma"], 1.0)
        )

    def density(c, x):
        return prior(c) + likelihood(c, x)

    def parameters(e):
        return {"slope": 10 * e[0], "intercept": 10 * e[1], "sigma": jnp.abs(e[2])}

    def simulate(key, x):
        e = jax.random.normal(key, (3 + rows,))
        c = parameters(e)
        c["y"] = c["intercept"] + c["slope"] * x + c["sigma"] * e[3:]
        return c, density(c, x)

    def generate(key, y, x):
        c = {**parameters(jax.random.normal(key, (3,))), "y": y}
        weight = likelihood(c, x)
        return c, prior(c) + weight, weight

    name = f"regression, {rows} rows"
    return Case(name, _regression, (x,), simulate, density, generate, "slope", particles)


@gen
def _schools(sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))
    theta = sample("theta", dist.Normal(mu, tau).expand([8]).to_event(1))
    return sample("y", dist.Normal(theta, sigma).to_event(1))


def schools(particles: int) -> Case:
    """Eight schools, the effects as one vector."""
    sigma = jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])

    def likelihood(c, sigma):
        return normal(c["y"], c["theta"], sigma).sum()

    def prior(c):
        effects = normal(c["theta"], c["mu"], c["tau"]).sum()
        return normal(c["mu"], 0.0, 5.0) + half_cauchy(c["tau"], 5.0) + effects

    def density(c, sigma):
        return prior(c) + likelihood(c, sigma)

    def parameters(e, u):
        mu, tau = 5 * e[0], 5 * jnp.tan(0.5 * jnp.pi * u)
        return {"mu": mu, "tau": tau, "theta": mu + tau * e[1:9]}

    def simulate(key, sigma):
        keys = jax.random.split(key)
        e, u = jax.random.normal(keys[0], (17,)), jax.random.uniform(keys[1])
        c = parameters(e, u)
        c["y"] = c["theta"] + sigma * e[9:]
        return c, density(c, sigma)

    def generate(key, y, sigma):
        keys = jax.random.split(key)
        e, u = jax.random.normal(keys[0], (9,)), jax.random.uniform(keys[1])
        c = {**parameters(e, u), "y": y}
        weight = likelihood(c, sigma)
        return c, prior(c) + weight, weight

    return Case("8 schools", _schools, (sigma,), simulate, density, generate, "mu", particles)


@gen(static_argnames=("n",))
def _chain(n, first):
    def step(z, _):
        z = sample("z", dist.Normal(0.9 * z, 0.5))
        y = sample("y", dist.Normal(z, 1.0))
        return z, y

    z0 = sample("z0", dist.Normal(first, 1.0))
    return jax.lax.scan(step, z0, None, length=n)[1]


def chain(n: int, particles: int, vectorised: bool = False) -> Case:
    """A linear Gaussian state-space model; its density with a scan, or without."""

    def by_scan(c, _, first):
        def step(carry, zy):
            z, total, weight = carry
            new, y = zy
            term = normal(y, new, 1.0)
            return (new, total + normal(new, 0.9 * z, 0.5), weight + term), None

        start = (c["z0"], normal(c["z0"], first, 1.0), 0.0)
        return jax.lax.scan(step, start, (c["z"], c["y"]))[0][1:]

    def at_once(c, _, first):
        before = jnp.concatenate([c["z0"][None], c["z"][:-1]])
        total = normal(c["z0"], first, 1.0) + normal(c["z"], 0.9 * before, 0.5).sum()
        return total, normal(c["y"], c["z"], 1.0).sum()

    parts = at_once if vectorised else by_scan

    def density(c, n, first):
        total, weight = parts(c, n, first)
        return total + weight

    def states(first, e):
        z0 = first + e[0]

        def step(z, e):
            z = 0.9 * z + 0.5 * e
            return z, z

        return z0, jax.lax.scan(step, z0, e[1:])[1]

    def simulate(key, n, first):
        e = jax.random.normal(key, (2 * n + 1,))
        z0, z = states(first, e[: n + 1])
        c = {"z0": z0, "z": z, "y": z + e[n + 1 :]}
        total, weight = at_once(c, n, first)
        return c, total + weight

    def generate(key, y, n, first):
        e = jax.random.normal(key, (n + 1,))
        z0 = first + e[0]

        def step(carry, given):
            (z, total, weight), (e, y) = carry, given
            new = 0.9 * z + 0.5 * e
            total = total + normal(new, 0.9 * z, 0.5)
            return (new, total, weight + normal(y, new, 1.0)), new

        start = (z0, normal(z0, first, 1.0), 0.0)
        (_, total, weight), z = jax.lax.scan(step, start, (e[1:], y))
        return {"z0": z0, "z": z, "y": y}, total + weight, weight

    def ratio(c, value, n, first):
        def terms(z0):
            return normal(z0, first, 1.0) + normal(c["z"][0], 0.9 * z0, 0.5)

        return terms(value) - terms(c["z0"])

    name, args = f"state space, {n} steps", (n, jnp.float32(0.3))
    return Case(name, _chain, args, simulate, density, generate, "z0", particles, False, ratio)


# -- the methods against the hand-written programs --------------------------------------


def close(a: Any, b: Any, what: str, scale: Any = 1.0) -> None:
    """Assert that two results agree; `scale` is the size of what cancelled in them."""
    atol = 2e-4 + 2e-6 * float(np.abs(scale))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=atol, err_msg=what)


def compare(
    name: str, ours: Callable, hand: Callable, args: tuple, against: str = HAND, quick: bool = False
) -> Iterator[Figure]:
    """Equations, FLOPs and time of two functions of the same arguments."""
    yield Figure(
        name, against, "equations", equations(ours, *args), equations(hand, *args), EQUATIONS
    )
    yield Figure(name, against, "FLOPs", flops(ours, *args), flops(hand, *args), EQUATIONS)
    a, b = jax.jit(ours), jax.jit(hand)
    seconds = 0.3 if quick else 1.0
    mine, theirs = medians(lambda: a(*args), lambda: b(*args), repeats=25, seconds=seconds)
    yield Figure(name, against, "ms", 1e3 * mine, 1e3 * theirs, TIME)


def plain(trace: Trace) -> tuple:
    """What a hand-written program returns."""
    return trace.choices, trace.score


def methods(case: Case, quick: bool) -> Iterator[Figure]:
    """simulate, assess, its gradient, generate over particles, update of one site."""
    model, name = case.model, case.name
    static = tuple(a for a in case.args if isinstance(a, int))
    args = tuple(a for a in case.args if not isinstance(a, int))

    def simulate(key, *a):
        return plain(seed(lambda *a: model.simulate(*static, *a))(key, *a))

    def by_hand(key, *a):
        return case.simulate(key, *static, *a)

    ours, theirs = jax.jit(simulate)(KEY, *args), jax.jit(by_hand)(KEY, *args)
    for choices, score in (ours, theirs):
        close(score, case.density(choices, *case.args), f"{name}: simulate")
    if case.aligned:
        close(ours, theirs, f"{name}: simulate")
    yield from compare(f"{name}: simulate", simulate, by_hand, (KEY, *args), quick=quick)

    choices = theirs[0]

    def density(c, *a):
        return case.density(c, *static, *a)

    def assess(c, *a):
        return model.assess(c, *static, *a)[0]

    close(assess(choices, *args), density(choices, *args), f"{name}: assess")
    yield from compare(f"{name}: assess", assess, density, (choices, *args), quick=quick)
    slope, of_hand = jax.grad(assess), jax.grad(density)
    close(slope(choices, *args), of_hand(choices, *args), f"{name}: gradient")
    yield from compare(f"{name}: grad of assess", slope, of_hand, (choices, *args), quick=quick)

    def update(trace, value):
        new, weight, _ = model.update(trace, {case.site: value})
        return new.choices, new.score, weight

    def updated(trace, value):
        c = {**trace.choices, case.site: value}
        if case.ratio is not None:
            weight = case.ratio(trace.choices, value, *trace.args)
            return c, trace.score + weight, weight
        score = case.density(c, *trace.args)
        return c, score, score - trace.score

    trace = jax.jit(seed(lambda *a: model.simulate(*static, *a)))(KEY, *args)
    close(update(trace, 0.7), updated(trace, 0.7), f"{name}: update", trace.score)
    yield from compare(
        f"{name}: update {case.site}", update, updated, (trace, jnp.float32(0.7)), quick=quick
    )
    yield from particles(case, choices["y"], static, args, quick)


def particles(case: Case, y: Any, static: tuple, args: tuple, quick: bool) -> Iterator[Figure]:
    """generate under vmap."""
    n = case.particles // 10 if quick else case.particles
    name = f"{case.name}: generate, {n} particles"
    keys = jax.random.split(KEY, n)

    def generate(keys, y, *a):
        def one(key):
            run = seed(lambda y, *a: case.model.generate({"y": y}, *static, *a))
            trace, weight = run(key, y, *a)
            return *plain(trace), weight

        return jax.vmap(one)(keys)

    def by_hand(keys, y, *a):
        return jax.vmap(lambda key: case.generate(key, y, *static, *a))(keys)

    few = keys[:3]
    ours, theirs = generate(few, y, *args), by_hand(few, y, *args)
    if case.aligned:
        close(ours, theirs, name)
    else:
        for c, score, _ in (ours, theirs):
            density = jax.vmap(lambda c: case.density(c, *static, *args))(c)
            close(score, density, name)
    yield from compare(name, generate, by_hand, (keys, y, *args), quick=quick)


# -- unrolled addresses -----------------------------------------------------------------


def unrolled(n: int) -> tuple[Any, Callable]:
    """A new model with `n` addresses, and the hand-written program."""

    @gen
    def model(x):
        for i in range(n):
            x = sample(f"x{i}", dist.Normal(0.5 * x, 1.0 + 0.01 * i))
        return x

    def simulate(key, x):
        e = jax.random.normal(key, (n,))
        choices, score = {}, 0.0
        for i in range(n):
            loc, scale = 0.5 * x, 1.0 + 0.01 * i
            x = choices[f"x{i}"] = loc + scale * e[i]
            score += normal(x, loc, scale)
        return choices, score

    return model, simulate


def _ours(model: Any) -> Callable:
    return lambda key, x: plain(seed(model.simulate)(key, x))


def addresses(quick: bool) -> Iterator[Figure]:
    """Cost of tracing and compiling unrolled addresses, and of the first call."""
    x = jnp.float32(0.1)
    for n in (5, 6):  # what JAX and numpyro do only once
        model, hand = unrolled(n)
        close(jax.jit(_ours(model))(KEY, x), jax.jit(hand)(KEY, x), "unrolled")
    for n in (10, 100) if quick else (10, 100, 300):
        times, firsts = [], []
        for _ in range(2 if n < 300 else 1):
            model, hand = unrolled(n)
            times.append((stages(_ours(model), KEY, x), stages(hand, KEY, x)))
            model, hand = unrolled(n)
            firsts.append((first_call(_ours(model), KEY, x), first_call(hand, KEY, x)))
        name = f"unrolled, {n} addresses"
        for i, stage in enumerate(("trace", "lower", "compile")):
            mine, theirs = (min(t[side][i] for t in times) for side in (0, 1))
            yield Figure(f"{name}: {stage}", HAND, "s", mine, theirs)
            if stage == "trace":
                each = 1e3 * mine / n, 1e3 * theirs / n
                yield Figure(f"{name}: trace", HAND, "ms/address", *each, 2.5, absolute=True)
        mine, theirs = (min(f[side] for f in firsts) for side in (0, 1))
        goal = 2.0 if n == 100 else None
        yield Figure(f"{name}: first jitted call", HAND, "s", mine, theirs, goal)
        model, hand = unrolled(n)
        f, args = _ours(model), (KEY, x)
        both = equations(f, *args), equations(hand, *args)
        yield Figure(f"{name}: simulate", HAND, "equations", *both, EQUATIONS)


def boundary(quick: bool) -> Iterator[Figure]:
    """A warm jitted call with a trace in and out, against a dict of the same arrays."""
    x = jnp.float32(0.1)
    for n in (10, 100):
        model, _ = unrolled(n)
        trace = jax.jit(seed(model.simulate))(KEY, x)
        table = {
            "arguments": trace.args,
            "choices": trace.choices,
            "score": trace.score,
            "retval": trace.retval,
        }
        f = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t))
        g = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t))
        close(f(trace).choices, g(table)["choices"], "boundary")
        mine, theirs = medians(
            lambda f=f, t=trace: f(t), lambda g=g, t=table: g(t), repeats=50, seconds=1.0
        )
        name = f"jitted call with a trace, {n} addresses"
        yield Figure(name, "plain dicts", "µs", 1e6 * mine, 1e6 * theirs, 2.0)


def eager(quick: bool) -> Iterator[Figure]:
    """simulate without jit, warm."""
    for case in (regression(10, 0), schools(0)):
        mine, theirs = medians(
            lambda c=case: plain(seed(c.model.simulate)(KEY, *c.args)),
            lambda c=case: c.simulate(KEY, *c.args),
            seconds=1.0,
        )
        yield Figure(f"{case.name}: eager simulate", HAND, "ms", 1e3 * mine, 1e3 * theirs)


# -- one site of a long scan --------------------------------------------------------------


@gen(static_argnames=("n",))
def _tail(n, first):
    z = jax.lax.scan(
        lambda z, _: (sample("z", dist.Normal(0.9 * z, 0.5)),) * 2, first, None, length=n
    )[0]
    return sample("end", dist.Normal(z, 1.0))


def long(quick: bool) -> Iterator[Figure]:
    """Update of one site of a scan with 5000 steps, against one with 100."""

    def step(trace, i, value):
        new, weight, _ = _tail.update(trace, {"z": At(i, value)})
        return new, weight

    def end(trace, i, value):
        new, weight, _ = _tail.update(trace, {"end": value})
        return new, weight

    def step_by_hand(trace, i, value):
        """The three terms that change; O(1) but for the copy of the trace."""
        z, first = trace.choices["z"], trace.args[1]
        before = jnp.where(i > 0, z[i - 1], first)

        def terms(v):
            return normal(v, 0.9 * before, 0.5) + normal(z[i + 1], 0.9 * v, 0.5)

        weight = terms(value) - terms(z[i])
        return z.at[i].set(value), trace.score + weight, weight

    def end_by_hand(trace, i, value):
        z = trace.choices["z"][-1]
        weight = normal(value, z, 1.0) - normal(trace["end"], z, 1.0)
        return trace.choices["z"], trace.score + weight, weight

    rows = {
        "one step inside the scan": (step, step_by_hand),
        "the choice after the scan": (end, end_by_hand),
    }
    for what, (ours, hand) in rows.items():
        runs = []
        for n in (5000, 100):
            trace = jax.jit(seed(lambda a, n=n: _tail.simulate(n, a)))(KEY, jnp.float32(0.1))
            args = (trace, jnp.int32(50), jnp.float32(0.2))
            f, g = jax.jit(ours), jax.jit(hand)
            close(f(*args)[1], g(*args)[2], f"update of {what}", trace.score)
            runs += [lambda f=f, args=args: f(*args), lambda g=g, args=args: g(*args)]
        mine, theirs, mine_short, theirs_short = medians(*runs, repeats=25, seconds=1.0)
        yield Figure(
            f"update {what}, 5000 steps", "100 steps", "µs", 1e6 * mine, 1e6 * mine_short, 1.5
        )
        yield Figure(f"update {what}, 5000 steps", HAND, "µs", 1e6 * mine, 1e6 * theirs)
        yield Figure(
            f"update {what}, by hand, 5000 steps", "100 steps", "µs", 1e6 * theirs,
            1e6 * theirs_short,
        )  # fmt: skip


def enumeration(quick: bool) -> Iterator[Figure]:
    """Paths a second of `integrate` of a scan with two choices a step, against broadcasting."""
    steps = 7
    p = jnp.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])
    q = jnp.array([0.3, 0.6, 0.9])

    def run(p, q):
        def step(z, _):
            z = draw(dist.Categorical(p[z]))
            return z, draw(dist.Bernoulli(q[z]))

        z, ys = jax.lax.scan(step, 0, None, length=steps)
        return 1.0 * z * ys.sum()

    def by_hand(p, q):
        n = 6**steps
        digits = (jnp.arange(n)[:, None] // 6 ** jnp.arange(steps)) % 6
        zs, ys = digits // 2, digits % 2
        before = jnp.concatenate([jnp.zeros((n, 1), zs.dtype), zs[:, :-1]], 1)
        heads = q[zs]
        mass = (p[before, zs] * jnp.where(ys == 1, heads, 1 - heads)).prod(1)
        return jnp.sum(mass * zs[:, -1] * ys.sum(1))

    f, g = jax.jit(integrate(run)), jax.jit(by_hand)
    close(f(p, q), g(p, q), "enumeration")
    mine, theirs = medians(lambda: f(p, q), lambda: g(p, q), repeats=10, seconds=2.0)
    paths = 6**steps / 1e6
    yield Figure("integrate: 6^7 paths", HAND, "Mpaths/s", paths / mine, paths / theirs)


def imports(quick: bool) -> Iterator[Figure]:
    """Import time in a fresh interpreter."""

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True) and None

    mine, theirs = best(
        run("import ppl"), run("import jax, numpyro.distributions"), repeats=3 if quick else 5
    )
    yield Figure("import ppl", "import jax, numpyro.distributions", "s", mine, theirs)


def figures(quick: bool) -> Iterator[Figure]:
    """All the figures, cheap ones first."""
    many = 100_000
    for case in (
        regression(10, many),
        regression(1000, many),
        schools(many),
        chain(1000, many // 10),
    ):
        yield from methods(case, quick)
    case = chain(1000, 0, vectorised=True)
    n, first = case.args
    choices = jax.jit(lambda: case.simulate(KEY, n, first))()[0]

    def assess(c):
        return _chain.assess(c, n, first)[0]

    def density(c):
        return case.density(c, n, first)

    close(assess(choices), density(choices), "state space without a scan")
    for what, f, g in (
        ("assess", assess, density),
        ("grad of assess", jax.grad(assess), jax.grad(density)),
    ):
        args = (choices,)
        yield from compare(f"{case.name}: {what}", f, g, args, "hand-written, no scan", quick)
    yield from addresses(quick)
    yield from boundary(quick)
    yield from eager(quick)
    yield from long(quick)
    yield from enumeration(quick)
    yield from imports(quick)


def main(argv: list[str] | None = None) -> None:
    report("benchmarks.language", __doc__, {"language": figures}, argv)


if __name__ == "__main__":
    main()
