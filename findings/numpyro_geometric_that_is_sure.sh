#!/bin/sh
# A geometric variable that succeeds for sure has log probability -inf at its only value.
#
# Versions: numpyro 0.22.0, jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: Geometric(p) counts failures before the first success, so that P(0) = p: log P(0) is 0
# at p = 1, and -1e-6 at p = 0.999999. At p = 1 exactly numpyro replaces p by 0 before it takes
# the logarithm, and gives -inf, in 32 and in 64 bits: a certain event has no probability. A model
# whose p rounds to 1 (a sigmoid of 20 in 32 bits) loses its whole weight.
# Seen: at p = 1: -inf in 32 bits, -inf in 64 bits; at 0.999999: -1.0000e-06
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

import jax
import numpyro.distributions as dist

narrow = float(dist.Geometric(1.0).log_prob(0))
with jax.enable_x64(True):
    wide = float(dist.Geometric(1.0).log_prob(0))
    near = float(dist.Geometric(0.999999).log_prob(0))
print(f"at p = 1: {narrow} in 32 bits, {wide} in 64 bits; at 0.999999: {near:.4e}")
sys.exit(not (narrow == wide == -float("inf") and abs(near + 1e-6) < 1e-9))
PY
