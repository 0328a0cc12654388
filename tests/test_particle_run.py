"""Long runs of particles: what `seed` gives, in blocks, whatever happens between them.

Past 400 lines since every kind of run is cut, resumed and refused in the same ways.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import (
    Weighted,
    adaptive_annealing,
    advance,
    annealed,
    degeneracy,
    each,
    islands,
    log_evidence,
    log_evidence_error,
    mh,
    multinomial,
    nested_sampling,
    over,
    particle_filter,
    plot_ess,
    recorded,
    run_particles,
    smc2,
    spawn,
    then,
    unit,
    when_ess_below,
    within,
)
from inference.running.block_size import BlockSize
from inference.running.host_loop import Hosted
from ppl import Target, draw, errors, gen, sample, seed

KEY = jax.random.key(5)
MOVES = jnp.array([[0.8, 0.2], [0.3, 0.7]])
EMITS = jnp.array([0.9, 0.2])
SEEN = {"y": jnp.asarray(np.random.default_rng(0).integers(0, 2, 50))}


@gen
def hidden(k, x):
    k = sample("k", dist.Categorical(MOVES[k]))
    sample("y", dist.Bernoulli(EMITS[k]))
    return k, None


def filtering(ys=SEEN, n=20, model=hidden):
    return lambda: particle_filter(model, 0, ys, n, history=True)


PROGRAM = filtering()


def run(program=PROGRAM, **more):
    return run_particles(KEY, program, progress=False, **more)


@pytest.fixture(scope="module")
def whole():
    """The run that nothing happened to."""
    return run()


@pytest.fixture
def sevens(monkeypatch):
    """Blocks of seven steps."""
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(7, most))


def same(one, other):
    leaves = [jax.tree.leaves(r.result) for r in (one, other)]
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*leaves, strict=True)
    )


@pytest.mark.slow
def test_it_is_what_seed_gives(whole):
    """The same random numbers: all states and ancestors; weights but for their rounding."""
    plain = jax.jit(seed(PROGRAM))(KEY)
    assert (whole.result.path.ancestors == plain.path.ancestors).all()
    assert (whole.result.path.choices["k"] == plain.path.choices["k"]).all()
    # fifty terms near one in float64
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(whole.history.log_evidence, plain.history.log_evidence, **close)
    np.testing.assert_allclose(whole.log_evidence, log_evidence(plain.particles), **close)
    assert repr(whole).startswith("ParticleRun(Filtered, 50 steps, 20 particles, log evidence")
    assert whole.status == "complete"


def test_sizes_of_blocks_do_not_change_a_bit(whole, sevens):
    assert same(run(), whole)


def test_shown_or_not_it_is_the_same(whole, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert same(run_particles(KEY, PROGRAM), whole)


def test_off_a_terminal_nothing_is_shown(capfd):
    run_particles(KEY, PROGRAM)
    assert capfd.readouterr() == ("", "")


def test_a_second_run_compiles_nothing(whole, caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert same(run(), whole)
    assert not [r for r in caplog.records if "Finished XLA" in r.getMessage()]


def test_blocks_are_compiled_once(sevens):
    """From Python numbers too, whose types are weak before the first step."""

    def program():
        step = lambda c, _: (c + draw(dist.Normal(0.0, 1.0)), c)  # noqa: E731
        return jax.lax.scan(step, 0.0, None, length=20)[1]

    run(program)
    assert len(Hosted.of(program).block(0).found) == 1


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("write", range(1, 9))
@pytest.mark.parametrize("renamed", [False, True])
def test_killed_at_any_write_and_resumed_it_is_the_same(
    whole, tmp_path, monkeypatch, sevens, write, renamed
):
    count, replace = 0, os.replace

    def dies(partial, name):
        nonlocal count
        count += 1
        if count == write and not renamed:
            raise Killed
        replace(partial, name)
        if count == write:
            raise Killed

    monkeypatch.setattr("os.replace", dies)
    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "run")
    assert same(run(checkpoint=tmp_path / "run"), whole)


def test_a_finished_run_is_read_back(whole, tmp_path, sevens):
    run(checkpoint=tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert same(run(checkpoint=tmp_path), whole)
    assert before == {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    for file in tmp_path.iterdir():
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


@gen
def other(k, x):
    k = sample("k", dist.Categorical(MOVES[k]))
    sample("y", dist.Bernoulli(1 - EMITS[k]))
    return k, None


@pytest.mark.parametrize("change", ["data", "model", "key", "n"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    run(checkpoint=tmp_path)
    programs = {
        "data": filtering({"y": SEEN["y"].at[3].set(1 - SEEN["y"][3])}),
        "model": filtering(model=other),
        "n": filtering(n=21),
    }
    key = jax.random.key(6) if change == "key" else KEY
    with pytest.raises(
        errors.CheckpointError, match=r"another run.\n  where: .*state\.npz"
    ) as found:
        run_particles(key, programs.get(change, PROGRAM), progress=False, checkpoint=tmp_path)
    says = {
        "data": "other data", "key": "another key", "n": "sizes: ",
        "model": "other settings of the kernel, or another program",
    }  # fmt: skip
    assert found.value.given.startswith(says[change]) and ";" not in found.value.given


@pytest.mark.parametrize("name", ["state.npz", "draws-7.npz"])
def test_a_truncated_file_is_named(tmp_path, sevens, name):
    run(checkpoint=tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(errors.CheckpointError) as found:
        run(checkpoint=tmp_path)
    assert str(tmp_path / name) in str(found.value)


def stop_at(monkeypatch, step):
    """Ctrl-C after so many steps."""

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

        def __call__(self, phase, done, total):
            if done == step:
                raise KeyboardInterrupt

    monkeypatch.setattr("inference.running.resumable_loop.bar", lambda show: Bar())


@pytest.mark.slow
def test_interrupted_it_keeps_what_is_done(whole, monkeypatch, sevens):
    stop_at(monkeypatch, 21)
    found = run()
    assert found.status == "interrupted after 21 of 50 steps"
    shorter = run(filtering({"y": SEEN["y"][:21]}))
    for ours, theirs, all_of_it in zip(
        *(jax.tree.leaves((r.history, r.result.path)) for r in (found, shorter, whole)), strict=True
    ):
        assert ours.shape == theirs.shape
        assert (ours == all_of_it[:21]).all()
    total = log_evidence(found.particles)
    np.testing.assert_allclose(total, whole.history.log_evidence[20], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_interrupted_what_needs_all_steps_goes_on_from_the_checkpoint(
    monkeypatch, tmp_path, sevens
):
    program = lambda: adaptive_annealing(COINS, 30, flips, max_stages=9)  # noqa: E731
    plain = run(program)
    with monkeypatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            run(program, checkpoint=tmp_path)
    assert same(run(program, checkpoint=tmp_path), plain)


# -- other programs -------------------------------------------------------------------------------


@gen
def coins():
    b = sample("b", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    sample("y", dist.Bernoulli(jnp.array([0.1, 0.5, 0.9])[b]).expand([6]))


COINS = Target(coins, (), {"y": jnp.array([1, 0, 0, 1, 0, 0])})


def flips(target):
    return mh(target, "b")


@pytest.mark.slow
def test_steps_tell_their_history():
    """What `over` does not give: the history; the numbers are those of `seed`."""
    step = annealed(COINS, 40, flips, 6)
    found = run(step)
    plain = seed(lambda: step(unit()))(KEY)
    assert (found.result.value["b"] == plain.value["b"]).all()
    assert found.history.ess.shape == (5,) and bool(found.verdict())
    np.testing.assert_allclose(found.history.log_evidence[-1], found.log_evidence, atol=1e-12)


@pytest.mark.slow
def test_two_loops_one_after_the_other(tmp_path, sevens):
    def row(y):
        return then(when_ess_below(0.5), each(advance(hidden, {"y": y})))

    def started(s):
        return Weighted(jnp.zeros((), int), s.log_weight)

    ys = SEEN["y"]
    step = then(then(started, spawn(20)), over(row, ys[:10]), over(row, ys[10:30]))
    found = run(step, checkpoint=tmp_path)
    plain = seed(lambda: step(unit()))(KEY)
    assert (found.result.value == plain.value).all()
    np.testing.assert_allclose(found.result.log_weight, plain.log_weight, rtol=0, atol=1e-12)
    assert found.history.ess.shape == (30,)
    np.testing.assert_allclose(found.history.log_evidence[-1], found.log_evidence, atol=1e-12)
    assert same(run(step, checkpoint=tmp_path), found)
    assert {f.name for f in tmp_path.iterdir()} == {"0", "1"}


@pytest.mark.slow
def test_smc2_and_islands():
    @gen
    def series():
        p = sample("p", dist.Categorical(jnp.array([0.5, 0.5])))

        def step(k, _):
            k = sample("k", dist.Categorical(MOVES[k]))
            sample("y", dist.Bernoulli(EMITS[k] / (1 + p)))
            return k, None

        jax.lax.scan(step, 0, None, length=4)

    target = Target(series, (), {"y": jnp.array([1, 0, 1, 1])})
    outer = smc2(target, "k", 6, 4, lambda t: mh(t, "p"))
    found = run(outer)
    assert (found.result.value["p"] == seed(lambda: outer(unit()))(KEY).value["p"]).all()
    assert found.history.ess.shape == (3,)

    def row(y):
        return each(within(then(when_ess_below(0.5), each(advance(hidden, {"y": y})))))

    def started(s):
        return Weighted(jnp.zeros((), int), s.log_weight)

    apart = then(started, islands(3, 8), over(row, SEEN["y"]))
    assert run(apart).result.value.value.shape == (3, 8)


DIGITS = Target(
    gen(
        lambda: sample(
            "y",
            dist.Bernoulli(
                0.05 + 0.09 * sample("b", dist.DiscreteUniform(0, 9).expand([3])).mean()
            ).expand([6]),
        )
    ),
    (),
    {"y": COINS.observations["y"]},
)


def nested():
    return nested_sampling(DIGITS, 40, lambda above: mh(above, "b"), batch=4)


@pytest.mark.slow
def test_nested_sampling_is_driven_turn_by_turn(tmp_path, monkeypatch, sevens, caplog):
    plain = jax.jit(seed(nested))(KEY)
    found = run(nested, checkpoint=tmp_path)
    assert (found.result.particles.value["b"] == plain.particles.value["b"]).all()
    assert int(found.result.iterations) == int(plain.iterations) > 14
    assert found.status == "complete; plateau"
    assert found.standard_error == found.result.standard_error and " +- " in repr(found)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        assert same(run(nested), found)
    assert not [r for r in caplog.records if "Finished XLA" in r.getMessage()]
    assert same(run(nested, checkpoint=tmp_path), found)
    stop_at(monkeypatch, 14)
    part = run(nested, checkpoint=tmp_path / "again")
    assert part.status == "interrupted after 14 steps; out of iterations"
    assert int(part.result.iterations) == 14
    monkeypatch.undo()
    assert same(run(nested, checkpoint=tmp_path / "again"), found)


@pytest.mark.slow
def test_a_while_loop_between_others(sevens):
    def program():
        low = jax.lax.while_loop(
            lambda x: x < 40, lambda x: x + draw(dist.Poisson(1.0)), draw(dist.Poisson(2.0))
        )
        rows = jax.lax.scan(lambda c, _: (c, c + draw(dist.Poisson(1.0))), low, None, length=9)[1]
        return rows, jax.lax.while_loop(lambda x: x < 0, lambda x: x + draw(dist.Poisson(1.0)), 3)

    ours, plain = run(program).result, seed(program)(KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), ours, plain))


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_any_loop_that_draws(reverse, sevens):
    """Backwards too, between steps that draw; a loop without draws is no loop to drive."""

    def program():
        start = draw(dist.DiscreteUniform(0, 9))
        shifts = jax.lax.scan(lambda c, x: (c + x, c), 0, jnp.arange(20))[1]

        def step(x, shift):
            x = x + shift + draw(dist.Poisson(3.0))
            return x, (x, shift)

        end, rows = jax.lax.scan(step, start, shifts, reverse=reverse)
        return end + draw(dist.DiscreteUniform(0, 9)), rows

    ours, plain = run(program).result, seed(program)(KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), ours, plain))


def test_weights_that_are_all_zero_are_evidence_zero_and_a_status():
    @gen
    def silent(k, x):
        k = sample("k", dist.Categorical(MOVES[k]))
        sample("y", dist.Bernoulli(EMITS[k] * x))
        return k, None

    xs = jnp.ones(10).at[6].set(0.0)
    ys = {"y": jnp.ones(10, int)}
    found = run(lambda: particle_filter(silent, 0, ys, 5, xs=xs), observations=ys)
    assert found.status == "complete; all weights are zero from step 6 on"
    assert found.log_evidence == -np.inf
    assert not any(jnp.isnan(x).any() for x in jax.tree.leaves(found.result) if x.dtype != int)
    assert (found.history.ess[6:] == 0.0).all() and (found.history.ess[:6] > 0.0).all()
    crosses = plot_ess(found).axes[0].lines[2]
    assert set(range(6, 10)) <= set(crosses.get_xdata())
    verdict = found.verdict()
    assert (verdict.check, verdict.name, verdict.value) == ("evidence", 'step 6, "y" = 1', 0.0)
    assert not verdict and "evidence" in str(verdict)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: run(filtering(n=0)), "is not a number"),
        (lambda: run(then(spawn(3))), "no loop to drive"),
        (lambda: run(lambda: draw(dist.Normal(0.0, 1.0))), "no loop to drive"),
        (lambda: run(observations=jnp.zeros(49)), "fewer observations than steps"),
        (lambda: told(jnp.zeros((3, 2)), jnp.zeros(2)), "fewer observations than steps"),
        (lambda: degeneracy(3.0), "no particles to judge"),
        (lambda: degeneracy(Weighted((), jnp.zeros(2)), floor=2.0), "floor is not a number"),
        (lambda: run(LONELY).log_evidence, "no particles in the result"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(errors.InvalidArgument, match=says) as found:
        call()
    assert "test_particle_run.py" in str(found.value)
    assert len(str(found.value).splitlines()) <= 12


def LONELY():
    return jax.lax.scan(lambda c, _: (c + draw(dist.Poisson(1.0)), None), 0, None, length=3)[0]


# -- verdicts -------------------------------------------------------------------------------------


def told(log_weights, data=None):
    """The verdict on particles that are weighed by these rows, and never resampled."""
    start = Weighted(jnp.arange(log_weights.shape[1]), jnp.zeros(log_weights.shape[1]))
    weigh = lambda row: lambda s: Weighted(s.value, s.log_weight + row)  # noqa: E731
    return degeneracy(recorded(weigh, log_weights)(start), data)


def test_the_first_failure_is_named():
    rows = jnp.zeros((4, 300))
    fine = told(rows)
    assert (
        fine
        and str(fine) == "nothing amiss: at least 300 of 300 particles count at each of 4 steps"
    )
    # two particles count, of at least three
    few = told(rows.at[2, 2:].set(-50.0), {"a": {"y": jnp.arange(4.0)}})
    assert (few.check, few.name) == ("ess", 'step 2, "a", "y" = 2')
    np.testing.assert_allclose(few.value, 2.0, rtol=1e-12)
    zero = told(rows.at[2, 2:].set(-50.0).at[3].set(-jnp.inf))
    assert (zero.check, zero.name, zero.value) == ("evidence", "step 3", 0.0)
    broken = told(rows.at[1, 7].set(jnp.nan).at[3].set(-jnp.inf))
    assert (broken.check, broken.name) == ("finite", "step 1")


def test_two_particles_must_count_whatever_the_floor():
    weighted = Weighted((), jnp.array([0.0, -50.0, -50.0]))
    found = degeneracy(weighted, floor=0.0)
    assert (found.check, found.name) == ("ess", "the end")
    assert degeneracy(Weighted((), jnp.array([0.0, 0.0, -jnp.inf])), floor=0.0)
    assert degeneracy(Weighted((), jnp.zeros(1)))


def test_long_observations_are_shown_by_their_ends():
    ys = {"y": jnp.zeros((4, 100)).at[3, -1].set(5.0), "z": jnp.arange(4)}
    found = told(jnp.zeros((4, 3)).at[3].set(-jnp.inf), ys)
    assert found.name == 'step 3, "y" = [0., 0., ..., 0., 5.], "z" = 3'


# -- the error of the evidence --------------------------------------------------------------------


@pytest.mark.slow
def test_a_filter_tells_the_error_of_its_evidence():
    known = lambda: particle_filter(hidden, 0, SEEN, 200, scheme=multinomial)  # noqa: E731
    found = run(known)
    plain = log_evidence_error(jax.jit(seed(known))(KEY))
    np.testing.assert_allclose(found.standard_error, plain, rtol=1e-9)
    assert f" +- {float(plain):.2g}; complete" in repr(found)
    for program in (PROGRAM, annealed(COINS, 40, flips, 6)):
        with pytest.raises(errors.InvalidArgument, match="multinomial"):
            _ = run(program).standard_error
