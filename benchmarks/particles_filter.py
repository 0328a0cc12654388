"""The bootstrap filter of the package `particles`, in an interpreter that has it.

    PYTHON benchmarks/particles_filter.py N < series

It needs a NumPy that is older than JAX's, so it has no place in the environment of the other
benchmarks. Prints the log evidence and the seconds of one run as JSON.
"""

import json
import sys
import time

import numpy as np
import particles
from particles import distributions as laws
from particles import state_space_models as models

PHI, Q, R = 0.95, 0.3, 0.5


class Linear(models.StateSpaceModel):
    def PX0(self):
        return laws.Normal(scale=Q)

    def PX(self, t, xp):
        return laws.Normal(loc=PHI * xp, scale=Q)

    def PY(self, t, xp, x):
        return laws.Normal(loc=x, scale=R)


def run(ys: np.ndarray, n: int) -> float:
    feynman_kac = models.Bootstrap(ssm=Linear(), data=ys)
    filtering = particles.SMC(fk=feynman_kac, N=n, resampling="systematic", ESSrmin=0.5)
    filtering.run()
    return float(filtering.logLt)


if __name__ == "__main__":
    series = np.array(json.load(sys.stdin))
    run(series[:10], int(sys.argv[1]))  # what is compiled is, by now
    began = time.perf_counter()
    evidence = run(series, int(sys.argv[1]))
    print(json.dumps({"log_evidence": evidence, "seconds": time.perf_counter() - began}))
