"""tensorly's decompositions of bins' means: PYTHON benchmarks/statespace/of_tensorly.py FORM"""

import sys

import numpy as np
from serve import serve
from table_problem import BINS, binned, table
from tensorly.decomposition import parafac, tucker


def mean_of_bins():
    """The table, 0 where nothing is, where there is something, and what is held out."""
    at, y, new, held = table()
    total, count = np.zeros(BINS), np.zeros(BINS)
    np.add.at(total, binned(at), y)
    np.add.at(count, binned(at), 1)
    return total / np.maximum(count, 1), count > 0, binned(new), held


if __name__ == "__main__":
    values, there, new, held = mean_of_bins()
    mask = there.astype(float)

    def run():
        if sys.argv[1] == "CP":
            return parafac(values, 3, mask=mask, n_iter_max=30, init="random", random_state=0)
        return tucker(values, (3, 3, 3), mask=mask, n_iter_max=30, init="random", random_state=0)

    error = run().to_tensor()[new] - held
    serve(run, rmse=float(np.sqrt(np.mean(error**2))))
