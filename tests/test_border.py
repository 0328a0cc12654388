"""Every door of the library, and what may come in: the right number or our error.

A door is a public way in which an array enters; the zoo has arrays, and things that are none.

Longer than 400 lines because it is a list of doors, things and cases.
"""

from functools import partial
from types import FunctionType

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from inference import particle_filter
from inference.running.starting import given_values
from ppl import Masked, Target, draw, errors, factor, gen, observe, sample, seed
from ppl.distributions import log_density

KEY = jax.random.key(0)


def series(values):
    return pytest.importorskip("pandas").Series(values)


@gen
def real():
    sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(0.0, 1.0).expand([2]))


@gen
def counts():
    sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Poisson(3.0).expand([2]))


REAL = np.array([0.5, 1.5])
LARGE = [3, 2**32 + 5]
# name: (value, the array that it is, or None where it must be refused)
ZOO = {
    "array": (REAL, REAL),
    "float16": (REAL.astype("float16"), REAL),
    "jax": (jnp.asarray(REAL, "float32"), REAL),
    "list": ([0.5, 1.5], REAL),
    "tuple": ((0.5, 1.5), REAL),
    "list of ints": ([1, 2], np.array([1.0, 2.0])),
    "list of jax": ([jnp.float32(0.5), jnp.float32(1.5)], REAL),
    "series": (lambda: series([0.5, 1.5]), REAL),
    "series of None": (lambda: series([0.5, None]), None),  # pandas makes it NaN
    "series of texts": (lambda: series(["a", "b"]), None),
    "table": (lambda: pytest.importorskip("pandas").DataFrame({"a": [0.5, 1.5]}), None),
    "nan": (np.array([0.5, np.nan]), None),
    "list with nan": ([0.5, float("nan")], None),
    "inf": (np.array([0.5, np.inf]), None),
    "too large": (np.array([0.5, 1e300]), None),
    "list with None": ([0.5, None], None),
    "ragged": ([0.5, [1.0, 2.0]], None),
    "string": ("a", None),
    "strings": (np.array(["a", "b"]), None),
    "dates": (np.array(["2020-01-01", "2020-01-02"], "datetime64[D]"), None),
    "None": (None, None),
    "objects": (np.array([0.5, None], object), None),
    "complex": (np.array([0.5, 1.5j]), None),
    "column": (REAL[:, None], None),
    "long": (np.zeros(3), None),
    "scalar": (0.5, None),
    "empty": (np.zeros(0), None),
    "ints": (np.array([1, 2]), None),  # Python's are of any kind, arrays have one
    "bools": (np.array([True, False]), None),
    "set": ({0.5, 1.5}, None),
    "object": (object(), None),
    "dict": ({"a": REAL}, None),
    "distribution": (dist.Normal(0.0, 1.0), None),
    "function": (np.sin, None),
}
COUNTS = {
    "array": (np.array([3, 4]), np.array([3, 4])),
    "int8": (np.array([3, 4], "int8"), np.array([3, 4])),
    "uint64": (np.array([3, 4], "uint64"), None),  # no kind of int64
    "list": ([3, 4], np.array([3, 4])),
    "series": (lambda: series([3, 4]), np.array([3, 4])),
    "bools": (np.array([True, False]), np.array([1, 0])),
    "too large": (np.array(LARGE), None),
    "list too large": (LARGE, None),
    "beyond int64": ([3, 2**70], None),
    "negative": (np.array([3, -1]), None),
    "floats": (np.array([3.0, 4.0]), None),
    "fraction": ([3, 4.5], None),
    "nan": ([3, float("nan")], None),
}


def score(trace):
    return float(trace.score)


def by_target(model, value):
    return float(Target(model, (), {"y": value}).log_density({"mu": 0.0}))


def by_generate(model, value):
    return score(seed(model.generate)(KEY, {"mu": 0.0, "y": value})[0])


def by_assess(model, value):
    return float(model.assess({"mu": 0.0, "y": value})[0])


def by_update(model, value):
    trace, _ = model.generate({"mu": 0.0, "y": np.array([1, 2], model.sites()["y",].dtype)})
    return score(seed(model.update)(KEY, trace, {"y": value})[0])


def by_mask(model, value):
    return by_generate(model, Masked(value, np.ones(2, bool)))


def by_initial(model, value):
    _, values = given_values(Target(model, (), {"mu": 0.0}), {"y": value}, 3)
    assert values["y"].shape == (3, 2)
    return by_target(model, values["y"][2])


def by_observe(model, value):
    d = dist.Poisson(3.0) if model is counts else dist.Normal(0.0, 1.0)
    log_weight = gen(lambda: observe(d.expand([2]), value)).generate({})[1]
    return float(log_weight) + st.norm.logpdf(0.0)


def by_filter(model, value):
    d = dist.Poisson(3.0) if model is counts else dist.Normal(0.0, 1.0)

    @gen
    def step(z, _):
        sample("y", d)
        return z, None

    run = seed(lambda: particle_filter(step, 0.0, {"y": value}, 2).history.log_evidence[-1])
    return float(run(KEY)) + st.norm.logpdf(0.0)


DOORS = [
    by_target, by_generate, by_assess, by_update, by_mask, by_initial, by_observe, by_filter
]  # fmt: skip


def made(value):
    return value() if isinstance(value, FunctionType) else value


@pytest.mark.parametrize("door", DOORS)
def test_what_enters_is_the_right_number_or_our_error(door):
    """All doors x the zoo (S3, S9, R9): reals and counts, in single precision."""
    wrong = []
    for model, zoo in ((real, ZOO), (counts, COUNTS)):
        law = st.poisson(3.0).logpmf if model is counts else st.norm.logpdf
        for name, (value, meant) in zoo.items():
            if door is by_filter and name == "long":
                continue  # a series of three steps
            if door is by_observe and name in ("ints", "bools", "floats", "uint64"):
                continue  # a density in place takes whole numbers of any dtype
            expected = None if meant is None else law(meant).sum() + st.norm.logpdf(0.0)
            wrong += outcome(f"{name} of {model.name}", partial(door, model), value, expected)
    assert not wrong, "\n".join(wrong)


def outcome(name, door, value, expected):
    """What is wrong with what `door(value)` gave: a line, or nothing."""
    with jax.enable_x64(False):
        try:
            found = door(made(value))
        except errors.PPLError as error:
            text = str(error)
            good = expected is None and "test_border.py" in text and len(text.splitlines()) <= 12
            return [] if good else [f"{name}: {type(error).__name__} {text}"]
        except Exception as error:  # a raw error is what is looked for
            return [f"{name}: raw {type(error).__name__}: {error}"]
    # a handful of roundings of numbers below 8
    good = expected is not None and abs(found - expected) < 1e-5
    return [] if good else [f"{name}: {found} for {expected}"]


@gen
def line(x):
    sample("y", dist.Normal(2.0 * x, 1.0))


ARGUMENTS = {
    **ZOO,
    "list": ([0.5, 1.5], None),  # a tree of numbers: told where it is computed with
    "tuple": ((0.5, 1.5), None),
    "list of ints": ([1, 2], None),
    "list of jax": ([jnp.float32(0.5), jnp.float32(1.5)], None),
    "ints": (np.array([1, 2]), np.array([1, 2])),
    "bools": (np.array([True, False]), np.array([1, 0])),
    "scalar": None,  # of another shape, and as good
    "long": None,
    "column": None,
    "empty": None,
    "large int": (np.array(LARGE), None),
}
WAYS = {
    "target": lambda x: float(Target(line, (x,), {"y": REAL}).log_density({})),
    "keyword": lambda x: float(line.assess({"y": REAL}, x=x)[0]),
    "seeded": lambda x: score(seed(line.generate)(KEY, {"y": REAL}, x)[0]),
    "nested": lambda x: score(
        gen(lambda: sample("sub", line(x))).generate({"sub": {"y": REAL}})[0]
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_arguments_are_looked_at_as_observations_are(way):
    """R9: all ways to give an argument x the zoo."""
    wrong = []
    for name, entry in ARGUMENTS.items():
        if entry is not None:
            value, meant = entry
            expected = None if meant is None else st.norm(2.0 * meant).logpdf(REAL).sum()
            wrong += outcome(name, way, value, expected)
    assert not wrong, "\n".join(wrong)


def test_numbers_that_do_not_fit_are_named_with_their_index():
    with jax.enable_x64(False):
        with pytest.raises(errors.DtypeError) as found:
            Target(counts, (), {"y": np.array(LARGE)})
        assert "4294967301 at [1] (1 of 2)" in str(found.value)
        with pytest.raises(errors.DtypeError, match="argument `n`") as found:
            gen(lambda n: sample("k", dist.Poisson(1.0 * n))).sites(np.int64(2**32 + 10))
    with jax.enable_x64(True):  # there they fit
        Target(counts, (), {"y": np.array(LARGE)})


# -- S4, S8, S10, R5, R7, R10, R13: each case, with what it must say ---------------------


def told(call, kind, *parts):
    with pytest.raises(kind) as found:
        call()
    text = str(found.value)
    assert "test_border.py" in text and len(text.splitlines()) <= 12
    for part in parts:
        assert part in text, text


def simulated(fn, *args):
    return lambda: seed(gen(fn).simulate)(KEY, *args)


def test_a_result_that_is_no_array_is_told():
    told(simulated(lambda: dist.Normal(0.0, 1.0)), errors.InvalidDistribution, "sample it")
    told(simulated(lambda: {"a": "text"}), errors.InvalidArgument, "str: 'text'")


def test_words_of_numpyro_are_told():
    """R7: each of its words, and its ways to call ours."""
    d = dist.Normal(0.0, 1.0)

    def plated():
        with numpyro.plate("n", 3):
            sample("y", d)

    for word, fn in {
        "numpyro.sample": lambda: numpyro.sample("y", d),
        'numpyro.sample("y"': lambda: numpyro.sample("y", d, obs=1.0),
        "numpyro.plate": plated,
        "numpyro.factor": lambda: numpyro.factor("f", 1.0),
        "numpyro.deterministic": lambda: numpyro.deterministic("z", 1.0),
        "numpyro.param": lambda: numpyro.param("p", 1.0),
        "Target(model": lambda: sample("y", d, obs=1.0),
        "seed(model.simulate)": lambda: sample("y", d, rng_key=KEY),
        "an address": lambda: sample(d),
        "has no name": lambda: factor("f", 1.0),
        "distribution alone": lambda: draw(KEY, d),
    }.items():
        told(simulated(fn), errors.InvalidArgument, word)


def test_a_handler_of_numpyros_own_takes_its_words():
    def model():
        with numpyro.handlers.seed(rng_seed=0):
            return numpyro.sample("y", dist.Normal(0.0, 1.0))

    with numpyro.handlers.seed(rng_seed=0):
        expected = numpyro.sample("y", dist.Normal(0.0, 1.0))
    assert float(simulated(model)().retval) == float(expected)


SCALES = {
    "itself": (lambda s: sample("y", dist.Normal(0.0, s)), -1.0),
    "computed": (lambda s: sample("y", dist.Normal(0.0, jnp.exp(s) - 2.0)), 0.0),
    "in a vmap": (
        lambda s: jax.vmap(lambda s: sample("y", dist.Normal(0.0, s)))(s), np.array([1.0, -1.0]),
    ),
    "in a scan": (
        lambda s: jax.lax.scan(lambda c, s: (sample("y", dist.Normal(c, s)), None), 0.0, s)[0],
        np.array([1.0, -1.0]),
    ),
    "in a call": (lambda s: sample("a", inner(s)), -1.0),
    "in a branch": (
        lambda s: jax.lax.cond(s < 0, lambda: sample("y", dist.Normal(0.0, s)), lambda: s), -1.0,
    ),
    "in checkpoint": (
        lambda s: jax.checkpoint(lambda s: sample("y", dist.Normal(0.0, s)))(s), -1.0,
    ),
    "order": (lambda s: sample("y", dist.Uniform(0.0, s)), -1.0),
    "NaN": (lambda s: sample("y", dist.Normal(s, 1.0)), np.nan),
}  # fmt: skip
inner = gen(lambda s: sample("y", dist.Normal(0.0, s)))


@pytest.mark.parametrize("where", SCALES)
def test_a_parameter_outside_its_constraint_that_is_an_argument(where):
    """S10: all constructs that an argument can go through."""
    fn, scale = SCALES[where]
    told(lambda: Target(gen(fn), (scale,)), errors.InvalidDistribution, '"y"', "where:")
    told(simulated(fn, scale), errors.InvalidDistribution, '"y"')


def test_a_parameter_that_leaves_its_constraint_is_named_at_given_latents():
    @gen
    def model():
        s = sample("s", dist.Normal(0.0, 1.0))
        jax.vmap(lambda x: sample("y", dist.Normal(x, s)))(jnp.arange(3.0))

    target = Target(model, (), {"y": np.zeros(3)})
    found = jax.jit(jax.vmap(lambda s: target.faults({"s": s})))(jnp.array([-1.0, 0.0, 1.0]))
    assert found['the parameter `scale` of "y" is outside positive(0)'].tolist() == [1, 1, 0]
    assert found['the log density of "s" is no number'].tolist() == [0, 0, 0]


FAMILIES = {
    dist.Normal: st.norm, dist.Logistic: st.logistic, dist.Laplace: st.laplace,
    dist.Cauchy: st.cauchy, dist.SoftLaplace: st.hypsecant,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_truncated_density_is_finite_however_far_out(family):
    """S4: every family that numpyro truncates but Student's, both sides, in single precision.

    The reference adds up scipy's logarithms of tails; a mass of e^-800 has no other form.
    """
    law = FAMILIES[family]
    with jax.enable_x64(False):
        for shift in (0.0, 3.0, 13.0, 40.0):
            for sign in (1.0, -1.0):
                ends = sorted([sign * shift, sign * (shift + 1.0)])
                value = sum(ends) / 2
                tails = sorted(law.logcdf(-abs(end)) for end in ends)
                mass = tails[1] + np.log1p(-np.exp(tails[0] - tails[1]))
                one_sided = dist.TruncatedDistribution(
                    family(0.0, 1.0), **({"low": ends[0]} if sign > 0 else {"high": ends[1]})
                )
                both = dist.TruncatedDistribution(family(0.0, 1.0), low=ends[0], high=ends[1])
                for d, log_mass in ((one_sided, tails[1]), (both, mass)):
                    found = gen(lambda d=d: sample("y", d)).assess({"y": value})[0]
                    # a few roundings of logarithms below 900
                    expected = law.logpdf(value) - log_mass
                    assert float(found) == pytest.approx(expected, abs=2e-3), (d, shift, sign)


def test_an_overflow_is_no_infinite_weight_and_an_infinite_edge_stays_one():
    with jax.enable_x64(False):
        t = dist.TruncatedDistribution(dist.StudentT(80.0, -400.0, 1.0), low=0.0)
        assert np.isnan(log_density(t, jnp.float32(0.1)))
        assert log_density(dist.Beta(0.1, 0.1), jnp.float32(0.0)) == jnp.inf
        told(lambda: gen(lambda: sample("y", t)).assess({"y": 0.1}), errors.SupportError, '"y"')


def test_geometric_takes_integers_eagerly_and_jitted():
    model = gen(lambda: sample("y", dist.Geometric(0.25)))
    expected = st.geom(0.25, loc=-1).logpmf(3)
    for way in (lambda y: model.assess({"y": y})[0], jax.jit(lambda y: model.assess({"y": y})[0])):
        assert float(way(np.array(3))) == pytest.approx(expected, rel=1e-14)
        told(lambda way=way: way(np.array(3.0)), errors.DtypeError, '"y"')


def test_advice_can_be_followed():
    for d in (dist.Exponential(1.0), dist.HalfNormal(1.0), dist.Gamma(2.0, 1.0)):
        model = gen(lambda d=d: sample("y", d))
        told(lambda: Target(model, (), {"y": 0.0}), errors.SupportError, "open at 0")  # noqa: B023
    told(
        lambda: (
            Target(real, (), {"mu": 1.0})
            and given_values(Target(real, (), {"mu": 1.0}), {"mu": 0.0}, 2)
        ),
        errors.InvalidArgument,
        "leave it out",
    )
    nested = gen(lambda: sample("sub", real()))
    for wrong, guess in (
        ({"sub": {"um": 0.0}}, '"sub", "mu"'),
        ({"sbu": {"mu": 0.0}}, '"sub", "mu"'),
        ({"mu": 0.0}, '"sub", "mu"'),
        ({"suv": 0.0}, '"sub"'),
    ):
        told(lambda w=wrong: nested.generate(w), errors.AddressNotFound, f"did you mean {guess}")


def test_a_shape_that_an_argument_decides_asks_for_a_static_argument():
    for fn in (
        lambda n: sample("y", dist.Normal(0.0, 1.0).expand([n])),
        lambda n: sample("y", dist.Normal(jnp.zeros(n), 1.0)),
        lambda n: sample("y", dist.Normal(0.0, 1.0).expand([n]).to_event(1)),
    ):
        told(lambda fn=fn: gen(fn).sites(3), errors.PythonControlFlow, "static_argnames")


def test_parameters_that_a_model_closes_over_may_be_traced():
    """A model made inside a function that is differentiated: nothing is known of them."""

    def log_density_of(loc, scale):
        model = gen(lambda: sample("z", dist.Normal(loc, scale)))
        return Target(model).log_density({"z": 1.0})

    slope = jax.grad(log_density_of, argnums=(0, 1))(0.25, 2.0)  # z = 0.375
    np.testing.assert_allclose(slope, [0.375 / 2, (0.375**2 - 1) / 2], rtol=1e-12)


@pytest.mark.parametrize(
    "value, told", [([1.0, 2.0, -3.0], "-3.0 at [2] (1 of 3)"), ([1.0, np.nan, 3.0], "NaN at [1]")]
)
def test_the_index_is_that_of_the_value(value, told):
    """It had an axis of loops in front, also in no loop; and a scalar had an index."""
    model = gen(lambda: sample("v", dist.HalfNormal(1.0).expand([3])))
    with pytest.raises(errors.SupportError) as caught:
        Target(model, (), {"v": np.array(value)})
    assert told in str(caught.value)
    one = gen(lambda: sample("x", dist.HalfNormal(1.0)))
    with pytest.raises(errors.SupportError) as caught:
        Target(one, (), {"x": -1.0})
    assert "given:    -1.0\n" in str(caught.value)
