"""tinygp's quasiseparable solver: PYTHON benchmarks/statespace/of_tinygp.py N"""

import sys

from problem import data, run_as_peer
from tinygp import GaussianProcess
from tinygp.kernels.quasisep import Matern32


def density(p, times, values):
    kernel = Matern32(scale=p[0], sigma=p[1])
    return GaussianProcess(kernel, times, diag=p[2], assume_sorted=True).log_probability(values)


if __name__ == "__main__":
    run_as_peer(density, data(int(sys.argv[1])))
