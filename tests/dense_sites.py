"""Sites by dense matrices and sums on a grid, one at a time: what folds are held to.

NumPy alone, from the formulas of the sources: Rasmussen & Williams 2006 (3.4 to 3.6), Minka 2004,
Khan & Lin 2017. A log likelihood is a function from f `(n, k)` to `(n, k)`, row i that of the
data at input i.
"""

import numpy as np

GRID = np.linspace(-12.0, 12.0, 6001)
"""In standard deviations: a sum over it is an integral to 1e-14, for densities that are smooth
on the scale of a hundredth."""


def with_sites(kernel, level, precision, linear):
    """log ∫ N(f; level, K) exp(linear f - precision f² / 2) df, and that law's mean, covariance."""
    ratio = np.eye(len(level)) + precision[:, None] * kernel
    covariance = kernel @ np.linalg.inv(ratio)
    pull = linear - precision * level
    mean = level + covariance @ pull
    mass = -0.5 * np.linalg.slogdet(ratio)[1] + 0.5 * pull @ covariance @ pull
    return mass + np.sum((linear - 0.5 * precision * level) * level), mean, covariance


def _slopes(log, f, h=1e-4):
    """First and second derivatives in f `(n,)`, of the sixth order in h: errors of 1e-9."""
    steps = np.arange(-3, 4) * h * 10
    each = log(f[:, None] + steps)
    first = each @ np.array([-1, 9, -45, 0, 45, -9, 1]) / 60 / (h * 10)
    second = each @ np.array([2, -27, 270, -490, 270, -27, 2]) / 180 / (h * 10) ** 2
    return first, second


def laplace(log, kernel, level):
    """Evidence, mean and variances at the mode, by Newton's method with halved steps."""

    def height(a):
        f = level + kernel @ a
        return log(f[:, None]).sum() - a @ (f - level) / 2

    a, f = np.zeros(len(level)), level.copy()
    for _ in range(200):
        slope, curve = _slopes(log, f)
        w = np.maximum(-curve, 0)
        b = w * (f - level) + slope
        wanted = b - w * (kernel @ np.linalg.solve(np.eye(len(w)) + w[:, None] * kernel, b))
        rate = 1.0
        while height(a + rate * (wanted - a)) < height(a) - 1e-12 and rate > 1e-6:
            rate /= 2
        a = a + rate * (wanted - a)
        f = level + kernel @ a
    w = -_slopes(log, f)[1]
    ratio = np.eye(len(w)) + w[:, None] * kernel
    value = height(a) - 0.5 * np.linalg.slogdet(ratio)[1]
    return value, f, np.diag(kernel @ np.linalg.inv(ratio))


def _tilted(log, mean, variance, power):
    """log ∫ N(f; mean, variance) exp(power log p(f)) df, and mean and variance, of each row."""
    f = mean[:, None] + np.sqrt(variance)[:, None] * GRID
    each = power * log(f) - 0.5 * GRID**2 - 0.5 * np.log(2 * np.pi)
    top = each.max(1, keepdims=True)
    weight = np.exp(each - top)
    total = weight.sum(1)
    moved = (weight * f).sum(1) / total
    left = (weight * (f - moved[:, None]) ** 2).sum(1) / total
    return np.log(total * (GRID[1] - GRID[0])) + top[:, 0], moved, left


def power_ep(log, kernel, level, power, rate=0.5, sweeps=200):
    """Evidence, mean and variances of power EP, with the cavities written out."""
    precision, linear = np.zeros(len(level)), np.zeros(len(level))
    for _ in range(sweeps):
        _, mean, covariance = with_sites(kernel, level, precision, linear)
        variance = np.diag(covariance)
        out = 1 / variance - power * precision
        pull = mean / variance - power * linear
        log_z, moved, left = _tilted(log, pull / out, 1 / out, power)
        precision = precision + rate * ((1 / left - out) / power - precision)
        linear = linear + rate * ((moved / left - pull) / power - linear)
    mass, mean, covariance = with_sites(kernel, level, precision, linear)
    variance = np.diag(covariance)
    out, pull = 1 / variance - power * precision, mean / variance - power * linear
    log_z, _, _ = _tilted(log, pull / out, 1 / out, power)
    own = [with_sites(np.array([[1 / o]]), np.array([p / o]), power * np.array([a]),
                      power * np.array([b]))[0]
           for o, p, a, b in zip(out, pull, precision, linear, strict=True)]  # fmt: skip
    return mass + np.sum(log_z - np.array(own)) / power, mean, variance


def variational(log, kernel, level, rate=0.5, sweeps=200):
    """The largest bound, and the mean and variances of its Gaussian; slopes by Stein's identity."""
    precision, linear = np.zeros(len(level)), np.zeros(len(level))
    weight = np.exp(-0.5 * GRID**2)
    weight = weight / weight.sum()
    for _ in range(sweeps):
        _, mean, covariance = with_sites(kernel, level, precision, linear)
        sd = np.sqrt(np.diag(covariance))
        each = log(mean[:, None] + sd[:, None] * GRID)
        slope = each @ (weight * GRID) / sd
        wanted = -each @ (weight * (GRID**2 - 1)) / sd**2
        precision = precision + rate * (wanted - precision)
        linear = linear + rate * (wanted * mean + slope - linear)
    _, mean, covariance = with_sites(kernel, level, precision, linear)
    sd = np.sqrt(np.diag(covariance))
    data = (log(mean[:, None] + sd[:, None] * GRID) @ weight).sum()
    apart = mean - level
    inverse = np.linalg.inv(kernel)
    divergence = np.trace(inverse @ covariance) + apart @ inverse @ apart - len(level)
    divergence += np.linalg.slogdet(kernel)[1] - np.linalg.slogdet(covariance)[1]
    return data - divergence / 2, mean, sd**2
