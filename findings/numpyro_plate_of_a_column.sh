#!/bin/sh
# A plate of five that meets five data in a column scores twenty-five terms.
#
# Versions: numpyro 0.22.0, jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: data of shape (5, 1), as a data frame or a matrix of regressors gives them, meet a
# site under `plate("data", 5)`. The log probability has the shape (5, 5): each datum is scored
# five times, so the likelihood is raised to the fifth power. No error and no warning, with
# numpyro's validation on, too. The posterior of the mean comes out too narrow: with a known
# scale of 1 its standard deviation is 1/sqrt(26), not 1/sqrt(6).
# Seen: 5 terms for data of shape (5,), 25 for (5, 1), 0 warnings
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder" # so that no other code is imported
venv/bin/python - <<'PY'
import sys
import warnings

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density

numpyro.enable_validation()


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", 5):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def terms(y):
    """How many terms the log density has: it grows by one half for each when all data are 1."""
    at = [log_density(model, (y + shift,), {}, {"mu": 0.0})[0] for shift in (0.0, 1.0)]
    return round(float(2 * (at[0] - at[1])))


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    vector, column = terms(jnp.zeros(5)), terms(jnp.zeros((5, 1)))
print(
    f"{vector} terms for data of shape (5,), {column} for (5, 1), {len(caught)} warnings"
)
sys.exit((vector, column, len(caught)) != (5, 25, 0))
PY
