"""Random programs of which some choices are summed out, and the same by enumeration.

A structure is a description, made from a number: parts in a row, each with a value that later
ones depend on. Choices named z... are summed out, those named y... are kept, and all of them have
tables that depend on the argument. The tables are arguments as well, so that a structure is
compiled once for many programs. What is summed is small, so that the oracle can be a sum of
`assess` over all outcomes together.
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax

from ppl import factor, gen, observe, sample, seed
from ppl.addresses import flatten, nest
from ppl.quadrature import outcomes

MOST = 600
"""Programs have no more outcomes together than this."""


class Part(NamedTuple):
    """What a part is, what it is called, which values it depends on, and the parts within."""

    kind: str
    name: str
    on: tuple[str, ...] = ()
    size: int = 2
    parts: tuple = ()
    others: tuple = ()
    how: str = ""


Shapes = dict[str, tuple[tuple[int, ...], bool]]


class Finite:
    """Part by part in JAX.

    `env` has the values so far, each with the number of values that it may have. `numbers` are
    the tables; what is not there is one, and noted in `shapes`, with whether zeros are allowed.
    """

    def __init__(self, numbers: dict | None = None):
        self.numbers: dict = numbers or {}
        self.shapes: Shapes = {}

    def number(self, name: str, shape: tuple[int, ...], zeros: bool = False) -> Any:
        self.shapes[name] = shape, zeros
        return self.numbers.get(name, jnp.ones(shape))

    def rows(self, part: Part, env: dict, theta: Any, zeros: bool = True) -> Any:
        """Probabilities of a choice given its parents: a row of a table."""
        sizes = [env[name][1] for name in part.on]
        table = self.number(part.name, (*sizes, part.size), zeros)
        table = table * (1 + theta * jnp.linspace(0.0, 1.0, part.size))
        table = table / table.sum(-1, keepdims=True)
        return table[tuple(jnp.clip(env[name][0], 0, size - 1)
                           for name, size in zip(part.on, sizes, strict=True))]  # fmt: skip

    def mean(self, part: Part, env: dict, theta: Any) -> Any:
        total = 0.1 * theta
        slopes = self.number(part.name, (len(part.on),))
        for i, name in enumerate(part.on):
            total = total + slopes[i] * theta * env[name][0]
        return total

    # -- parts --------------------------------------------------------------------------------

    def block(self, parts: tuple, env: dict, theta: Any) -> dict:
        for part in parts:
            env = {**env, **getattr(self, part.kind)(part, env, theta)}
        return env

    def last(self, parts: tuple, env: dict, theta: Any) -> Any:
        """The value of the last part, as an integer."""
        env = self.block(parts, env, theta)
        return jnp.asarray(env[parts[-1].name][0], int)

    def choice(self, part: Part, env: dict, theta: Any) -> dict:
        p = self.rows(part, env, theta, zeros=part.how not in ("logits", "coin logits"))
        laws = {
            "": lambda: dist.CategoricalProbs(p),
            "logits": lambda: dist.CategoricalLogits(jnp.log(p) + 1.0),
            "coin": lambda: dist.BernoulliProbs(p[..., 1]),
            "coin logits": lambda: dist.BernoulliLogits(jnp.log(p[..., 1] / p[..., 0])),
            "binomial": lambda: dist.BinomialProbs(p[..., 1], part.size - 1),
            "uniform": lambda: dist.DiscreteUniform(0, part.size - 1),
            "one": lambda: dist.CategoricalProbs(p).expand([1]),
        }
        value = sample(part.name, laws[part.how]())
        return {part.name: (value[0] if part.how == "one" else value, part.size)}

    def seen(self, part: Part, env: dict, theta: Any) -> dict:
        """A choice that is not finite."""
        mean = self.mean(part, env, theta)
        laws = {
            "": lambda: dist.Normal(mean, 1.0),
            "count": lambda: dist.Poisson(jnp.exp(0.3 * jnp.tanh(mean))),
            "vector": lambda: dist.Normal(mean * jnp.array([1.0, -0.5]), 1.0),
            "event": lambda: dist.Normal(mean * jnp.ones(2), 1.0).to_event(1),
            "joint": lambda: dist.MultivariateNormal(
                mean * jnp.ones(2), jnp.array([[1.0, 0.3], [0.3, 2.0]])
            ),
            "edge": lambda: dist.Uniform(mean, mean + 2.0),
        }
        sample(part.name, laws[part.how]())
        return {}

    def score(self, part: Part, env: dict, theta: Any) -> dict:
        mean = self.mean(part, env, theta)
        if part.how == "factor":
            factor(jnp.tanh(mean))
        else:
            observe(dist.Normal(mean, 1.5), 0.3)
        return {}

    def call(self, part: Part, env: dict, theta: Any) -> dict:
        ask = gen(lambda theta: self.last(part.parts, env, theta))
        return {part.name: (sample(part.name, ask(theta)), part.size)}

    def wrap(self, part: Part, env: dict, theta: Any) -> dict:
        wrapper = {"jit": jax.jit, "checkpoint": jax.checkpoint}[part.how]
        return {part.name: (wrapper(lambda: self.last(part.parts, env, theta))(), part.size)}

    def cond(self, part: Part, env: dict, theta: Any) -> dict:
        yes = lambda: self.last(part.parts, env, theta)  # noqa: E731
        no = lambda: self.last(part.others, env, theta)  # noqa: E731
        test = env[part.how][0] == 1 if part.how else theta > 1.0
        return {part.name: (lax.cond(test, yes, no), part.size)}

    def plate(self, part: Part, env: dict, theta: Any) -> dict:
        """Copies of a block side by side; what they make is not read outside."""

        def one(i: Any) -> Any:
            self.block(part.parts, {**env, "i": (i, part.size)}, theta)

        jax.vmap(one)(jnp.arange(part.size))
        return {}

    def elements(self, part: Part, env: dict, theta: Any) -> dict:
        """A choice of many elements, another that depends on them one by one, and what is kept."""
        three = {**env, "i": (jnp.arange(3), 3)}
        inner = part._replace(on=(*part.on, "i"))
        law = dist.CategoricalProbs(self.rows(inner, three, theta))
        z = sample(part.name, law.to_event(1) if "event" in part.how else law)
        env = {**three, part.name: (z, part.size)}
        env |= self.block(part.parts, env, theta)
        last = part.parts[-1].name if part.parts else part.name
        value = self.mean(Part("", "m" + part.name, (last,)), env, theta)
        sample("y" + part.name, dist.Normal(value, 1.0))
        if "sum" not in part.how:
            return {}
        total = jnp.sum(jnp.stack([z[0], z[2]])) if "two" in part.how else jnp.sum(z)
        return {part.name: (total, 3 * (part.size - 1) + 1)}

    def chain(self, part: Part, env: dict, theta: Any) -> dict:
        """A chain along a scan, of the first or second order, and what each round makes."""
        z = Part("choice", "z" + part.name, (*part.on, "a", "b"), part.size)
        two = "second" in part.how

        def step(carry: tuple, x: Any) -> tuple:
            a, b = carry
            inside = {**env, "a": (a, part.size), "b": (b, part.size), "x": (x, 3)}
            state = self.choice(z, inside, theta)[z.name][0]
            self.block(part.parts, {**inside, "s": (state, part.size)}, theta)
            return (state, a if two else b), None

        first = env[part.on[-1]][0] if part.on else 0
        start = (jnp.clip(first, 0, part.size - 1), jnp.asarray(0))
        (last, _), _ = lax.scan(step, start, jnp.arange(3), reverse="reverse" in part.how)
        return {part.name: (last, part.size)}

    def chains(self, part: Part, env: dict, theta: Any) -> dict:
        """Two chains side by side, whose states are the elements of one choice."""
        z = Part("choice", "z" + part.name, (*part.on, "s", "i"), part.size)

        def step(state: Any, x: Any) -> tuple:
            inside = {**env, "s": (state, part.size), "i": (jnp.arange(2), 2)}
            law = dist.CategoricalProbs(self.rows(z, inside, theta))
            state = sample(z.name, law)
            mean = self.mean(Part("", "m" + part.name, ("s",)), {"s": (state, part.size)}, theta)
            sample("y" + part.name, dist.Normal(mean + 0.1 * x, 1.0))
            return state, None

        lax.scan(step, jnp.zeros(2, int), jnp.arange(2))
        return {}


# -- descriptions by number ----------------------------------------------------------------------


class _Maker:
    """Draws descriptions; names are unique."""

    def __init__(self, number: int):
        self.rng = np.random.default_rng(number)
        self.count = itertools.count()

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def some(self, scope: tuple, most: int = 2) -> tuple:
        n = min(int(self.pick([0, 1, 1, 1, 2, 2])), most, len(scope))
        first = scope[-1:] if n and self.rng.random() < 0.7 else ()
        rest = [name for name in scope if name not in first]
        more = self.rng.permutation(rest)[: n - len(first)] if rest else ()
        return (*map(str, more), *first)

    def name(self, first: str) -> str:
        return f"{first}{next(self.count)}"

    def choice(self, scope: tuple, first: str = "", top: bool = False) -> Part:
        first = first or self.pick("zzzy")
        rare = ["binomial", "uniform"] if top else []  # whose outcomes a loop does not show
        how = self.pick(["", "", "", "coin", "coin logits", "logits", "one", *rare])
        size = 2 if "coin" in how else self.pick([2, 3])
        return Part("choice", self.name(first), self.some(scope), size, how=how)

    def seen(self, scope: tuple) -> Part:
        how = self.pick(["", "", "", "count", "count", "vector", "event", "joint", "edge"])
        on = tuple(dict.fromkeys((*self.some(scope), *scope[-1:])))
        return Part("seen", self.name("x"), on, how=how)

    def block(
        self, depth: int, scope: tuple, kept: tuple, loops: bool = True, top: bool = False
    ) -> tuple:
        """Parts that end in a choice, so that they have a value."""
        parts: list[Part] = []
        for _ in range(int(self.rng.integers(1, 3))):
            part = self.part(depth, scope, kept, loops, top)
            parts.append(part)
            scope, kept = self.after(part, scope, kept)
        parts.append(self.choice(scope, top=top))
        return tuple(parts)

    def after(self, part: Part, scope: tuple, kept: tuple) -> tuple[tuple, tuple]:
        """What may be read after a part, and what of it branches may depend on."""
        silent = part.kind in ("seen", "score", "plate", "chains")
        if silent or (part.kind == "elements" and "sum" not in part.how):
            return scope, kept
        own = part.kind == "choice" and part.name.startswith("y")
        return (*scope, part.name), (*kept, part.name) if own else kept

    def part(
        self, depth: int, scope: tuple, kept: tuple, loops: bool = True, top: bool = False
    ) -> Part:
        kinds = ["choice", "choice", "seen", "score"]
        if depth:
            kinds += ["call", "wrap", "cond", "cond"]
        if depth and loops:
            kinds += ["plate", "elements", "chain", "chain", "chains"]
        kind = self.pick(kinds)
        if kind == "choice":
            return self.choice(scope, top=top)
        if kind == "seen":
            return self.seen(scope)
        if kind == "score":
            how = self.pick(["factor", "observe"])
            return Part("score", self.name("f"), (*self.some(scope), *scope[-1:]), how=how)
        if kind in ("call", "wrap"):
            parts = self.block(depth - 1, scope, kept, loops)
            how = self.pick(["jit", "checkpoint"]) if kind == "wrap" else ""
            return Part(kind, self.name("c"), (), parts[-1].size, parts, how=how)
        if kind == "cond":
            yes, no = (self.block(depth - 1, scope, kept, loops) for _ in range(2))
            how = self.pick(["", *kept])
            return Part("cond", self.name("c"), (), max(yes[-1].size, no[-1].size), yes, no, how)
        if kind == "plate":
            parts = (self.choice((*scope, "i"), "z"),)
            parts += self.block(0, (*scope, "i", parts[0].name), kept, False)
            return Part("plate", self.name("p"), (), self.pick([2, 3]), parts)
        if kind == "elements":
            name, size = self.name("z"), 2
            parts = ()
            if self.rng.random() < 0.4:
                parts = (Part("choice", self.name("z"), (*self.some(scope, 1), name, "i"), 2),)
            how = self.pick(["", "", "event", "sum", "two sum"])
            return Part("elements", name, self.some(scope), size, parts, how=how)
        if kind == "chains":
            return Part("chains", self.name("h"), self.some(scope, 1), 2)
        inner = (self.seen((*scope, "x", "s")),)
        if self.rng.random() < 0.3:
            inner += (self.choice((*scope, "s"), self.pick("zy")),)
        how = self.pick(["", "second"]) + self.pick(["", " reverse"])
        return Part("chain", self.name("h"), self.some(scope, 1), 2, inner, how=how)


class Case(NamedTuple):
    """A structure: a model of (theta, tables), what is summed out, and all its outcomes."""

    parts: tuple
    model: Any
    shapes: Shapes
    paths: tuple
    combos: dict
    sizes: dict


def case(number: int, parts: tuple = ()) -> Case | None:
    """The structure of a number; None if it has nothing to be summed, or too much."""
    parts = parts or _Maker(number).block(2, (), (), top=True)
    noted = Finite()

    @gen
    def model(theta, numbers):
        Finite(numbers).block(parts, {}, theta)

    gen(lambda theta: noted.block(parts, {}, theta) and None).sites(1.0)
    ones = {name: jnp.ones(shape) for name, (shape, _) in noted.shapes.items()}
    sites = model.sites(1.0, ones)
    paths = tuple(path for path in sites if path[-1].startswith("z"))
    each = [outcomes(sites[path].distribution) for path in paths]
    sizes = [math.prod(sites[path].shape) for path in paths]
    count = math.prod(len(v) ** n for v, n in zip(each, sizes, strict=True))
    if not 2 <= count <= MOST:
        return None
    tables = [itertools.product(v, repeat=n) for v, n in zip(each, sizes, strict=True)]
    rows = list(itertools.product(*tables))
    combos = {
        path: np.reshape([row[i] for row in rows], (count, *sites[path].shape))
        .astype(sites[path].dtype) for i, path in enumerate(paths)
    }  # fmt: skip
    values = {path: len(v) for path, v in zip(paths, each, strict=True)}
    return Case(parts, model, noted.shapes, paths, combos, values)


def tables(case: Case, number: int) -> dict:
    """Numbers for a structure: rows with zeros, positive ones, or certain ones; and slopes."""
    rng = np.random.default_rng(number)
    kind = ("zeros", "positive", "zeros", "positive", "certain")[number % 5]
    found = {}
    for name, (shape, zeros) in case.shapes.items():
        if len(shape) == 1 and not name.startswith(("y", "z")):
            found[name] = rng.choice([-1, 1], shape) * rng.uniform(0.5, 2.0, shape)
            continue
        table = rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
        if zeros and kind == "certain":
            table = np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
        elif zeros and kind == "zeros":
            keep = rng.random(shape) < 0.7
            np.put_along_axis(keep, rng.integers(shape[-1], size=(*shape[:-1], 1)), True, -1)
            table = np.where(keep, table, 0.0)
        found[name] = table
    return found


def drawn(case: Case, key: Any, *args: Any) -> tuple[dict, dict, dict]:
    """Values of what is kept, floats and others; and which choices are made, if not all are."""
    trace = seed(lambda: case.model.generate({}, *args)[0])(key)
    kept = {p: v for p, v in flatten(trace.choices).items() if p not in case.paths}
    real = {p: v for p, v in kept.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    return real, {p: v for p, v in kept.items() if p not in real}, flatten(trace.present)


def by_enumeration(case: Case, args: tuple, real: dict, rest: dict, present: dict) -> tuple:
    """All outcomes, their log p together with what is kept, and its derivatives.

    These are by theta and by the floats that are kept. A choice that is not made has the value 0
    in as many of the outcomes as it has values: these share the probability.
    """
    theta, numbers = args

    def one(combo: dict) -> tuple:
        combo = {p: jnp.where(present[p], v, 0) if p in present else v for p, v in combo.items()}
        score = lambda theta, real: case.model.assess(  # noqa: E731
            nest({**real, **rest, **combo}), theta, numbers
        )[0]
        return combo, *jax.value_and_grad(score, (0, 1))(theta, real)

    combos, logs, slopes = jax.vmap(one)({p: jnp.asarray(v) for p, v in case.combos.items()})
    alike: Any = 0.0
    for path in case.paths:
        if path in present:
            shape = case.combos[path].shape[1:]
            missing = jnp.broadcast_to(~jnp.asarray(present[path]), shape)
            alike = alike + jnp.sum(missing) * math.log(case.sizes[path])
    return combos, logs - alike, slopes
