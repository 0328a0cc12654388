"""Islands: the whole measure exactly, and on several devices the bits of one.

Their weights are checked in the kill matrix too, on a target that can kill an island.
"""

import itertools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Weighted,
    advance,
    annealed,
    each,
    islands,
    log_evidence,
    merged,
    mh,
    multinomial,
    over,
    particle_filter,
    resample,
    spread,
    then,
    unit,
    when_ess_below,
    within,
)
from ppl import Target, errors, gen, integrate, law, sample, seed
from semantics import check_proper
from semantics.compiling import QUICK

EXACT = 1e-12  # sums of 1e5 products of probabilities in float64
MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])  # the probability of seeing 1
SEEN = jnp.array([1, 0])


@gen
def hidden(path, _):
    """Two states; the path is the binary number of the states so far, after a leading one."""
    k = sample("k", dist.Categorical(MOVES[path % 2]))
    sample("y", dist.Bernoulli(EMITS[k]))
    return 2 * path + k, None


def filtered(threshold_within, threshold_among):
    """Two islands of two particles over two observations."""

    def row(y):
        inside = then(
            when_ess_below(threshold_within, multinomial), each(advance(hidden, {"y": y}))
        )
        return then(when_ess_below(threshold_among, multinomial), each(within(inside)))

    return then(islands(2, 2), over(row, SEEN), merged)


@pytest.mark.slow
@pytest.mark.parametrize("threshold_among", [0.0, 0.9])
@pytest.mark.parametrize("threshold_within", [0.9, 1.0])
def test_the_measure_is_that_of_the_model(threshold_within, threshold_among):
    """Every path with its mass, from resampling within islands and among them, when told."""
    start = Weighted(jnp.array(2), jnp.zeros(()))

    def masses():
        s = filtered(threshold_within, threshold_among)(start)
        at = s.value[:, None] == jnp.arange(8, 12)
        return (jnp.exp(s.log_weight)[:, None] * at).mean(0)

    expected = []
    for path in itertools.product((0, 1), repeat=2):
        mass, before = 1.0, 0
        for k, y in zip(path, SEEN.tolist(), strict=True):
            mass *= MOVES[before, k] * (EMITS[k] if y else 1 - EMITS[k])
            before = k
        expected.append(mass)
    found = jax.jit(integrate(masses), compiler_options=QUICK)()
    np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


def test_nothing_passes_between_islands():
    """One island dies, and the others neither notice nor lose weight."""

    def cut(island):
        return Weighted(island.value, jnp.where(island.value == 1.0, -jnp.inf, island.log_weight))

    people = Weighted(jnp.array([[1.0, 1.0], [2.0, 3.0]]), jnp.zeros((2, 2)))
    step = each(within(then(cut, when_ess_below(1.0))))
    found = seed(step)(jax.random.key(0), Weighted(people, jnp.log(jnp.array([5.0, 7.0]))))
    np.testing.assert_allclose(jnp.exp(found.log_weight), [0.0, 7.0], rtol=1e-15)
    assert found.value.value[1].tolist() == [2.0, 3.0]
    flat = merged(found)
    assert not jnp.isnan(flat.log_weight).any()
    np.testing.assert_allclose(jnp.exp(log_evidence(flat)), 3.5, rtol=1e-15)


def test_whole_algorithms_on_islands():
    """Annealing on each of two islands: the measure is the target, and so is its mass."""

    @gen
    def coin():
        b = sample("b", dist.Categorical(jnp.array([0.6, 0.4])))
        sample("y", dist.Bernoulli(jnp.array([0.2, 0.9])[b]))

    def step(target):
        how = {"powers": (0.0, 1.0), "scheme": multinomial, "threshold": 1.0}
        inside = annealed(target, 2, lambda t: mh(t, "b"), **how)
        return then(islands(2), each(within(inside)), merged)

    check_proper(step, Target(coin, (), {"y": 1})).require()


def test_one_island_is_a_population():
    """The law of its particles, and of its evidence, are those of the filter's."""
    ys = {"y": SEEN}

    def plain():
        found = particle_filter(hidden, 2, ys, 2, scheme=multinomial, threshold=1.0)
        return found.particles.value, jnp.exp(log_evidence(found.particles)).round(12)

    def island():
        row = lambda y: then(  # noqa: E731
            when_ess_below(1.0, multinomial), each(advance(hidden, {"y": y}))
        )
        start = Weighted(jnp.array(2), jnp.zeros(()))
        s = merged(then(islands(1, 2), over(lambda y: each(within(row(y))), SEEN))(start))
        return s.value, jnp.exp(log_evidence(s)).round(12)

    def masses(program):
        found = law(program)()
        particles, evidences = (np.asarray(x).tolist() for x in found.values)
        rows = map(str, zip(particles, evidences, strict=True))
        return dict(zip(rows, found.masses.tolist(), strict=True))

    ours, theirs = masses(island), masses(plain)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    assert max(abs(ours[x] - theirs[x]) for x in ours) < EXACT


@pytest.mark.parametrize("x64", [False, True])
def test_weights_are_of_the_type_that_is_on(x64):
    @gen
    def level(z, _):
        z = sample("z", dist.Normal(z, 0.5))
        sample("y", dist.Normal(z, 1.0))
        return z, None

    with jax.enable_x64(x64):
        step = then(islands(2, 3), each(within(each(advance(level, {"y": 1.0})))), merged)
        start = Weighted(jnp.zeros(()), jnp.zeros(()))
        found = jax.jit(seed(lambda: step(start)))(jax.random.key(0))
        assert found.log_weight.dtype == (jnp.float64 if x64 else jnp.float32)


MESH = jax.make_mesh((1,), ("islands",))
PEOPLE = Weighted(jnp.zeros(3), jnp.zeros(3))


@pytest.mark.parametrize(
    "call, error, says",
    [
        (lambda: islands(0, 3)(unit()), errors.InvalidArgument, "is not a number"),
        (lambda: islands(3, 0)(unit()), errors.InvalidArgument, "is not a number"),
        (lambda: merged(unit()), errors.ShapeError, "Islands are merged"),
        (lambda: merged(PEOPLE), errors.ShapeError, "Islands are"),
        (lambda: within(resample)(PEOPLE), errors.ShapeError, "given: .*of particles"),
        (lambda: within(resample)(islands(2, 3)(unit())), errors.ShapeError, "a Weighted of isl"),
        (lambda: islands(2.5, 3)(unit()), errors.InvalidArgument, "2.5"),
        (lambda: spread(MESH)(unit()), errors.InvalidArgument, "do not divide the particles"),
    ],
)
def test_what_cannot_be_is_refused(call, error, says):
    with pytest.raises(error, match=says) as found:
        call()
    assert "test_islands.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


# -- several devices ------------------------------------------------------------------------------

SCRIPT = """
import sys, jax
if sys.argv[1:]:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import jax.numpy as jnp, numpy as np, numpyro.distributions as dist
from jax.experimental import multihost_utils
from inference import (
    Weighted, advance, each, islands, over, spread, then, when_ess_below, within,
)
from ppl import gen, sample, seed

@gen
def level(z, _):
    z = sample("z", dist.Normal(z, 0.5))
    sample("y", dist.Normal(z, 1.0))
    return z, None

ys = 2 * jnp.sin(jnp.arange(30.0))
mesh = jax.make_mesh((4,), ("islands",)) if len(jax.devices()) == 4 else None

def compiled(mesh, threshold):
    put = then() if mesh is None else spread(mesh)
    def row(y):
        inside = then(when_ess_below(0.5), each(advance(level, {"y": y})))
        among = when_ess_below(threshold) if threshold else then()
        return then(among, each(within(inside)), put)
    start = lambda: Weighted(jnp.zeros(()), jnp.zeros(()))
    run = jax.jit(seed(lambda: then(islands(8, 100), over(row, ys))(start())))
    return run.lower(jax.random.key(0)).compile()

def bits(run):
    found = run(jax.random.key(0))
    if jax.process_count() > 1:
        found = multihost_utils.process_allgather(found, tiled=True)
    return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(found))
"""


def python(code, devices, *arguments):
    """A process with so many devices that runs `code` after the setup."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir or "")}
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code, *arguments],
        env={**os.environ, **cache, **flags},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.splitlines()


@pytest.mark.slow
def test_four_devices_make_the_bits_of_one_and_share_one_number_an_island():
    code = """
for threshold in (0.0, 0.9):
    runs = [compiled(m, threshold) for m in (None, mesh)]
    print(bits(runs[0]) == bits(runs[1]))
print(compiled(mesh, 0.0).as_text())
"""
    same_apart, same_exchanged, *program = finished(python(code, 4))
    assert (same_apart, same_exchanged) == ("True", "True")
    sent = re.compile(
        r"= (\S+) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
    )
    found = [match.groups() for line in program if (match := sent.search(line))]
    assert [(re.sub(r"\{.*", "", shape), how) for shape, how in found] == [("f32[8]", "all-gather")]


@pytest.mark.slow
def test_two_processes_make_the_bits_of_one():
    code = "print(bits(compiled(mesh, 0.9)).hex())"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    alone = finished(python(code, 1))
    pair = [python(code, 2, address, str(number)) for number in (0, 1)]
    assert [finished(process)[-1] for process in pair] == [alone[-1]] * 2


@pytest.mark.slow
def test_a_long_run_on_four_devices_is_saved_and_is_that_of_one(tmp_path):
    code = (
        f"folder = {str(tmp_path)!r}"
        + """
from inference import run_particles
many = islands(8, 100)
settle = lambda s: many(Weighted(jnp.zeros(()), s.log_weight))
def run(mesh, folder):
    put = then() if mesh is None else spread(mesh)
    def row(y):
        inside = then(when_ess_below(0.5), each(advance(level, {"y": y})))
        return then(when_ess_below(0.9), each(within(inside)), put)
    found = run_particles(jax.random.key(0), then(settle, over(row, ys)), checkpoint=folder)
    return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(found.result))
print(run(None, None) == run(mesh, folder) == run(mesh, folder))
"""
    )
    assert finished(python(code, 4)) == ["True"]
