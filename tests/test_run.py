"""The driver: the same draws whatever happens around them, and what it says when it stops."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inference import Kernel, Tuning, as_kernel, cycle, hmc, iterate, mh, sample_posterior
from inference.running.block_size import BlockSize
from inference.running.blocks import Blocks
from inference.targets.fingerprints import FOLLOWS, PLAIN, WORDS, differences
from ppl import Target, draw, errors, factor, gen, sample

KEY = jax.random.key(7)
FEW = {"draws": 60, "warmup": 40, "chains": 3, "progress": False}


@gen
def model():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    k = sample("k", dist.Bernoulli(0.3))
    sample("y", dist.Normal(mu + k, 1.0))


TARGET = Target(model, (), {"y": 1.5})


def kernel():
    return cycle(hmc(TARGET, "mu", steps=3), mh(TARGET, "k"))


def run(**more):
    return sample_posterior(KEY, TARGET, kernel(), **{**FEW, **more})


@pytest.fixture(scope="module")
def whole():
    """The draws of the run that nothing happened to."""
    return run()


def same(one, other):
    """Whether two runs have the same draws and statistics, bit for bit."""
    trees = [(draws.choices, dict(draws.stats)) for draws in (one, other)]
    leaves = [jax.tree.leaves_with_path(tree) for tree in trees]
    return [p for p, _ in leaves[0]] == [p for p, _ in leaves[1]] and all(
        a.tobytes() == b.tobytes() and a.dtype == b.dtype
        for (_, a), (_, b) in zip(*leaves, strict=True)
    )


@pytest.mark.slow
def test_same_key_same_draws_and_another_key_others(whole):
    assert same(run(), whole)
    assert not same(sample_posterior(jax.random.key(8), TARGET, kernel(), **FEW), whole)


def test_shown_or_not_the_draws_are_the_same(whole, monkeypatch):
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert same(run(progress=True), whole)


def test_off_a_terminal_nothing_is_shown(capfd):
    sample_posterior(KEY, TARGET, mh(TARGET, "mu"), draws=5, warmup=5, chains=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_do_not_change_the_draws(whole, batch_size):
    found = run(batch_size=batch_size)
    # other vector widths may round differently: 60 contracting steps of a Gaussian posterior
    np.testing.assert_allclose(found["mu"], whole["mu"], rtol=0, atol=1e-3)
    assert (found["k"] == whole["k"]).all()


def test_sizes_of_blocks_do_not_change_the_draws(whole, monkeypatch):
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(7, most))
    assert same(run(), whole)


def test_thinned_draws_are_those_of_the_iterated_kernel():
    plain = mh(TARGET, "mu")
    few = {**FEW, "warmup": 0}
    thinned = sample_posterior(KEY, TARGET, plain, thin=3, **few)
    assert same(thinned, sample_posterior(KEY, TARGET, iterate(plain, 3), **few))
    assert not same(thinned, sample_posterior(KEY, TARGET, plain, **few))


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("write", range(1, 11, 2))
@pytest.mark.parametrize("renamed", [False, True])
def test_killed_at_any_write_and_resumed_it_is_the_same_run(
    whole, tmp_path, monkeypatch, write, renamed
):
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(16, most))
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


def test_a_finished_run_is_read_back(whole, tmp_path):
    run(checkpoint=tmp_path / "run")
    before = {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}
    assert same(run(checkpoint=tmp_path / "run"), whole)
    assert before == {f.name: f.read_bytes() for f in (tmp_path / "run").iterdir()}


@gen
def wider():
    mu = sample("mu", dist.Normal(0.0, 3.0))
    k = sample("k", dist.Bernoulli(0.5))
    sample("y", dist.Normal(mu + k, 1.0))


OTHERS = {"data": Target(model, (), {"y": 1.25}), "model": Target(wider, (), {"y": 1.5})}
ANOTHER = {  # what differs, and how it is told
    "data": ("other observations", "the same observations"),
    "model": ("another model", "the same model"),
    "settings": ("other settings of the kernel, or another program", "the same kernel"),
    "key": ("another key", "the same key"),
    "draws": ("draws: 60", "draws: 61"),
    "initial": ("start: uniform", "start: prior"),
}


@pytest.mark.slow
def test_a_checkpoint_of_another_run_says_what_differs(tmp_path):
    """What follows from a difference is not told; parts one by one are in the next test."""
    few = {**FEW, "checkpoint": tmp_path / "run"}
    sample_posterior(KEY, TARGET, kernel(), **few)
    for change, told in ANOTHER.items():
        target = OTHERS.get(change, TARGET)
        step = cycle(hmc(target, "mu", steps=4 if change == "settings" else 3), mh(target, "k"))
        key = jax.random.key(8) if change == "key" else KEY
        more = {"draws": {"draws": 61}, "initial": {"initial": "prior"}}.get(change, {})
        with pytest.raises(errors.CheckpointError, match="another run") as found:
            sample_posterior(key, target, step, **{**few, **more})
        assert (found.value.given, found.value.expected) == told
        assert "state.npz" in str(found.value) and "test_run.py" in str(found.value)


@pytest.mark.parametrize("name", [*PLAIN, *WORDS])
def test_every_part_of_a_run_is_told_alone_and_not_what_follows_from_it(name):
    parts = dict.fromkeys((*PLAIN, *WORDS), "one")
    follow = [other for other, causes in FOLLOWS.items() if name in causes]
    there = {**parts, name: "other", **dict.fromkeys(follow, "changed")}
    ((given, expected),) = differences(there, parts)
    assert given == (f"{name}: other" if name in PLAIN else WORDS[name])
    assert expected in (f"{name}: one", f"the same {name}", "the same kernel")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state.npz", "draws-16.npz"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_a_damaged_file_is_named(tmp_path, monkeypatch, name, damage):
    if (name, damage) == ("state.npz", "gone"):
        pytest.skip("without a state there is no checkpoint")
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(16, most))
    run(checkpoint=tmp_path / "run")
    file = tmp_path / "run" / name
    content = bytearray(file.read_bytes())
    with np.load(file) as arrays:
        values = max((arrays[n].tobytes() for n in arrays.files), key=len)
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[content.index(values) + len(values) // 2] ^= 255
        file.write_bytes(content)
    with pytest.raises(errors.CheckpointError) as error:
        run(checkpoint=tmp_path / "run")
    assert str(file) in str(error.value)


def test_checkpoints_hold_no_pickles(tmp_path):
    run(checkpoint=tmp_path / "run")
    for file in (tmp_path / "run").iterdir():
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays.files)


def test_interrupted_it_keeps_what_it_has(whole, monkeypatch):
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(20, most))

    def advance_once(phase, done, total):
        if (phase, done) == ("sampling", 40):
            raise KeyboardInterrupt

    class Bar:
        def __enter__(self):
            return advance_once

        def __exit__(self, *_):
            return False

    monkeypatch.setattr("inference.running.run.bar", lambda show: Bar())
    found = run()
    assert found.status == "interrupted after 40 of 60 draws"
    assert (found["mu"] == whole["mu"][:, :40]).all()


@pytest.mark.slow
def test_tuning_ends_with_the_warm_up():
    """In a block that does not warm, the frozen parameters act and the tuning stays."""
    tuned = hmc(TARGET, "mu", steps=3)
    programs = Blocks(TARGET, tuned, jax.random.key_impl(KEY))
    data = jax.random.key_data(KEY)
    state, tuning, _ = programs.begin(data, {}, "prior", 40)
    metric = tuned.parameters._replace(step_size=jnp.asarray(0.3))
    arguments = (data, tuning, metric, state, 0, 20)
    after, _, kept = programs.steps(20)(*arguments, False)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), after, tuning))
    fixed = Kernel(
        "fixed", tuned.step, metric, None, tuned.enter, tuned.leave, tuned.read, tuned.valid
    )
    untuned = Blocks(TARGET, fixed, jax.random.key_impl(KEY))
    _, _, same_kept = untuned.steps(20)(data, metric, metric, state, 0, 20, False)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), kept, same_kept))
    warmed, _, _ = programs.steps(20)(*arguments, True)
    assert int(warmed.time) == 20 and warmed.metric.step_size != tuning.metric.step_size


def test_a_kernel_that_counts_its_warm_up_steps():
    """`init` hears of all steps, `update` sees each once, `freeze` comes once at the end."""
    count = Tuning(
        init=lambda state, n: jnp.array([0, n]),
        parameters=lambda tuning: jnp.zeros((), int) - 1,
        update=lambda tuning, state, stats: tuning + jnp.array([1, 0]),
        freeze=lambda tuning: 1000 * tuning[0] + tuning[1],
    )
    watcher = Kernel("watcher", lambda p, trace: (trace, {"p": p}), jnp.array(-1), count)
    for several in (watcher, cycle(watcher, mh(TARGET, "k")), iterate(watcher, 2)):
        found = sample_posterior(KEY, TARGET, several, **FEW)
        (name,) = (name for name in found.stats if name.endswith("p"))
        assert (found.stats[name] == 40040).all()


@pytest.mark.slow
def test_starts_are_given_or_from_the_prior_or_uniform():
    stay = as_kernel(lambda trace: trace)

    def first(initial, chains=3):
        few = {**FEW, "chains": chains, "draws": 1, "warmup": 0}
        return sample_posterior(KEY, TARGET, stay, initial=initial, **few)

    assert first({"mu": 0.5})["mu"].tolist() == [[0.5]] * 3
    each = first({"mu": jnp.array([0.5, 1.5, 2.5]), "k": 1})
    assert each["mu"][:, 0].tolist() == [0.5, 1.5, 2.5] and (each["k"] == 1).all()
    uniform, prior = first("uniform", 500)["mu"], first("prior", 500)["mu"]
    assert (abs(uniform) < 2).all()
    # of 500 standard normals, all within (-2, 2) has probability 0.9545**500 < 1e-10
    assert (abs(prior) > 2).any()


@pytest.mark.parametrize(
    ("initial", "kind", "says"),
    [
        ("anywhere", errors.InvalidArgument, "uniform"),
        ({"nu": 1.0}, errors.AddressNotFound, "nu"),
        ({"mu": jnp.zeros(2)}, errors.ShapeError, "mu"),
        ({"k": 0.5}, errors.DtypeError, "k"),
        ({"y": 1.0}, errors.InvalidArgument, "observed"),
    ],
)
def test_wrong_starts_are_refused(initial, kind, says):
    with pytest.raises(kind, match=says):
        run(initial=initial)


def test_no_finite_start_is_said_before_the_loop_compiles(monkeypatch):
    @gen
    def impossible():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("sigma", dist.HalfNormal(1.0))
        factor(jnp.where(mu > 100, 0.0, -jnp.inf))

    target = Target(impossible)
    monkeypatch.setattr(Blocks, "steps", lambda *_: pytest.fail("the loop was made"))
    with pytest.raises(errors.NonFiniteStart) as error:
        sample_posterior(KEY, target, mh(target, "mu"), **FEW)
    rows = {row[0].split(".py")[0]: row for row in error.value.rows}
    assert set(rows) == {'"mu"', '"sigma"', "factor at tests/test_run"}
    assert "on positive" in str(error.value) and len(str(error.value).splitlines()) <= 12


def test_a_factor_that_is_no_number_is_named_where_it_is():
    """At the top and in a loop, beside factors that are fine."""

    @gen
    def odd():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        factor(mu)
        jax.vmap(lambda x: factor(jnp.log(-1 - (mu * x) ** 2)))(jnp.arange(2.0))

    target = Target(odd)
    with pytest.raises(errors.NonFiniteStart, match="no start with a finite") as error:
        sample_posterior(KEY, target, mh(target, "mu"), **FEW)
    first, *rest = error.value.rows
    line = odd.fn.__code__.co_firstlineno
    assert first[0].endswith(f"test_run.py:{line + 4}") and np.isnan(first[3])
    assert f"test_run.py:{line + 3}" in next(row[0] for row in rest if "factor" in row[0])
    assert "what is given to the factor" in str(error.value)


def test_a_value_that_is_no_number_stops_the_run_and_keeps_the_rest(monkeypatch):
    monkeypatch.setattr(BlockSize, "next", lambda self, most: min(20, most))

    def step(count, trace):
        mu = jnp.where(trace["mu"] > 0, jnp.nan, trace["mu"] + 1 / 32)
        return TARGET.update(trace, {"mu": mu})[0], {}

    # from -1 in steps of 1/32: 0.03 after 33 steps, then no number
    broken = Kernel("broken", step)
    with pytest.raises(errors.NonFiniteDraw, match=r"chain 0, draw 33 .*\"mu\"") as error:
        sample_posterior(KEY, TARGET, broken, **{**FEW, "warmup": 0}, initial={"mu": -1.0})
    assert error.value.draws["mu"].shape == (3, 20)
    with pytest.raises(errors.NonFiniteDraw, match="warm-up step 33"):
        sample_posterior(KEY, TARGET, broken, **FEW, initial={"mu": -1.0})


@pytest.mark.parametrize(
    "wrong",
    [lambda trace: trace["mu"], lambda trace: TARGET.at({"mu": jnp.zeros(2), "k": 0})[0]],
    ids=["value", "shape"],
)
def test_a_kernel_that_returns_something_else_is_refused(wrong):
    with pytest.raises((errors.InvalidArgument, errors.ShapeError), match=r"trace|shape"):
        sample_posterior(KEY, TARGET, wrong, **FEW)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"draws": 0}, "draws"),
        ({"warmup": -1}, "warmup"),
        ({"thin": 1.5}, "thin"),
        ({"chains": True}, "chains"),
        ({"batch_size": 0}, "batch"),
    ],
)
def test_counts_are_checked(wrong, says):
    with pytest.raises(errors.InvalidArgument, match=says):
        run(**wrong)


@pytest.mark.slow
def test_without_a_warm_up_parameters_are_those_given():
    found = run(warmup=0)
    again = run(warmup=0, draws=30)
    assert found["mu"].shape == (3, 60) and (found["mu"][:, :30] == again["mu"]).all()


def test_models_with_static_arguments():
    @gen(static_argnames="n")
    def coins(n):
        sample("up", dist.Bernoulli(0.5).expand([n]))

    target = Target(coins, (3,), {})
    draws = sample_posterior(KEY, target, mh(target, "up"), **FEW)
    assert draws["up"].shape == (3, 60, 3)


def test_population_kernels_give_a_chain_for_each_member():
    def swap(_, traces):
        return jax.tree.map(lambda x: x[::-1], traces), {}

    both = Kernel("swap", swap, members=2, draws=2)
    found = sample_posterior(KEY, TARGET, both, **{**FEW, "warmup": 0})
    assert found["mu"].shape == (6, 60)
    # the members change places: each chain alternates between the same two values
    assert (found["mu"][0, 0::2] == found["mu"][1, 1::2]).all()
    with pytest.raises(errors.InvalidArgument, match="different sizes"):
        cycle(both, mh(TARGET, "k"))


def test_a_random_step_size_reaches_the_step():
    """A kernel may draw in its update: warm-up is a random program as well."""
    tune = Tuning(
        init=lambda state, n: jnp.zeros(()),
        parameters=lambda tuning: tuning,
        update=lambda tuning, state, stats: draw(dist.Uniform(1.0, 2.0)),
        freeze=lambda tuning: tuning,
    )
    found = sample_posterior(
        KEY, TARGET, Kernel("k", lambda p, t: (t, {"p": p}), jnp.zeros(()), tune), **FEW
    )
    p = found.stats["p"]
    assert ((p >= 1) & (p <= 2)).all() and (p == p[:, :1]).all() and len(np.unique(p)) == 3
