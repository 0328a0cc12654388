"""`check_generative_function` passes what is right, and finds each law broken.

Finite models are enumerated: a fault there is seen if it changes a probability by more than
1e-12, so every one below is (they change some by more than 1e-3).

Longer than 400 lines because each law has its broken model beside it.
"""

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from models import MODELS, TABLE

from ppl import Target, draw, errors, factor, gen, sample, select
from ppl.addresses import as_selection
from semantics import programs
from semantics.check import find, kernels
from semantics.laws.generative_function import LAWS, check_generative_function

ROOT = Path(__file__).parents[1]


@gen
def small(p):
    a = sample("a", dist.Bernoulli(p))
    return sample("b", dist.Categorical(TABLE[a]))


@gen
def smooth(scale):
    mu = sample("mu", dist.Normal(1.0, scale))
    return sample("y", dist.Normal(mu * jnp.array([0.5, 1.0, 2.0]), 0.5))


def outcome(verdicts):
    return {v.check: (v.passed, v.method) for v in verdicts}


# -- what is right -------------------------------------------------------------------------


def test_every_law_of_a_finite_model_is_exact():
    found = outcome(check_generative_function(small, 0.4, constraints={"b": 2}))
    assert list(found) == list(LAWS)
    assert set(found.values()) == {(True, "exact")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["branching", "chain"])
def test_moves_of_models_with_branches_and_loops(name):
    model = MODELS[name]
    verdicts = check_generative_function(model, 0.4, laws=("update", "regenerate"))
    assert set(outcome(verdicts).values()) == {(True, "exact")}
    assert all(v.n > 100 for v in verdicts)  # choices appear and disappear: something was compared


@pytest.mark.slow
def test_every_law_of_a_continuous_model():
    found = outcome(check_generative_function(smooth, 2.0, constraints={"y": jnp.ones(3)}))
    assert list(found) == list(LAWS)
    assert all(passed for passed, _ in found.values())


def test_a_model_without_choices():
    laws = ("simulate", "update", "project")
    verdicts = check_generative_function(gen(lambda: 1.0), laws=laws)
    assert set(outcome(verdicts).values()) == {(True, "exact")}


def test_a_constraint_in_a_branch_holds_only_where_it_is_taken():
    (verdict,) = check_generative_function(
        MODELS["branching"], 0.4, constraints={"l": 0}, laws=("generate",)
    )
    assert verdict.require().method == "exact"


def test_in_32_bits():
    with jax.enable_x64(False):
        laws = ("assess", "update", "project")
        verdicts = check_generative_function(smooth, 2.0, laws=laws)
    assert all(verdicts), [str(v) for v in verdicts]
    # 64 roundings of 2^-23: so it was in 32 bits that it passed
    assert {v.threshold for v in verdicts} == {2.0**-17}


def test_a_model_with_factors_has_no_simulate():
    @gen
    def scored(p):
        factor(jnp.where(sample("a", dist.Bernoulli(p)) == 1, -0.3, 0.4))

    laws = ("simulate", "generate", "project")
    simulate, generate, project = check_generative_function(scored, 0.4, laws=laws)
    assert simulate.check == "simulate (left out: it scores with factor or observe)"
    assert simulate and simulate.n == 0
    assert generate.require().method == project.require().method == "exact"


def test_of_a_model_that_draws_only_masses_are_checked():
    @gen
    def noisy(p):
        q = jnp.where(draw(dist.Bernoulli(0.3)) == 1, p, 0.9)
        a = sample("a", dist.Bernoulli(q))
        return sample("b", dist.Categorical(TABLE[a]))

    laws = ("simulate", "generate", "regenerate")
    simulate, generate, regenerate = check_generative_function(noisy, 0.4, laws=laws)
    assert simulate.require().n >= 5 and generate.require().n >= 5  # TABLE has a zero
    assert regenerate.check == "regenerate (left out: it draws without addresses)"


def test_generated_programs():
    strategy = programs.discrete(("chain",))
    laws = ("simulate", "update")
    for verdict in check_generative_function(strategy, laws=laws, max_examples=5):
        assert verdict.require().programs == 5


# -- what is wrong -------------------------------------------------------------------------


class Wrapped:
    """An object with the methods of a generative function, and no other relation to it."""

    def __init__(self, model):
        self.model = model
        for name in ("sites", "simulate", "assess", "generate", "update", "regenerate", "project"):
            if not hasattr(type(self), name):
                setattr(self, name, getattr(model, name))


class ScoreOff(Wrapped):
    """assess is off by a constant."""

    def assess(self, choices, *args):
        score, retval = self.model.assess(choices, *args)
        return score + 0.01, retval


class OldReturn(Wrapped):
    """assess returns something else than the model."""

    def assess(self, choices, *args):
        score, retval = self.model.assess(choices, *args)
        return score, retval + 1


class StaleScore(Wrapped):
    """The score of simulated traces is off by a constant."""

    def simulate(self, *args):
        trace = self.model.simulate(*args)
        return replace(trace, score=trace.score - 0.01)


class Tempered(Wrapped):
    """simulate draws from another distribution than its score is of."""

    def simulate(self, p):
        choices = self.model.simulate(p**2).choices
        return self.model.generate(choices, p)[0]


class Forgets(Wrapped):
    """generate forgets the weight of one constraint."""

    def generate(self, constraints, *args):
        last = list(self.sites(*args))[-1]
        trace, log_weight = self.model.generate(constraints, *args)
        if last[0] in constraints:
            log_weight = log_weight - self.model.project(trace, last)
        return trace, log_weight


class Ignores(Wrapped):
    """generate draws what it should have kept."""

    def generate(self, constraints, *args):
        trace, log_weight = self.model.generate(constraints, *args)
        if constraints:
            trace, _, _ = self.model.regenerate(trace, next(iter(constraints)))
        return trace, log_weight


class Discards(Wrapped):
    """update leaves something out of what it discards."""

    def update(self, trace, constraints, *args):
        new, log_weight, discarded = self.model.update(trace, constraints, *args)
        return new, log_weight, dict(list(discarded.items())[1:])


class NoOldScore(Wrapped):
    """update's weight leaves out the old values of what changed."""

    def update(self, trace, constraints, *args):
        new, log_weight, discarded = self.model.update(trace, constraints, *args)
        lost = self.model.project(trace, select(*constraints)) if constraints else 0.0
        return new, log_weight + lost, discarded


class ForgetsKept(Wrapped):
    """regenerate's weight leaves out the choices that it keeps."""

    def regenerate(self, trace, selection, *args):
        new, _, discarded = self.model.regenerate(trace, selection, *args)
        return new, jnp.zeros(()), discarded


class WrongWay(Wrapped):
    """regenerate's weight has the wrong sign."""

    def regenerate(self, trace, selection, *args):
        new, log_weight, discarded = self.model.regenerate(trace, selection, *args)
        return new, -log_weight, discarded


class WrongComplement(Wrapped):
    """project of a complement counts a choice that it excludes."""

    def project(self, trace, selection):
        total = self.model.project(trace, selection)
        first = next(iter(self.sites(*trace.args)))
        chosen = as_selection(selection)
        counts = not chosen(first) and repr(chosen).startswith("select")
        return total + self.model.project(trace, first) if counts else total


RNG = np.random.default_rng(0)


class Impure(Wrapped):
    """generate has a generator of its own."""

    def generate(self, constraints, *args):
        trace, log_weight = self.model.generate(constraints, *args)
        return trace, log_weight + RNG.normal()


class OtherSites(Wrapped):
    """sites foretells floats where there are integers."""

    def sites(self, *args):
        found = self.model.sites(*args)
        path, site = next(iter(found.items()))
        return found | {path: replace(site, spec=replace(site.spec, dtype=jnp.dtype(float)))}


@jax.custom_batching.custom_vmap
def same(x):
    return x


@same.def_vmap
def _(size, batched, x):
    return x + 0.01, batched[0]


class Batches(Wrapped):
    """assess under vmap is not assess."""

    def assess(self, choices, *args):
        score, retval = self.model.assess(choices, *args)
        return same(score), retval


BROKEN = [
    (ScoreOff, "assess"),
    (OldReturn, "assess"),
    (StaleScore, "simulate"),
    (Tempered, "simulate"),
    (Forgets, "generate"),
    (Ignores, "generate"),
    (Discards, "update"),
    (NoOldScore, "update"),
    (ForgetsKept, "regenerate"),
    (WrongComplement, "project"),
    (Impure, "purity"),
    (OtherSites, "sites"),
    (Batches, "batching"),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind, law", BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_a_broken_method_is_found(kind, law):
    (verdict,) = check_generative_function(kind(small), 0.4, laws=(law,))
    assert not verdict and verdict.check == law
    assert "raised" not in verdict.witness, verdict.witness
    assert verdict.error > verdict.threshold and verdict.witness


CONTINUOUS = [
    (ScoreOff, "assess"),
    (Forgets, "generate"),
    (Discards, "update"),
    (WrongWay, "regenerate"),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind, law", CONTINUOUS, ids=[kind.__name__ for kind, _ in CONTINUOUS])
def test_a_broken_method_of_a_continuous_model_is_found(kind, law):
    (verdict,) = check_generative_function(kind(smooth), 2.0, laws=(law,))
    assert not verdict and verdict.check == law
    assert "raised" not in verdict.witness, verdict.witness


def test_simulate_of_another_distribution_is_found_by_quadrature():
    """The score is that of the choices: only an integral tells that they are drawn wrongly."""
    one = gen(lambda scale: sample("mu", dist.Normal(1.0, scale)))
    (right,) = check_generative_function(one, 2.0, laws=("simulate",))
    (wrong,) = check_generative_function(Tempered(one), 2.0, laws=("simulate",))
    assert right.require().method == wrong.method == "quadrature"
    assert not wrong and "under simulate()" in wrong.witness


def test_a_wrapper_that_changes_nothing_passes():
    assert all(check_generative_function(Wrapped(small), 0.4, laws=("regenerate", "purity")))


def test_a_model_that_draws_while_it_is_staged_is_impure():
    model = gen(lambda: sample("x", dist.Bernoulli(RNG.uniform(0.2, 0.8))))
    (verdict,) = check_generative_function(model, laws=("purity",))
    assert not verdict and "with one key" in verdict.witness


@pytest.mark.slow
def test_a_failure_is_a_minimal_program_as_code():
    broken = functools.cache(ForgetsKept)  # one object for a model, so that it compiles once

    def of(program):
        target = program.target
        return SimpleNamespace(
            code=program.code,
            target=SimpleNamespace(model=broken(target.model), args=target.args, observations={}),
        )

    strategy = programs.discrete(("chain",)).map(of)
    (verdict,) = check_generative_function(strategy, laws=("regenerate",), max_examples=20)
    assert not verdict
    assert "the log weight of regenerate" in verdict.witness
    assert 'sample("a", dist.Categorical(tables["a"]))' in verdict.witness


def test_a_method_that_raises_has_failed():
    class Raises(Wrapped):
        def project(self, trace, selection):
            raise RuntimeError("no such luck")

    (verdict,) = check_generative_function(Raises(small), 0.4, laws=("project",))
    assert not verdict
    assert "raised RuntimeError: no such luck" in verdict.witness
    assert "test_semantics_laws.py" in verdict.witness


def test_what_is_no_generative_function_is_refused():
    with pytest.raises(errors.InvalidArgument, match="has a method 'simulate'") as refused:
        check_generative_function(Target(small, (0.4,)))
    assert refused.value.fix == "give target.model, *target.args"
    with pytest.raises(errors.InvalidArgument, match="Unknown law") as refused:
        check_generative_function(small, 0.4, laws=("updates",))
    assert refused.value.fix == "did you mean 'update'?"


# -- the command ---------------------------------------------------------------------------

MODULE = """
import numpyro.distributions as dist
from ppl import Target, gen, sample

@gen
def coin(p):
    return sample("x", dist.Bernoulli(p))

target = Target(coin, (0.25,))
alone = gen(lambda: sample("y", dist.Bernoulli(0.5)))
needs = gen(lambda p: sample("y", dist.Bernoulli(p)))

class Broken:
    def __getattr__(self, name):
        return getattr(alone, name)

    def assess(self, choices):
        score, retval = alone.assess(choices)
        return score + 0.5, retval

broken = Broken()
"""


def command(name, cwd):
    run = [sys.executable, "-m", "semantics.check", name]
    env = {"PYTHONPATH": str(ROOT), "PATH": "", "COLUMNS": "100"}
    return subprocess.run(run, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("module")
    (folder / "my_coin.py").write_text(MODULE)
    return folder


def rows(output):
    """The cells of the table, by their first."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    return {first: rest for first, *rest in cells}


@pytest.mark.slow
def test_the_command_on_the_quickstart():
    run = command("examples.quickstart:model", ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    found = rows(run.stdout)
    assert list(found) == [*LAWS, 'mh("mu")', 'mh("tau")', 'mh("z")', "their cycle"]
    assert {row[0] for row in found.values()} == {"passed"}


def test_the_kernels_of_a_finite_target_are_enumerated():
    found = outcome(kernels(Target(small, (0.4,))))
    assert list(found) == ['mh("a")', 'mh("b")', "their cycle"]
    assert set(found.values()) == {(True, "exact")}


def test_the_kernels_of_a_continuous_target_are_sampled():
    found = outcome(kernels(Target(smooth, (2.0,), {"y": jnp.ones(3)})))
    assert found == {'mh("mu")': (True, "e-value")}


@pytest.mark.slow
def test_the_command_fails_a_broken_model(module):
    run = command("my_coin:broken", module)
    assert run.returncode == 1, run.stderr
    assert rows(run.stdout)["assess"][0] == "FAILED"
    assert "assess is" in run.stdout


@pytest.mark.parametrize(
    "name, says",
    [
        ("my_coin", "What to check is not named as MODULE:NAME."),
        ("my_coins:coin", "There is no module 'my_coins'."),
        ("my_coin.py:coin", "fix:      name the module, not its file: my_coin"),
        ("my_coin:coint", "fix:      did you mean 'coin'?"),
        ("my_coin:sample", "'sample' is neither a Target nor a generative function."),
        ("my_coin:needs", "fix:      define a Target(needs, (arguments, ...)) in my_coin"),
    ],
)
def test_usage_errors_say_what_to_name(module, monkeypatch, name, says):
    monkeypatch.chdir(module)
    with pytest.raises(errors.InvalidArgument) as refused:
        find(name)
    assert says in str(refused.value)


def test_what_a_name_stands_for(module, monkeypatch):
    monkeypatch.chdir(module)
    target, coin, alone = (find(f"my_coin:{name}") for name in ("target", "coin", "alone"))
    assert target.args == (0.25,) and target.target is not None
    assert coin == target  # the model of a target
    assert alone.args == () and alone.target is None
