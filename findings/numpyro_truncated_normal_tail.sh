#!/bin/sh
# The log density of a truncated normal far out is +inf in 32 bits.
#
# Versions: numpyro 0.22.0, jax and jaxlib 0.10.2, numpy 2.4.6, scipy 1.17.1.
# Behaviour: TruncatedNormal(loc, 1, low=0) is a proper distribution for every loc. At 0.05 its
# log density is finite: 1.96 at loc = -15, as 64 bits and scipy say. In 32 bits, which is JAX's
# default, it is +inf from loc = -13 on: the mass above `low` underflows to zero, and its
# logarithm is subtracted. Nothing warns. A chain that comes there never leaves, since no other
# point is as likely, and an estimate of the evidence becomes infinite.
# Seen: 32 bits inf, 64 bits 1.9612, scipy 1.9612
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1
cd "$folder" # so that no other code is imported
venv/bin/python - <<'PY'
import sys

import jax
import numpyro.distributions as dist
from scipy import stats

AT, LOC = 0.05, -15.0
narrow = float(dist.TruncatedNormal(LOC, 1.0, low=0.0).log_prob(AT))
with jax.enable_x64(True):
    wide = float(dist.TruncatedNormal(LOC, 1.0, low=0.0).log_prob(AT))
exact = stats.norm.logpdf(AT, LOC) - stats.norm.logsf(0.0, LOC)
print(f"32 bits {narrow:.4f}, 64 bits {wide:.4f}, scipy {exact:.4f}")
as_seen = narrow == float("inf") and abs(wide - exact) < 1e-6
sys.exit(not as_seen)
PY
