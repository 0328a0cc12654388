"""Parts of linear-Gaussian programs, and how they are carried out as a model.

`Program` goes through the parts of a description, by a `run` that says what choices, loops, copies,
branches and calls are: of `Staged`, those of a model; of `gaussian_algebra.Unrolled`, arithmetic.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from finite_programs import Part
from jax import lax

from ppl import gen, sample

ROUNDS, COPIES = 4, 2

SHAPES = {
    "": (),
    "vector": (2,),
    "event": (2,),
    "copies": (),
    "array": (2, 2),
    "long": (9,),
    "joint": (2,),
    "precision": (2,),
    "root": (2,),
    "rows": (2, 2),
    "long joint": (9,),
}
"""The laws of choices, with the shape of their means."""

SCALES = {"vector": (2,), "array": (2, 1)}
"""Shapes of scales; that of others is ()."""

MATRICES = ("joint", "precision", "root", "rows", "long joint")
"""Laws with a matrix in place of a scale."""

_LAWS = {
    "event": lambda mean, scale: dist.Normal(mean, scale).to_event(1),
    "copies": lambda mean, scale: dist.Normal(mean, scale).expand([2]),
    "joint": lambda mean, root: dist.MultivariateNormal(mean, root @ root.T),
    "precision": lambda mean, root: dist.MultivariateNormal(mean, precision_matrix=root @ root.T),
    "root": lambda mean, root: dist.MultivariateNormal(mean, scale_tril=root),
    "rows": lambda mean, root: dist.MultivariateNormal(mean, scale_tril=root),
    "long joint": lambda mean, root: dist.MultivariateNormal(mean, root @ root.T),
}


class Staged:
    """How parts are carried out as a model."""

    numpy = jnp

    def normal(self, name: str, how: str, mean: Any, scale: Any) -> Any:
        return sample(name, _LAWS.get(how, dist.Normal)(mean, scale))

    def other(self, name: str, how: str, mean: Any) -> Any:
        return sample(name, dist.Poisson(jnp.exp(mean)) if how else dist.Bernoulli(logits=mean))

    def call(self, name: str, f: Any) -> Any:
        return sample(name, gen(f)())

    def wrap(self, how: str, f: Any) -> Any:
        return {"jit": jax.jit, "checkpoint": jax.checkpoint}[how](f)()

    def branch(self, test: Any, yes: Any, no: Any) -> Any:
        return lax.cond(test, yes, no)

    def copies(self, f: Any, rows: Any) -> Any:
        return jax.vmap(f)(rows)

    def loop(self, step: Any, first: Any, rows: Any, reverse: bool) -> Any:
        return lax.scan(lambda s, x: (step(s, x), None), first, rows, reverse=reverse)[0]

    def put(self, values: Any, i: Any, value: Any) -> Any:
        return values.at[i].set(value)


class Program:
    """Part by part. `env` has the values so far; `shapes` notes the numbers that are used.

    Numbers are of a kind: "matrix", "scale", "root" (of a covariance), "gap" (which may be zero);
    "singular ..." ones may have a variance of zero.
    """

    def __init__(self, run: Any, theta: Any, numbers: dict, shapes: dict | None = None):
        self.run, self.theta, self.numbers = run, theta, numbers
        self.np = run.numpy
        self.shapes = {} if shapes is None else shapes

    def number(self, name: str, shape: tuple[int, ...], kind: str) -> Any:
        self.shapes[name] = shape, kind
        blank = jnp.eye(shape[-1]) if "root" in kind else jnp.ones(shape)
        return self.numbers.get(name, blank)

    def one_number(self, names: tuple, env: dict) -> Any:
        return sum(self.np.sum(env[name]) for name in names)

    def mean(self, part: Part, env: dict, shape: tuple[int, ...] = ()) -> Any:
        """Affine in the values of the parts it is on; data may multiply it."""
        size = int(np.prod(shape))
        total = self.theta * self.number("b " + part.name, (size,), "matrix")
        for i, name in enumerate(part.on):
            value = 1.0 * self.np.ravel(env[name])
            total = total + self.number(f"m{i} {part.name}", (size, value.size), "matrix") @ value
        total = total * (1 + 0.5 * self.np.tanh(self.one_number(part.others, env)))
        return total.reshape(shape)

    def block(self, parts: tuple, env: dict) -> dict:
        for part in parts:
            env = {**env, part.name: getattr(self, part.kind)(part, env)}
        return env

    def last(self, parts: tuple, env: dict) -> Any:
        """The last choice that is summed out, as one number."""
        return self.np.sum(self.block(parts, env)[parts[-2].name])

    def choice(self, part: Part, env: dict) -> Any:
        mean, name = self.mean(part, env, SHAPES[part.how]), part.name
        stretch = self.theta + 0.3 * self.np.tanh(self.one_number(part.others, env)) ** 2
        kind = "root" if part.how in MATRICES else "scale"
        shape = (SHAPES[part.how][-1],) * 2 if kind == "root" else SCALES.get(part.how, ())
        if name.startswith("z") and part.how not in ("joint", "precision"):
            kind = "singular " + kind
        scale = stretch * self.number("s " + name, shape, kind)
        scale = self.np.tril(scale) if "root" in kind else scale
        return self.run.normal(name, part.how, mean, scale)

    def other(self, part: Part, env: dict) -> Any:
        """A kept choice that is not Gaussian, and depends on what is kept."""
        return self.run.other(part.name, part.how, self.np.tanh(self.mean(part, env)))

    def mix(self, part: Part, env: dict) -> Any:
        """A value that is affine in others."""
        value = self.np.concatenate([1.0 * self.np.ravel(env[name]) for name in part.on])
        which = sum(self.np.sum(self.np.real(env[name]) > 0) for name in part.others)
        forms = {
            "sums": lambda: self.np.cumsum(value) - 0.5,
            "picked": lambda: value[which % value.size],
            "either": lambda: self.np.where(which > 0, 2.0 * value, value[::-1]),
            "updated": lambda: self.run.put(value, which % value.size, self.theta * value[0]),
        }
        return forms[part.how]()

    def call(self, part: Part, env: dict) -> Any:
        return self.run.call(part.name, lambda: self.last(part.parts, env))

    def wrap(self, part: Part, env: dict) -> Any:
        return self.run.wrap(part.how, lambda: self.last(part.parts, env))

    def cond(self, part: Part, env: dict) -> Any:
        number = self.np.sum(env[part.how]) if part.how else self.theta - 1.0
        yes, no = (lambda p=p: self.last(p, env) for p in (part.parts, part.others))
        return self.run.branch(self.np.real(number) > 0, yes, no)

    def plate(self, part: Part, env: dict) -> Any:
        """Copies of a block, each with a row of a table or of another plate's values."""
        own = self.number("r " + part.name, (COPIES,), "matrix")
        rows = env[part.how] if part.how else own
        return self.run.copies(lambda row: self.last(part.parts, {**env, "i": row}), rows)

    def chain(self, part: Part, env: dict, start: Any = 0.0) -> Any:
        """A state of two numbers along a loop, and what each round makes."""
        name, how = part.name, part.how.split()
        outer = Part("", "o" + name, part.on)
        shape = (ROUNDS, 2, 2) if "moving" in how else (2, 2)
        moves = self.number("a " + name, shape, "matrix")
        gaps = self.number("g " + name, (ROUNDS,), "gap")
        root = self.theta * self.np.tril(self.number("s " + name, (2, 2), "singular root"))
        load = self.number("l " + name, (2,), "matrix")

        def step(state: tuple, x: tuple) -> tuple:
            (now, before), (gap, *move) = state, x
            mean = (move[0] if move else moves) @ now + load * self.mean(outer, env)
            if "lag" in how or "own" in how:
                mean = mean + 0.3 * before
            if "loaded" in how:  # two numbers moved by one: their covariance is singular
                new = mean + load * self.run.normal("z" + name, "", 0.0 * gap, root[0, 0])
            elif "apart" in how:
                new = self.run.normal("z" + name, "vector", mean, gap * self.np.diag(root))
            else:
                new = self.run.normal("z" + name, "root", mean, gap * root)
            inside = self.block(part.parts, {**env, "s": new, "p": now, "i": gap})
            if "lag" in how:
                return new, now[0]
            return new, (inside[part.parts[0].name] if "own" in how else before)

        rows = (gaps, moves) if "moving" in how else (gaps,)
        first = self.np.ravel(env[part.on[-1]])[0] if part.on else self.theta
        first = self.np.stack([first + start, 0.5 * first])
        return self.run.loop(step, (first, 0.0 * gaps[0]), rows, "reverse" in how)[0]

    def panel(self, part: Part, env: dict) -> Any:
        """A loop in each copy."""
        rows = self.number("r " + part.name, (COPIES,), "matrix")
        chain = part.parts[0]
        return self.run.copies(lambda row: self.chain(chain, env, row), rows)

    def rounds(self, part: Part, env: dict) -> Any:
        """Copies in each round of a loop, whose states are the rows of one array."""
        slopes = self.number("a " + part.name, (COPIES,), "matrix")
        law = Part("choice", "z" + part.name, ("i",))

        def step(state: Any, x: Any) -> Any:
            def one(row: tuple) -> Any:
                before, slope = row
                new = self.choice(law, {**env, "i": before * slope + x})
                self.block(part.parts, {**env, "i": new})
                return new

            return self.run.copies(one, (state, slopes))

        gaps = self.number("g " + part.name, (ROUNDS,), "gap")
        return self.run.loop(step, 0.0 * slopes, gaps, "reverse" in part.how)
