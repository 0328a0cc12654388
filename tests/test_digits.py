"""The autoencoder of digits: its model and its bounds are the known ones where these are known."""

import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from examples.digits import (
    CODE,
    DATA,
    HELD_OUT,
    OBJECTIVE,
    PIXELS,
    bounds,
    independent,
    networks,
)

KEY = jax.random.key(0)


def affine(inputs, outputs, weight, bias):
    """A network of one layer."""
    net = eqx.nn.Linear(inputs, outputs, key=KEY)
    weight, bias = jnp.asarray(weight), jnp.asarray(bias)
    return eqx.tree_at(lambda n: (n.weight, n.bias), net, (weight, bias))


def nets(slopes, logits, loc=0.0, log_sd=0.0):
    """Chances that depend on the first number of the code; codes that are read off blindly."""
    decoder = affine(CODE, 64, np.outer(slopes, np.eye(CODE)[0]), logits)
    of_code = np.r_[np.full(CODE, loc), np.full(CODE, log_sd)]
    return {"decoder": decoder, "encoder": affine(64, 2 * CODE, np.zeros((2 * CODE, 64)), of_code)}


LOGITS = np.linspace(-2.0, 2.0, 64)
SLOPES = 0.1 * np.cos(np.arange(64.0))
FEW = PIXELS[:3]


def test_the_data_are_the_known_ones():
    """The counts of digits are those of the repository; the sum of pixels is scikit-learn's."""
    assert PIXELS.sum() == 561718 and PIXELS.max() == 16 and PIXELS.min() == 0
    known = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert_array_equal(np.bincount(DATA["labels"]), known)
    assert (len(PIXELS), HELD_OUT.sum()) == (1797, 299)


def test_the_density_is_of_normals_and_binomials():
    made = networks(KEY, 5)
    codes = np.random.default_rng(0).normal(size=(3, CODE))
    expected = 0.0
    for code, pixels in zip(codes, FEW, strict=True):
        chances = special.expit(np.asarray(made["decoder"](jnp.asarray(code))))
        expected += stats.norm.logpdf(code).sum() + stats.binom.logpmf(pixels, 16, chances).sum()
    target = OBJECTIVE.target_of(made, jnp.asarray(FEW))
    found = target.log_density({"image": {"code": jnp.asarray(codes)}})
    # 192 terms of a size below 100
    assert_allclose(found, expected, rtol=1e-10)


def test_bounds_where_codes_say_nothing():
    """The bound falls short of log p by the divergence of what is read off from the prior.

    The log weight of code z = s e has the standard deviation 2 |s^2 - 1|, for 8 normals e.
    """
    pixels = jnp.asarray(FEW)
    log_p = stats.binom.logpmf(FEW, 16, special.expit(LOGITS)).sum(1)
    for k in (1, 7):
        assert_allclose(bounds(KEY, nets(0 * SLOPES, LOGITS), pixels, k, 2), log_p, rtol=1e-12)
    s, draws = 0.8, 4000
    found = bounds(KEY, nets(0 * SLOPES, LOGITS, log_sd=np.log(s)), pixels, 1, draws)
    divergence = CODE * (s**2 / 2 - 0.5 - np.log(s))
    # three means of 4000 draws, five standard errors: false in 2e-6 of keys
    assert_allclose(found, log_p - divergence, atol=5 * 2 * (1 - s**2) / draws**0.5)


def test_the_bound_of_many_codes_is_the_evidence():
    """By quadrature over the one number that matters; the prior is the guide."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    chances = special.expit(LOGITS + SLOPES * x[:, None])
    log_p = stats.binom.logpmf(FEW[:, None], 16, chances).sum(-1)  # (3 images, nodes)
    evidence = special.logsumexp(log_p, axis=1, b=w)
    relative = np.exp(2 * (log_p - evidence[:, None])) @ w - 1  # variance of a weight
    k, draws = 400, 50
    found = bounds(KEY, nets(SLOPES, LOGITS), jnp.asarray(FEW), k, draws)
    # the log of a mean is low by half its variance; five standard errors, as above
    error = np.sqrt(relative / k)
    assert (error < 0.2).all()
    off = np.abs(found - evidence + error**2 / 2)
    assert (off < 5 * error / draws**0.5 + error**4).all()


def test_independent_pixels_by_hand():
    """Counts of 17 levels and half a count: log((n + 1/2) / (N + 17/2)), summed over pixels."""
    learned, new = np.array([[0, 16], [0, 3], [1, 16]]), np.array([[0, 16], [5, 3]])
    expected = np.log([2.5 * 2.5 / 11.5**2, 0.5 * 1.5 / 11.5**2])
    assert_allclose(independent(learned, new), expected, rtol=1e-14)


@pytest.mark.slow
def test_the_example_exits_0(tmp_path):
    """The gains it asks for are 11, 26 and 17 standard errors large."""
    path = tmp_path / "digits.png"
    command = [sys.executable, "-m", "examples.digits", "--figure", str(path)]
    run = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
