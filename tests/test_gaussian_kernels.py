"""Kernels on a line: what they are named for, at gaps of any length and in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import gaussian
from inference.gaussian.carma import CARMA
from inference.gaussian.exchangeable import Exchangeable
from inference.gaussian.kernel import Kernel, Product, Scaled, Sum
from inference.gaussian.matern import Matern12, Matern32, Matern52, Matern72
from inference.gaussian.moments import decay_moments
from inference.gaussian.oscillator import SHO
from inference.gaussian.periodic import Cosine, Periodic, quasi_periodic
from inference.gaussian.process import gp
from inference.gaussian.smooth import SquaredExponential
from inference.gaussian.trends import Constant, IntegratedWiener, Linear, Wiener
from ppl import PPLError


def matern(polynomial, order, scale, sigma):
    """sigma² p(r) exp(-r)."""

    def k(s, t):
        r = np.sqrt(2 * order) * np.abs(s - t) / scale
        return sigma**2 * np.polyval(polynomial, r) * np.exp(-r)

    return k


def oscillator(omega, quality, sigma):
    """By complex roots, which no formula of the library uses."""

    def k(s, t):
        x, rate = omega * np.abs(s - t), 1 / (2 * quality)
        root = np.emath.sqrt(rate**2 - 1)
        swing = np.cosh(root * x) + rate * np.sinh(root * x) / root
        return sigma**2 * np.real(np.exp(-rate * x) * swing)

    return k


def two_decays(s, t):
    """Two Ornstein-Uhlenbeck processes, of rates 1 and 3 and variances 1 and 0.5."""
    gap = np.abs(s - t)
    return np.exp(-gap) + 0.5 * np.exp(-3 * gap)


# their spectrum, 2 / (ω² + 1) + 3 / (ω² + 9), has the numerator 5 ω² + 21
DECAYS = CARMA((3.0, 4.0), (21**0.5, 5**0.5))


def wiener(s, t):
    return 4.0 * (np.minimum(s, t) + 1.0) + 0.25


def integrated(s, t):
    m, gap = np.minimum(s, t) + 1.0, np.abs(s - t)
    both = (s + 1.0) * (t + 1.0)
    return 4.0 * (m**3 / 3 + m**2 * gap / 2) + 0.25 + 0.09 * both


def sine(gamma, period):
    return lambda s, t: np.exp(-gamma * np.sin(np.pi * (s - t) / period) ** 2)


EXACT = {
    "Matern12": (Matern12(0.7, 1.3), matern([1], 0.5, 0.7, 1.3)),
    "Matern32": (Matern32(0.7, 1.3), matern([1, 1], 1.5, 0.7, 1.3)),
    "Matern52": (Matern52(0.7, 1.3), matern([1 / 3, 1, 1], 2.5, 0.7, 1.3)),
    "Matern72": (Matern72(0.7, 1.3), matern([1 / 15, 2 / 5, 1, 1], 3.5, 0.7, 1.3)),
    "Constant": (Constant(1.3), lambda s, t: 1.69 + 0 * (s + t)),
    "Linear": (Linear(1.3, origin=0.4), lambda s, t: 1.69 * (s - 0.4) * (t - 0.4)),
    "Wiener": (Wiener(2.0, origin=-1.0, level=0.5), wiener),
    "IntegratedWiener": (IntegratedWiener(2.0, -1.0, 0.5, 0.3), integrated),
    "Exchangeable": (Exchangeable(1.3), lambda s, t: 1.69 * (s == t)),
    "Cosine": (Cosine(1.7, 1.3), lambda s, t: 1.69 * np.cos(2 * np.pi * (s - t) / 1.7)),
    "SHO ringing": (SHO(2.0, 30.0, 1.3), oscillator(2.0, 30.0, 1.3)),
    "SHO": (SHO(2.0, 0.8), oscillator(2.0, 0.8, 1.0)),
    "SHO near critical": (SHO(2.0, 0.501), oscillator(2.0, 0.501, 1.0)),
    "SHO critical": (SHO(2.0, 0.5, 1.3), matern([1, 1], 1.5, 3**0.5 / 2, 1.3)),
    "CARMA": (DECAYS, two_decays),
    "CARMA 3": (
        CARMA((8.0, 12.0, 6.0), sigma=(16 * 2**5 / 3) ** 0.5),  # (s + 2)³
        matern([1 / 3, 1, 1], 2.5, 5**0.5 / 2, 1.0),
    ),
    "product": (
        SHO(2.0, 0.8) * Matern32(0.7, 1.3),
        lambda s, t: oscillator(2.0, 0.8, 1.0)(s, t) * matern([1, 1], 1.5, 0.7, 1.3)(s, t),
    ),
    "SHO overdamped": (SHO(2.0, 0.05), oscillator(2.0, 0.05, 1.0)),
}
NEAR = {
    "Periodic": (Periodic(1.7, 2.0, order=4), sine(2.0, 1.7)),
    "SquaredExponential": (
        SquaredExponential(0.7, order=6),
        lambda s, t: np.exp(-((s - t) ** 2) / 0.98),
    ),
    "quasi": (
        quasi_periodic(Matern32(0.7), 1.7, 2.0, order=3),
        lambda s, t: matern([1, 1], 1.5, 0.7, 1.0)(s, t) * sine(2.0, 1.7)(s, t),
    ),
}
ALL = {name: kernel for name, (kernel, _) in (EXACT | NEAR).items()}
each = pytest.mark.parametrize("name", ALL)
TIMES = np.array([-0.8, 0.0, 1e-6, 0.3, 0.35, 1.0, 2.5, 6.0])
GAPS = np.array([0.0, 1e-7, 1e-3, 0.1, 0.4, 1.0, 3.0, 20.0])


def parts(kernel):
    """Compiled anew each time, with the constants of the kernel's order in it."""
    found = jax.jit(lambda k: (k.start(0.3), k.transition(0.7), k.noise(0.7, 0.3), k.observation()))
    return found, jax.tree.map(np.asarray, found(kernel))


@each
def test_constants_are_those_of_the_precision_in_use(name):
    """To the bit, whether or not a 32-bit program has had the same constants.

    jax 0.10.2 gives a NumPy array that a 32-bit program has closed over to 64-bit ones as it was
    rounded there: findings/jax_numpy_constant_keeps_precision.sh.
    """
    _, before = parts(ALL[name])
    with jax.enable_x64(False):
        kept, _ = parts(ALL[name])
    _, after = parts(ALL[name])
    del kept  # until here, as what is remembered goes with it
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype == np.float64
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [Matern12, Matern32])
def test_third_derivatives_at_the_seam_of_a_series(kernel):
    """The Hessian of the density is -K^-1, and so moves with the scale; where two formulas of a
    moment meet, at rates of 2 gap √(2ν) / scale = 1 + most / 2, too. Rates differ by rounding.
    """
    nu, most = (0.5, 0) if kernel is Matern12 else (1.5, 2)
    times = jnp.array([0.0, 0.4])
    at = 2 * 0.4 * np.sqrt(2 * nu) / (1 + most / 2)

    def curvature(scale):
        density = lambda x: gp(kernel(scale), times).log_prob(x)  # noqa: E731
        return jax.hessian(density)(jnp.zeros(2))

    def exact(scale):
        return -jnp.linalg.inv(kernel(scale).covariance(times[:, None], times))

    for scale in (at, np.nextafter(at, 0.0), np.nextafter(at, 9.0)):
        # conditions are below 10, and each derivative is a sum of some dozens of terms
        np.testing.assert_allclose(
            jax.jacfwd(curvature)(scale), jax.jacfwd(exact)(scale), rtol=1e-12, atol=1e-12
        )


def turned(x):
    return jnp.swapaxes(x, -1, -2)


@jax.jit
def dense(kernel):
    return kernel.covariance(TIMES[:, None], TIMES)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_kernel_is_its_formula(name):
    kernel, formula = EXACT[name]
    # of the complex roots near the critical damping, the formula loses some digits itself
    np.testing.assert_allclose(dense(kernel), formula(TIMES[:, None], TIMES), rtol=0, atol=1e-11)
    assert kernel.error() == 0


@pytest.mark.parametrize("name", NEAR)
def test_an_approximate_kernel_is_within_its_error(name):
    """The error is that at equal times, up to rounding: no bound is larger than it need be."""
    kernel, formula = NEAR[name]
    apart = np.abs(dense(kernel) - formula(TIMES[:, None], TIMES))
    error = float(kernel.error())
    assert 1e-5 < error < 0.02
    np.testing.assert_allclose(apart.max(), error, rtol=1e-8)


@each
def test_moves_compose(name):
    """A(s + t) = A(t) A(s), Q(s + t) = A(t) Q(s) A(t)' + Q(t), P(t) = A P A' + Q."""
    kernel = ALL[name]

    @jax.jit
    def sides(kernel, s, t):
        first, then = kernel.transition(s), kernel.transition(t)
        spread = kernel.noise(s, 0.3)
        noise = then @ spread @ turned(then) + kernel.noise(t, 0.3 + s)
        start = first @ kernel.start(0.3) @ turned(first) + spread
        shape = (*jnp.shape(s + t), kernel.dimension, kernel.dimension)
        whole = kernel.transition(s + t), kernel.noise(s + t, 0.3), kernel.start(0.3 + s)
        wholes = [jnp.broadcast_to(x, shape) for x in whole]
        return wholes, [jnp.broadcast_to(x, shape) for x in (then @ first, noise, start)]

    for one, other in zip(*sides(kernel, GAPS[:, None], GAPS), strict=True):
        scale = max(1.0, float(jnp.abs(one).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * scale)


@each
def test_no_gap_moves_nothing(name):
    """Exactly: a repeat is the same value, to the last bit."""
    kernel = ALL[name]
    np.testing.assert_array_equal(kernel.transition(0.0), np.eye(kernel.dimension))
    assert not np.any(kernel.noise(0.0, 0.3))


@pytest.mark.parametrize("name", [n for n in ALL if n != "quasi"])
def test_noise_is_a_covariance_in_single_precision(name):
    """Down to gaps of 1e-8: correlations have no eigenvalue below zero by more than rounding."""
    kernel = ALL[name]
    gaps = np.float32(10.0) ** np.arange(-8, 2, dtype=np.float32)
    single = jax.tree.map(np.float32, kernel)
    noise = np.asarray(jax.jit(lambda k, g: k.noise(g, np.float32(0)))(single, gaps), float)
    exact = np.asarray(jax.jit(lambda k, g: k.noise(g, 0.0))(kernel, np.asarray(gaps, float)))
    for found, right in zip(noise, exact, strict=True):
        seen = np.diag(right) > 1e-32  # the others are no numbers in single precision
        found, right = found[np.ix_(seen, seen)], right[np.ix_(seen, seen)]
        np.testing.assert_allclose(np.diag(found), np.diag(right), rtol=1e-5)
        if found.size:
            units = np.sqrt(np.diag(right))
            least = np.linalg.eigvalsh(found / np.outer(units, units)).min()
            assert least > -8 * len(found) * np.finfo(np.float32).eps


@pytest.mark.parametrize("name", ["Matern32", "Matern52", "SHO", "SHO overdamped"])
def test_a_gradient_in_single_precision_at_a_small_gap(name):
    """Of the noise of f at a gap of 8e-4, where P - A P A' loses 17 % (and the value more)."""
    kernel = ALL[name]

    def log_noise(kernel, gap):
        return jnp.log(kernel.noise(gap)[0, 0])

    slope = jax.jit(jax.grad(log_noise))
    right = slope(kernel, 8e-4)
    found = slope(jax.tree.map(np.float32, kernel), np.float32(8e-4))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_moments_are_integrals():
    """By 40 Gauss nodes on each of 40 pieces; and the derivative is the next moment."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    v = (np.arange(40)[:, None] + (nodes + 1) / 2).ravel() / 40
    w = np.tile(weights / 80, 40)
    rates = np.array([0.0, 1e-9, 0.5, 3.9, 4.1, 11.0, 60.0])
    right = np.einsum("v,rv,vn->rn", w, np.exp(-rates[:, None] * v), v[:, None] ** np.arange(8))
    np.testing.assert_allclose(decay_moments(rates, 7), right, rtol=1e-13)
    slope = jax.jacfwd(lambda rate: decay_moments(rate, 6))(jnp.array(3.0))
    np.testing.assert_allclose(slope, -decay_moments(jnp.array(3.0), 7)[1:], rtol=1e-13)


def test_sums_and_products_are_those_of_dense_kernels():
    """Three levels deep, with what is not stationary within."""
    a, b, c, d = (EXACT[name] for name in ("Matern32", "Linear", "SHO", "Wiener"))
    kernel = 2.0 * (a[0] * (b[0] + c[0])) + (d[0] * 0.5) * (a[0] + Constant(0.3) * c[0])
    s, t = TIMES[:, None], TIMES
    ka, kb, kc, kd = (k[1](s, t) for k in (a, b, c, d))
    right = 2.0 * ka * (kb + kc) + 0.5 * kd * (ka + 0.09 * kc)
    np.testing.assert_allclose(dense(kernel), right, rtol=1e-12, atol=1e-12)
    assert kernel.dimension == 2 * (2 + 2) + 1 * (2 + 2)
    assert kernel.rank is None and (Linear() * Cosine(1.0) + Constant()).rank == 3


def test_noise_of_a_product_is_what_remains():
    """Q = P(t + dt) - A P(t) A', of products of kernels that are not stationary, too."""
    kernel = ALL["Wiener"] * ALL["Matern32"] * ALL["Linear"]
    gaps, at = np.array([0.1, 1.0]), np.array([0.2, 0.5])
    move, start = kernel.transition(gaps), kernel.start(at)
    right = kernel.start(at + gaps) - move @ start @ turned(move)
    np.testing.assert_allclose(kernel.noise(gaps, at), right, atol=1e-12)


def test_time_and_scale_together_change_nothing():
    for one, other in (
        (Matern52(0.7), Matern52(1.4)),
        (SHO(2.0, 0.8), SHO(1.0, 0.8)),
        (Cosine(1.7), Cosine(3.4)),
        (SquaredExponential(0.7), SquaredExponential(1.4)),
    ):  # by a power of two, so to the last bit
        np.testing.assert_array_equal(one.transition(GAPS), other.transition(2 * GAPS))
        np.testing.assert_array_equal(one.noise(GAPS), other.noise(2 * GAPS))


def test_the_oscillator_has_derivatives_at_critical_damping():
    """d k / d quality at 1/2 is -(2/3) x³ exp(-x) (tinygp 0.3.1: 0), and so from both sides."""
    slope = jax.jit(jax.grad(lambda q, x: SHO(1.0, q).covariance(0.0, x)))
    for x in (0.3, 1.7, 4.0):
        right = -2 / 3 * x**3 * np.exp(-x)
        np.testing.assert_allclose(slope(0.5, x), right, rtol=1e-12)
        sides = [slope(0.5 + h, x) for h in (-1e-7, 1e-7)]
        np.testing.assert_allclose(sides, [right] * 2, rtol=1e-5)
    noise = jax.jit(jax.jacfwd(lambda q, x: SHO(1.0, q).noise(x)))
    for x in (1e-3, 1.0, 5.0):  # Richardson: an error of h^4, about 1e-10
        f = [np.asarray(SHO(1.0, 0.5 + k * 1e-3).noise(x)) for k in (-2, -1, 1, 2)]
        right = (8 * (f[2] - f[1]) - (f[3] - f[0])) / 12e-3
        np.testing.assert_allclose(noise(0.5, x), right, rtol=1e-6, atol=1e-9)


def test_coefficients_of_the_periodic_kernel_are_bessel_functions():
    """I_j(x) exp(-x) as scipy has them, from x of almost zero on."""
    special = pytest.importorskip("scipy.special")
    for x in (1e-8, 0.5, 10.0):
        diagonal = np.diag(Periodic(1.0, 2 * x, order=5).start(None))[[0, 1, 3, 5, 7, 9]]
        right = special.ive(np.arange(6), x) * [1, 2, 2, 2, 2, 2]
        np.testing.assert_allclose(diagonal, right, rtol=1e-12, atol=1e-300)


def test_a_kernel_is_a_tree():
    """Transformations put anything in: gradients, stacks, nothing at all."""
    kernel = 2 * Matern32(1) + Periodic(1.0, order=2) + CARMA((1, 2))
    slope = jax.grad(lambda k: k.covariance(0.0, 1.0))(kernel)
    assert isinstance(slope, Kernel) and slope.a.b.order == 2
    assert jax.tree.structure(jax.tree.map(lambda _: None, kernel)).num_leaves == 0
    many = jax.vmap(Matern12)(jnp.array([1.0, 2.0]))
    found = jax.vmap(lambda k: k.covariance(0.0, 2.0))(many)
    np.testing.assert_allclose(found, np.exp([-2.0, -1.0]), rtol=1e-14)


WRONG = {
    "zero scale": (lambda: Matern32(0.0), "scale > 0, finite"),
    "negative sigma": (lambda: Matern32(1.0, -1.0), "sigma >= 0, finite"),
    "no number": (lambda: SHO("a", 1.0), "omega > 0, finite"),
    "infinite": (lambda: SHO(1.0, np.inf), "quality > 0, finite"),
    "huge": (lambda: Matern12(10**400), "scale > 0, finite"),
    "a key": (lambda: Matern12(jax.random.key(0)), "scale > 0, finite"),
    "no origin": (lambda: Linear(1.0, "a"), "origin a number, finite"),
    "many": (lambda: Matern12(np.ones(3)), "scale > 0, finite"),
    "order": (lambda: Periodic(1.0, order=0), "an int, from 1 to 50"),
    "high order": (lambda: SquaredExponential(1.0, order=12), "an int, from 2 to 8"),
    "factor": (lambda: -1.0 * Matern12(1.0), "factor >= 0, finite"),
    "no kernel": (lambda: Sum(Matern12(1.0), 3.0), "the law of a process on a line"),
    "class": (lambda: Product(Matern12, Matern12(1.0)), "the law of a process on a line"),
    "scaled": (lambda: Scaled(1.0, 1.0), "the law of a process on a line"),
    "no tuples": (lambda: CARMA(1.0), "alpha of p numbers, beta of at most p"),
    "too long": (lambda: CARMA((1.0,), (1.0, 1.0)), "alpha of p numbers, beta of at most p"),
    "unstable": (lambda: CARMA((1.0, -2.0)), "roots whose real parts are negative"),
    "quasi": (lambda: quasi_periodic(1.0, 1.0), "the law of a process on a line"),
    "not stationary": (lambda: Linear().stationary(), "the time of the first state"),
    "before the origin": (lambda: Wiener().covariance(-1.0, 1.0), "times from the origin on"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told(name):
    make, expected = WRONG[name]
    with pytest.raises(PPLError) as told:
        make()
    assert told.value.expected == expected
    assert "test_gaussian_kernels.py" in told.value.where[0]


def test_the_room_has_every_kernel():
    """`from inference import gaussian` is enough: each kernel of the room is one of its names."""
    kinds, waiting = set(), [Kernel]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        kinds |= {kind.__name__} if kind.__module__.startswith("inference.gaussian.") else set()
    public = {name for name in kinds if not name.startswith("_")}
    assert public <= set(gaussian.__all__)
    assert all(
        getattr(gaussian, name).__module__.startswith("inference") for name in gaussian.__all__
    )
