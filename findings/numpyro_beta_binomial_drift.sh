#!/bin/sh
# The log probability of a beta-binomial drifts without a bound in 32 bits.
#
# Versions: numpyro 0.22.0, jax and jaxlib 0.10.2, numpy 2.4.6, scipy 1.17.1.
# Behaviour: as its concentration c grows, BetaBinomial(0.3 c, 0.7 c, 20) tends to
# Binomial(20, 0.3), whose log probability of 5 is -1.7211. In 32 bits, which is JAX's default,
# the error grows with c instead: the log beta functions of about -0.6 c are subtracted from
# each other, and what is left is their rounding. Nothing warns. The likelihood of c, which
# should flatten out, has a step wherever the rounding jumps.
# Seen: c=1e5 -1.7578 (scipy -1.7212), c=1e6 -1.8750 (scipy -1.7211), c=1e7 -10.5000 (scipy -1.7211)
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

import numpyro.distributions as dist
from scipy import stats

shown, errors = [], []
for c in ("1e5", "1e6", "1e7"):
    a, b = 0.3 * float(c), 0.7 * float(c)
    given = float(dist.BetaBinomial(a, b, 20).log_prob(5))
    exact = stats.betabinom.logpmf(5, 20, a, b)
    shown.append(f"c={c} {given:.4f} (scipy {exact:.4f})")
    errors.append(abs(given - exact))
print(", ".join(shown))
as_seen = errors == sorted(errors) and errors[1] > 0.1 and errors[2] > 1.0
sys.exit(not as_seen)
PY
