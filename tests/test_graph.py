"""Dependencies: by hand, and exactly: what is not a parent does not change the density."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from models import MODELS

from ppl import draw, errors, gen, observe, paths, sample, select
from ppl.addresses import flatten
from ppl.errors import AddressNotFound
from ppl.graph import dependencies

P = 0.4
HAND = {
    "straight": {"a": "", "b": "a", "c": "b"},
    "chain": {"first": "", "z": "first z", "end": "first z"},
    "batch": {"x": "", "y": "x"},
    "branching": {"a": "", "shared": "a", "r": "a", "l": "a", "y": "a shared r l"},
    "branches_in_scan": {"stay": "jump stay", "jump": "jump stay"},
    "branches_in_vmap": {"a": "", "b": "a"},
    "scan_in_vmap": {"z": "z"},
    "wrapped": {"a": "", "b": "a", "c": "", "d": ""},
}


@pytest.mark.parametrize("name", HAND)
def test_parents_by_hand(name):
    found = dependencies(MODELS[name], P).parents
    assert {p[0]: {q[0] for q in above} for p, above in found.items()} == {
        name: set(above.split()) for name, above in HAND[name].items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_nothing_but_the_parents_matters(model):
    """Over all traces: equal values of a choice and its parents, equal density.

    Tolerance: a few operations in float64. The same for the return value.
    """
    graph = dependencies(model, P)

    def run():
        trace, _ = model.generate({}, P)
        each = {path: model.project(trace, select(path)) for path in graph.parents}
        return trace.choices, {str(path): each[path] for path in each}, trace.retval

    (choices, each, retval), probabilities = jax.jit(paths(run))()
    kept = np.asarray(probabilities) > 0
    values = {p: np.asarray(v)[kept].reshape(kept.sum(), -1) for p, v in flatten(choices).items()}

    def spread(given, result):
        key = np.concatenate([np.zeros((kept.sum(), 1)), *(values[p] for p in given)], axis=1)
        _, group = np.unique(key, axis=0, return_inverse=True)
        result = np.asarray(result)[kept].reshape(kept.sum(), -1)
        group = group.reshape(-1)
        return max(np.ptp(result[group == g], axis=0).max() for g in range(group.max() + 1))

    for path, above in graph.parents.items():
        assert spread((path, *above), each[str(path)]) < 1e-12
    assert max(spread(graph.result, leaf) for leaf in jax.tree.leaves(retval)) < 1e-12


def test_draws_loops_and_evidence():
    @gen
    def model(n):
        a = sample("a", dist.Normal(0.0, 1.0))
        noisy = draw(dist.Normal(a, 1.0))

        def step(carry):
            i, x = carry
            return i + 1, x + draw(dist.Normal(noisy, 1.0))

        _, x = lax.while_loop(lambda c: c[0] < n, step, (0, 0.0))
        b = sample("b", dist.Normal(x, 1.0))
        c = sample("c", dist.Normal(0.0, 1.0))
        observe(dist.Normal(b + 0 * c, 1.0), 1.0)
        return jnp.zeros(())

    graph = dependencies(model, 3)
    assert graph.parents == {("a",): (), ("b",): (("a",),), ("c",): ()}
    ((source, above),) = graph.factors
    assert "test_graph.py" in source and above == (("b",), ("c",))
    assert graph.result == ()


def test_relatives():
    graph = dependencies(MODELS["nested"], P)
    assert graph.children(("right", "a")) == (("right", "b"),)
    assert graph.ancestors(("right", "b")) == (("left", "x"), ("right", "a"))
    assert graph.descendants(("left", "x"), ("right", "b")) == (
        ("right", "a"),
        ("right", "b"),
        ("right", "c"),
    )
    with pytest.raises(AddressNotFound, match="no choice"):
        graph.children("wrong")


def test_dot_names_each_node_and_edge():
    graph = dependencies(MODELS["scored"], P)
    text = graph.dot()
    edges = sum(map(len, graph.parents.values())) + sum(len(a) for _, a in graph.factors)
    assert text.count(" -> ") == edges
    assert text.count("[label=") == len(graph.parents) and text.count("shape=box") == 1
    assert '"sub / b\\nCategoricalProbs"' in text
    assert "scan 3" in dependencies(MODELS["chain"], P).dot()
    assert "style=dashed" in dependencies(MODELS["branching"], P).dot()


def fake_dot(folder, script):
    program = folder / "dot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_svg(tmp_path, monkeypatch):
    graph = dependencies(MODELS["straight"], P)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.MissingExecutable, match="not on the PATH"):
        graph.svg()
    fake_dot(tmp_path, 'read first; echo "$1 $first"')
    assert graph.svg() == '-Tsvg digraph "straight" {\n'
    fake_dot(tmp_path, "echo broken >&2; exit 3")
    with pytest.raises(errors.MissingExecutable, match="status 3") as caught:
        graph.svg()
    assert caught.value.given == "broken"
