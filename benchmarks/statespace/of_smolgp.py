"""smolgp's Kalman filter: PYTHON benchmarks/statespace/of_smolgp.py N"""

import sys

from problem import data, run_as_peer
from smolgp import GaussianProcess
from smolgp.kernels import Matern32


def density(p, times, values):
    process = GaussianProcess(Matern32(scale=p[0], sigma=p[1]), times, noise=p[2])
    return process.log_probability(values)


if __name__ == "__main__":
    run_as_peer(density, data(int(sys.argv[1])))
