#!/bin/sh
# dynamax's filter of a hidden Markov model raises small probabilities to 1e-15 before it adds up.
#
# Versions: dynamax 1.0.3, jax and jaxlib 0.10.2, numpy 2.4.6, in 64 bits.
# Behaviour: `hmm_filter` takes products of probabilities below 1e-15, but above zero, for 1e-15,
# in both precisions, where it makes them add up to one. Two states, the first for sure at the
# start; the second is reached with probability e; what is seen at the second step is possible in
# the second state alone. The evidence is log e, with the derivative 1 / e. dynamax gives that at
# e = 1e-14, and log(1e-15) = -34.5388 with the derivative 0 at e = 1e-20 and below, where it is
# -46.0517: a way that is rare but certain is worth the same however rare it is, and a fit does
# not feel it. All numbers are far inside of what doubles can say.
# Seen: at 1e-14 -32.2362, right -32.2362; at 1e-20 -34.5388 slope 0.0, right -46.0517 slope 1e+20
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    dynamax==1.0.3 tfp-nightly==0.26.0.dev20261027 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder" # so that no other code is imported
venv/bin/python -W ignore - <<'PY'
import math
import sys

import jax
import jax.numpy as jnp
from dynamax.hidden_markov_model import hmm_filter

jax.config.update("jax_enable_x64", True)
start, seen = jnp.array([1.0, 0.0]), jnp.array([[0.0, 0.0], [-jnp.inf, 0.0]])


def evidence(e):
    moves = jnp.array([[1.0 - e, e], [0.5, 0.5]])
    return hmm_filter(start, moves, seen).marginal_loglik


common, rare = 1e-14, 1e-20
found = float(evidence(common))
floored, slope = map(float, jax.value_and_grad(evidence)(rare))
print(
    f"at {common:.0e} {found:.4f}, right {math.log(common):.4f}; at {rare:.0e} {floored:.4f} "
    f"slope {slope:.1f}, right {math.log(rare):.4f} slope {1 / rare:.0e}"
)
surprise = abs(floored - math.log(1e-15)) < 1e-6 and slope == 0.0
sys.exit(not (surprise and abs(found - math.log(common)) < 1e-6))
PY
