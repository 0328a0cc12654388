"""The example of counts: its pictures, its model and its guide, and a reduced form of its fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from long import LONG
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, stats

from examples import air
from ppl import Target, seed

N = 2
NUMBERS = jnp.arange(N)


@pytest.fixture(scope="module")
def nets():
    return air.start(jax.random.key(0), 16)


def latents(there):
    """Latents of two pictures; `there` is whether each of two steps goes on, in both."""
    random = np.random.default_rng(0)
    made = [
        {
            "present": np.full(N, present),
            "where": random.uniform(-1.0, 1.0, (N, 2)),
            "what": random.normal(size=(N, air.CODE)),
        }
        for present in there
    ]
    return dict(zip(air.STEPS, made, strict=True))


def test_pictures_show_as_many_things_as_they_say():
    """Things do not touch: they are the connected parts, corners counting as connected."""
    images, counts = air.pictures(np.random.default_rng(0), 300)
    parts = [ndimage.label(image, np.ones((3, 3)))[1] for image in images]
    assert_array_equal(parts, counts)
    assert_array_equal(np.unique(counts), [0, 1, 2])


def test_a_thing_is_moved_by_bilinear_interpolation(nets):
    """As SciPy moves it, whose interpolation is another program: both are sums of 4 pixels."""
    what, where = jnp.linspace(-1.0, 1.0, air.CODE), jnp.array([0.43, -1.17])

    def there(where):
        return np.asarray(air.pasted(nets["decoder"], what, air.frame(where)))

    moved = ndimage.shift(there(jnp.zeros(2)), 10 * where, order=1)
    assert_allclose(there(where), moved, atol=1e-13)
    looks = jax.nn.sigmoid(nets["decoder"](what) - 2.0)
    assert_allclose(there(where).sum(), looks.sum(), rtol=1e-13)


@pytest.mark.parametrize("there", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_density_of_a_picture(nets, there):
    """A thing after one that is not there is not there; it still has latents."""
    choices, pixels = latents(there), np.random.default_rng(1).uniform(size=(N, 50, 50))
    expected = 2 * N * np.log(0.5)
    mean = np.zeros_like(pixels)
    for step, shown in zip(air.STEPS, (there[0], there[0] * there[1]), strict=True):
        where, what = choices[step]["where"], choices[step]["what"]
        expected += stats.norm.logpdf(where).sum() + stats.norm.logpdf(what).sum()
        for i in range(N):
            looks = air.pasted(nets["decoder"], what[i], air.frame(where[i]))
            mean[i] += shown * np.asarray(looks)
    expected += stats.norm.logpdf(pixels, mean, 0.3).sum()
    target = Target(air.model, (nets["decoder"], NUMBERS), {"pixels": pixels})
    # 5,000 terms, of a sum below 1e5
    assert_allclose(target.log_density(choices), expected, rtol=1e-12)


@pytest.mark.parametrize("there, same", [((0, 1), air.STEPS), ((1, 0), ("step2",))])
def test_latents_of_what_is_not_there_do_not_matter(nets, there, same):
    """Guide and model have the same law of them: the weight is the same whatever they are."""
    pixels = air.pictures(np.random.default_rng(2), N)[0].astype(float)
    target = Target(air.model, (nets["decoder"], NUMBERS), {"pixels": pixels})

    @jax.jit
    def weight(choices):
        return (
            target.log_density(choices)
            - seed(air.guide.assess)(jax.random.key(0), choices, nets, pixels, NUMBERS)[0]
        )

    one = latents(there)
    other = {step: dict(one[step]) for step in one}
    for step in same:
        for name in ("where", "what"):
            other[step][name] = one[step][name] + 0.7
    assert_allclose(weight(one) - weight(other), 0.0, atol=1e-9)  # of a size of 1e4


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="takes minutes: GIRY_LONG=1")
def test_counts_are_learned_from_pixels():
    """The reduced form: 2,000 steps, smaller networks, one strategy, 0.9 of the counts.

    Of 1,000 pictures a share of 0.95, which is what it learns, has an error of 0.007. By chance
    a third of them is right.
    """
    with jax.enable_x64(False):
        random = np.random.default_rng(0)
        size = air.Size(pictures=2000, steps=2000, hidden=64)
        images, _ = air.pictures(random, size.pictures)
        unseen, truth = air.pictures(random, 1000)
        fitted = air.learned(air.WAYS["measure-valued"][0], images, size)
        _, counts, _ = air.look(jax.random.key(2), fitted.parameters, jnp.asarray(unseen))
    assert np.mean(np.asarray(counts) == truth) > 0.9
