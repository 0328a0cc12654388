"""What cannot be summed out is refused before anything is compiled, with address and line.

Each model is a mistake; the line that its error must name ends in `# here`.
"""

import inspect

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from jax import lax

from inference import beliefs, most_likely, restore, sum_out
from ppl import draw, gen, sample, seed, select
from ppl.errors import (
    AddressNotFound,
    CannotEnumerate,
    GradientThroughDraw,
    InvalidAddress,
    InvalidArgument,
    MissingSeed,
    UnsupportedControlFlow,
)

MOVE = jnp.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.25, 0.25, 0.5]])


def plain():
    z = sample("z", dist.Bernoulli(0.3))
    sample("x", dist.Normal(1.0 * z, 1.0))


def infinite():
    n = sample("z", dist.Poisson(2.0))  # here
    sample("x", dist.Normal(1.0 * n, 1.0))


def continuous():
    z = sample("z", dist.Gamma(2.0, 1.0))  # here
    sample("x", dist.Normal(z, 1.0))


def unknown_count():
    z = sample("z", dist.BinomialProbs(0.3, jnp.array([2, 3])))  # here
    sample("x", dist.Normal(1.0 * z, 1.0))


def while_loop():
    z = sample("z", dist.Bernoulli(0.3))  # here
    flip = lambda c: c + 1 + draw(dist.Bernoulli(0.3 + 0.1 * z))  # noqa: E731
    sample("x", dist.Normal(1.0 * lax.while_loop(lambda c: c < 3, flip, 0), 1.0))


def array_of_lags():
    def step(lags, _):
        z = sample("z", dist.Categorical(MOVE[lags[0]]))  # here
        lags = jnp.concatenate([z[None], lags[:-1]])
        sample("y", dist.Normal(1.0 * lags.sum(), 1.0))
        return lags, None

    lax.scan(step, jnp.zeros(3, int), None, length=5)


def running_count():
    def step(count, _):
        count = count + sample("z", dist.Bernoulli(0.3))  # here
        sample("y", dist.Normal(1.0 * count, 1.0))
        return count, None

    lax.scan(step, 0, None, length=5)


def read_after_the_loop():
    step = lambda z, _: (sample("z", dist.Categorical(MOVE[z])),) * 2  # noqa: E731  # here
    _, zs = lax.scan(step, 0, None, length=5)
    sample("y", dist.Normal(1.0 * zs, 1.0))  # here


def factor_after_the_loop():
    step = lambda z, _: (sample("z", dist.Categorical(MOVE[z])),) * 2  # noqa: E731  # here
    _, zs = lax.scan(step, 0, None, length=5)
    # a loop over what a loop puts out
    lax.scan(lambda c, z: (c, sample("y", dist.Normal(1.0 * z, 1.0))), 0, zs)


def branch_on_it():
    z = sample("z", dist.Bernoulli(0.3))  # here
    lax.cond(z == 1, lambda: sample("a", dist.Normal(0.0, 1.0)), lambda: 0.0)  # here


def too_many_together():
    z = sample("z", dist.Categorical(jnp.ones(10) / 10).expand([8]))  # here
    sample("y", dist.Normal(1.0 * z.sum(), 1.0))


def copies_together():
    z = jax.vmap(lambda p: sample("z", dist.Bernoulli(p)))(jnp.ones(30) / 3)  # here
    sample("y", dist.Normal(1.0 * z.sum(), 1.0))


MISTAKES = {
    infinite: (InvalidArgument, "Poisson"),
    continuous: (InvalidArgument, "Gamma"),
    unknown_count: (InvalidArgument, "Binomial"),
    while_loop: (UnsupportedControlFlow, "while"),
    array_of_lags: (InvalidArgument, "grows"),
    running_count: (InvalidArgument, "grows"),
    read_after_the_loop: (InvalidArgument, "puts out"),
    factor_after_the_loop: (InvalidArgument, ""),
    branch_on_it: (InvalidArgument, "branches"),
    too_many_together: (CannotEnumerate, "10^8"),
    copies_together: (CannotEnumerate, "2^30"),
}


def lines_of(fn):
    lines, first = inspect.getsourcelines(fn)
    return [first + i for i, line in enumerate(lines) if line.rstrip().endswith("# here")]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda fn: fn.__name__)
def test_it_is_refused_before_compilation(mistake):
    """By `sites`, which stages the model, and neither compiles nor runs it."""
    kind, told = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        sum_out(gen(mistake), "z").sites()
    text = str(caught.value)
    assert '"z"' in text and told in text and len(text.splitlines()) <= 12
    for line in lines_of(mistake):
        assert f"test_sum_out_errors.py:{line}" in text


def test_too_many_outcomes_of_several_choices():
    @gen
    def model():
        z = [sample(f"z{i}", dist.Categorical(jnp.ones(10) / 10)) for i in range(8)]
        sample("y", dist.Normal(1.0 * sum(z), 1.0))

    with pytest.raises(CannotEnumerate, match="100000000 outcomes of 8 choices") as caught:
        sum_out(model, select(*(f"z{i}" for i in range(8)))).sites()
    assert '"z7"' in str(caught.value) and "test_sum_out_errors.py" in str(caught.value)


def test_wrong_models_and_selections():
    with pytest.raises(InvalidArgument, match="generative function"):
        sum_out(plain, "z")
    with pytest.raises(InvalidAddress):
        sum_out(gen(plain), 3)
    with pytest.raises(AddressNotFound, match='did you mean "z"'):
        sum_out(gen(plain), "zz").sites()


def test_wrong_traces():
    model = gen(plain)
    quiet = sum_out(model, "z")
    trace, _ = quiet.generate({"x": 0.3})
    other = seed(gen(continuous).simulate)(jax.random.key(0))
    for of in (beliefs, most_likely, restore):
        with pytest.raises(InvalidArgument, match="result of sum_out"):
            of(model, trace)
        with pytest.raises(InvalidArgument, match="result of sum_out"):
            of(3, trace)
        with pytest.raises(InvalidArgument, match="trace of the summed model"):
            of(quiet, {"x": 0.3})
        with pytest.raises(InvalidArgument, match="another model"):
            of(quiet, other)
    with pytest.raises(MissingSeed):
        restore(quiet, trace)


def test_what_is_summed_out_already_is_no_choice_any_more():
    @gen
    def model(p):
        z = sample("z", dist.Bernoulli(p))
        sample("w", dist.Normal(1.0 * z, 1.0))

    with pytest.raises(AddressNotFound, match='"w"'):
        sum_out(sum_out(model, "z"), "z").sites(0.3)


def test_no_derivative_goes_through_restored_finite_choices():
    """It would be zero, which is not that of the mean; a discrete draw says so, too."""

    @gen
    def model(p):
        z = sample("z", dist.Bernoulli(p))
        sample("y", dist.Normal(1.0 * z, 1.0))

    quiet = sum_out(model, "z")

    def restored(p):
        trace, _ = quiet.generate({"y": 0.3}, p)
        return 1.0 * seed(restore)(jax.random.key(0), quiet, trace)["z"]

    assert restored(0.5) in (0.0, 1.0)
    with pytest.raises(GradientThroughDraw, match="discrete"):
        jax.grad(restored)(0.5)
