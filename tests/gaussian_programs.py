"""Random programs of which Gaussian choices are summed out.

A structure is a description, made from a number or by hand: parts in a row, each with a value that
later ones depend on. Choices named z... are summed out; those named y..., k... and x... are kept,
and those named x... may have missing elements; what is named q... is not read. The numbers in a
program, matrices of means and roots of covariances, are arguments, so that a structure is compiled
once for many programs.
"""

from typing import Any, NamedTuple

import numpy as np
from finite_programs import Part
from finite_programs import _Maker as Draws
from gaussian_parts import SHAPES, Program, Staged

from ppl import gen
from ppl.masks import shapes

MOST = 48
"""Programs have no more numbers to be summed out than this."""


# -- descriptions by hand -------------------------------------------------------------------------


def choice(name: str, *on: str, how: str = "", data: tuple = ()) -> Part:
    return Part("choice", name, on, how=how, others=data)


def seen(z: str, *on: str, x: str, how: str = "") -> tuple:
    """A choice that is summed out, and something that is seen of it."""
    return choice(z, *on), choice(x, z, how=how)


def chain(name: str, *on: str, how: str, parts: tuple) -> Part:
    return Part("chain", name, on, 1, parts, how=how)


def branch(name: str, on: str, yes: tuple, no: tuple) -> Part:
    return Part("cond", name, (), 1, yes, no, on)


BY_HAND = {
    "a loop that reads a choice of outside": (
        choice("z0", how="rows"),
        chain("h1", "z0", how="moving", parts=(choice("x2", "s", how="vector"),)),
        *seen("z3", "h1", "z0", x="x4", how="root"),
    ),
    "a loop by roots": (
        choice("y0"),
        chain("h1", how="apart moving", parts=(choice("x2", "s", how="joint", data=("y0",)),)),
        *seen("z3", "y0", x="x4", how="event"),
    ),
    "a loop in blocks": (
        chain("h0", how="reverse moving", parts=(choice("x1", "p", "s"),)),
        *seen("z2", "h0", x="x3"),
    ),
    "copies that read others, and something in common": (
        choice("y0"),
        Part("plate", "p1", (), 1, seen("z2", "i", x="x3")),
        choice("z4"),
        Part("plate", "q5", (), 1, (
            branch("c6", "y0", seen("z7", "z4", "i", x="x8"), seen("z9", "i", x="x10")),
            *seen("z11", "z4", "i", x="x12"),
        ), how="p1"),
        *seen("z13", "p1", "z4", x="x14"),
    ),
    "a branch with a loop": (
        choice("y0"),
        choice("z1"),
        branch("c2", "y0", (
            chain("h3", "z1", how="loaded", parts=(choice("x4", "s", "i"),)),
            *seen("z5", "h3", x="x6"),
        ), seen("z7", "z1", x="x8")),
        *seen("z9", "c2", x="x10"),
    ),
    "a loop as a tree": (
        Part("call", "c0", (), 1, (
            chain("h1", how="loaded", parts=(choice("x2", "s", how="vector"),)),
            *seen("z3", "h1", x="x4"),
        )),
        *seen("z5", "c0", x="x6"),
    ),
    "a loop in each copy, with something in common": (
        choice("z0"),
        Part("panel", "q1", (), 1, (chain("h2", "z0", how="lag", parts=(choice("x3", "s"),)),)),
        *seen("z4", "z0", x="x5"),
    ),
    "copies in each round of a loop": (
        choice("z0", how="vector"),
        Part("rounds", "h1", (), 1, (choice("x2", "i"),), how="reverse"),
        Part("mix", "v3", ("h1", "z0"), how="picked"),
        *seen("z4", "v3", x="x5"),
    ),
    "data that multiply": (
        Part("other", "k0", (), how="count"),
        choice("z1", how="vector", data=("k0",)),
        choice("y2", "z1", how="joint", data=("k0",)),
        Part("mix", "v3", ("z1", "y2"), how="updated", others=("k0",)),
        choice("z4", "v3", how="root", data=("y2",)),
        Part("wrap", "c5", (), 1, seen("z6", "z4", "y2", x="x7", how="long"), how="checkpoint"),
        *seen("z8", "c5", x="x9"),
    ),
}  # fmt: skip


# -- descriptions by number -----------------------------------------------------------------------

SEEN = ("", *SHAPES)
LAWS = tuple(how for how in SEEN if "long" not in how)


def kinds(parts: tuple) -> set:
    """Of parts, and of those within."""
    return {kind for p in parts for kind in (p.kind, *kinds(p.parts), *kinds(within(p.others)))}


def within(others: tuple) -> tuple:
    return tuple(part for part in others if isinstance(part, Part))


class Maker:
    """Draws descriptions. A scope is the names that may be read, kept ones among them."""

    def __init__(self, number: int):
        self.draws = Draws(number)
        self.pick, self.name = self.draws.pick, self.draws.name

    def some(self, scope: tuple) -> tuple:
        """One or two names, most often the last one."""
        return self.draws.some(scope) or scope[-1:]

    def data(self, kept: tuple) -> tuple:
        """At times, something kept."""
        return (self.pick(kept),) if kept and self.draws.rng.random() < 0.4 else ()

    def choice(self, first: str, scope: tuple, kept: tuple) -> Part:
        how = self.pick(SEEN if first == "x" else LAWS)
        name = self.name(first)
        return Part("choice", name, self.some(scope), how=how, others=self.data(kept))

    def block(self, depth: int, scope: tuple, kept: tuple, loops: bool = True) -> tuple:
        """Parts, a choice that is summed out, and something that is seen of it."""
        parts: list[Part] = []
        for _ in range(self.pick([1, 1, 2])):
            part = self.part(depth, scope, kept, loops)
            parts.append(part)
            scope, kept = self.after(part, scope, kept)
        state = self.choice("z", scope, kept)
        seen = Part("choice", self.name("x"), (state.name,), how=self.pick(SEEN))
        return (*parts, state, seen)

    def after(self, part: Part, scope: tuple, kept: tuple) -> tuple[tuple, tuple]:
        if part.name.startswith(("x", "q")):  # never read
            return scope, kept
        return (*scope, part.name), (*kept, part.name) if part.name[0] in "yk" else kept

    def part(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        kinds = ["z", "z", "x", "y", "other", *["mix"] * bool(scope)]
        kinds += ["call", "wrap", "cond", "cond"] if depth else []
        kinds += ["plate", "chain", "chain", "panel", "rounds"] if depth and loops else []
        kind = self.pick(kinds)
        return getattr(self, "of_" + kind)(depth, scope, kept, loops)

    def of_z(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        return self.choice("z", scope, kept)

    def of_x(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        return self.choice("x", scope, kept)

    def of_y(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        return self.choice("y", scope, kept)

    def of_other(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        how = self.pick(["", "count"])
        return Part("other", self.name("k"), kept[-1:], how=how)

    def of_mix(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        how = self.pick(["sums", "picked", "either", "updated"])
        return Part("mix", self.name("v"), self.some(scope), how=how, others=self.data(kept))

    def of_call(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        return Part("call", self.name("c"), (), 1, self.block(depth - 1, scope, kept, loops))

    def of_wrap(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        parts, how = self.block(depth - 1, scope, kept, loops), self.pick(["jit", "checkpoint"])
        return Part("wrap", self.name("c"), (), 1, parts, how=how)

    def of_cond(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        yes, no = (self.block(depth - 1, scope, kept, loops) for _ in range(2))
        return Part("cond", self.name("c"), (), 1, yes, no, self.pick(["", *kept]))

    def of_plate(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        """Copies that read what is summed out, and have branches, are not read outside."""
        how = self.pick(["", *(name for name in scope if name.startswith("p"))])
        inner = self.pick([kept, scope])
        parts = self.block(depth - 1, (*inner, "i"), kept, False)
        alone = inner is kept and not how
        name = self.name("p" if alone or not {"cond", "wrap"} & kinds(parts) else "q")
        return Part("plate", name, (), 1, parts, how=how)

    def of_chain(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        on = self.some(scope) if self.draws.rng.random() < 0.5 else ()
        seen = [self.choice("x", ("p", "s"), kept)]
        how = [self.pick(["", "loaded", "apart"]), self.pick(["", "moving"])]
        how += [self.pick(["", "", "reverse"]), self.pick(["", "", "lag", "own"])]
        if "own" in how:
            seen = [Part("choice", self.name("y"), ("s",))]
        if self.draws.rng.random() < 0.4:
            seen += self.block(0, ("s", "i", *on), kept, False)
        return Part("chain", self.name("h"), on, 1, tuple(seen), how=" ".join(how))

    def of_panel(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        chain = self.of_chain(depth, scope, kept, loops)
        return Part("panel", self.name("q" if chain.on else "h"), (), 1, (chain,))

    def of_rounds(self, depth: int, scope: tuple, kept: tuple, loops: bool) -> Part:
        seen = (Part("choice", self.name("x"), ("i",)),)
        return Part("rounds", self.name("h"), (), 1, seen, how=self.pick(["", "reverse"]))


class Case(NamedTuple):
    """A structure: a model of (theta, numbers), the choices summed out, and those kept."""

    parts: tuple
    model: Any
    shapes: dict
    summed: tuple
    kept: dict
    masks: dict


def case(number: int, parts: tuple = ()) -> Case | None:
    """The structure of a number; None if it has too much to be summed."""
    parts = parts or Maker(number).block(2, (), ())
    noted: dict = {}

    @gen
    def model(theta: Any, numbers: dict) -> None:
        Program(Staged(), theta, numbers, noted).block(parts, {})

    sites = model.sites(1.0, {})
    summed = tuple(path for path in sites if path[-1].startswith("z"))
    kept = {path: site for path, site in sites.items() if path not in summed}
    masks = {p: shapes(tuple(n for _, n in s.axes), [s.distribution])[-1]
             for p, s in kept.items() if p[-1].startswith("x") and number % 2}  # fmt: skip
    if sum(int(np.prod(sites[path].shape)) for path in summed) > MOST:
        return None
    return Case(parts, model, noted, summed, kept, masks)


def numbers(case: Case, number: int) -> dict:
    """Numbers for a structure; in every other program some variances are zero."""
    rng = np.random.default_rng(number)
    found = {}
    for name, (shape, kind) in case.shapes.items():
        if kind == "matrix":
            found[name] = 0.7 * rng.normal(size=shape)
        elif kind == "gap":
            found[name] = rng.permutation([0.0, *rng.uniform(0.3, 1.5, shape[0] - 1)])
        else:
            positive = rng.uniform(0.5, 1.4, shape[-1:])
            if kind.startswith("singular") and number % 2:
                positive = positive * (rng.random(shape[-1:]) < 0.6)
            found[name] = np.broadcast_to(positive, shape) * 1.0
            if "root" in kind:
                low = np.tril(rng.normal(size=shape), -1) / shape[-1]
                found[name] = np.diag(positive) + low
    return found


def data(case: Case, number: int) -> tuple[dict, dict, dict]:
    """Values of what is kept, floats and others; and which elements are missing."""
    rng = np.random.default_rng((number, 1))
    real, rest = {}, {}
    for path, site in case.kept.items():
        if path[-1].startswith("k"):
            rest[path] = rng.integers(2, size=site.shape).astype(site.dtype)
        else:
            real[path] = 1.5 * rng.normal(size=site.shape)
    return real, rest, {path: rng.random(shape) < 0.3 for path, shape in case.masks.items()}
