"""Fingerprints: what a target is made of, each part by its name, so that a difference has one.

A model is known by its staged program as text, with the values that its function closes over;
what it is run on, and what is observed, by their bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import Target, seed
from ppl.arguments import is_array
from ppl.execute import Given
from ppl.walk import walk


def fingerprint(*parts: bytes) -> str:
    """A digest of parts, in order.

    >>> from inference.targets.fingerprints import fingerprint
    >>> fingerprint(b"a", b"b") == fingerprint(b"a", b"b") != fingerprint(b"ab", b"")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def of_arrays(tree: Any) -> str:
    """The fingerprint of the arrays in a pytree: their places, shapes, types and bytes."""
    parts = []
    for place, leaf in jax.tree.leaves_with_path(tree):
        if is_array(leaf):
            x = plain(leaf)
            parts.append(repr((jax.tree_util.keystr(place), x.shape, str(x.dtype))).encode())
            parts.append(x.tobytes())
    return fingerprint(*parts)


def plain(leaf: Any) -> np.ndarray:
    """An array of the host; the data of a PRNG key."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def fingerprints(target: Target) -> dict[str, str]:
    """Of the `model`, its `arguments`, and the `observations`; and the version of `jax`.

    The text of a program is that of one version of jax: between versions models are not
    compared by it.

    >>> import numpyro.distributions as dist
    >>> from inference.targets.fingerprints import fingerprints
    >>> from ppl import Target, gen, sample
    >>> model = gen(lambda x: sample("y", dist.Normal(x, 1.0)))
    >>> one, other = (fingerprints(Target(model, (1.0,), {"y": y})) for y in (2.0, 3.0))
    >>> [name for name in one if one[name] != other[name]]
    ['observations']
    """
    run = target.model._prepare(target.args, {})
    rule = run.rule(constrained=frozenset(run.sites), filler=True, sums=("score",))

    def score(operands: tuple, values: Mapping) -> Any:
        given = {path: Given(value) for path, value in values.items()}
        return walk(run.staged.program, operands, rule, given)[2]

    values = {p: jax.ShapeDtypeStruct(s.shape, s.dtype) for p, s in run.sites.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    text = jax.jit(seed(score)).lower(key, run.operands, values).as_text()
    known = [(p, s.shape, str(s.dtype), s.kind, s.support) for p, s in run.sites.items()]
    return {
        "model": fingerprint(text.encode(), repr(known).encode()),
        "arguments": of_arrays(run.operands),
        "observations": of_arrays({"/".join(p): x for p, x in target.observed.items()}),
        "jax": jax.__version__,
    }


PLAIN = ("jax", "chains", "draws", "warmup", "thin", "kernel", "sizes", "start")
"""Parts that are readable as they are."""

WORDS = {
    "program": "other settings of the kernel, or another program", "key": "another key",
    "data": "other data", "begin": "another start",
    "model": "another model", "arguments": "other arguments", "observations": "other observations",
}  # fmt: skip

FOLLOWS = {
    "model": ("jax",), "key": ("chains",), "data": ("sizes",),
    "begin": ("sizes", "key", "data", "jax"),
    "program": ("jax", "model", "arguments", "observations", "sizes", "chains", "draws", "warmup",
                "thin", "kernel", "data", "start"),
}  # fmt: skip
"""Parts that differ wherever one of these does."""


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[tuple[str, str]]:
    """What differs, in words: what is there, and what is here.

    >>> from inference.targets.fingerprints import differences
    >>> there, here = {"draws": "60", "program": "f1"}, {"draws": "61", "program": "f2"}
    >>> differences(there, here)
    [('draws: 60', 'draws: 61')]
    """
    names = [name for name in here if there.get(name) != here[name]]
    causes = [n for n in names if not any(cause in names for cause in FOLLOWS.get(n, ()))]
    return [
        (f"{n}: {there.get(n, 'not told')}", f"{n}: {here[n]}")
        if n in PLAIN
        else (WORDS.get(n, f"another {n}"), f"the same {'kernel' if n == 'program' else n}")
        for n in causes
    ]


def told(pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Differences as text: what is there, and what is here."""
    there, here = zip(*pairs, strict=True)
    return "; ".join(there), "; ".join(here)
