#!/bin/sh
# jax.nn.logsumexp has no derivative in a weight that is zero.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: logsumexp(a, b=w) is log(sum(w e^a)), whose derivative in w_i is e^(a_i) over the sum,
# also where w_i is 0. jax replaces a_i by -inf there, so that the derivative in that weight is 0.
# The weights of a mixture that starts at the edge of its simplex never leave it. For a = (0, -2)
# and weights (w, 1 - w), the derivative at w = 0 is e^2 - 1 = 6.3891; jax says -1: only the other
# component's part. It is right from the smallest positive w on.
# Seen: at 0: -1.0000; at 1e-6: 6.3890; exact 6.3891
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder" # so that no other code is imported
venv/bin/python - <<'PY'
import math
import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)


def mixed(w):
    return jax.nn.logsumexp(jnp.array([0.0, -2.0]), b=jnp.stack([w, 1 - w]))


slope = jax.grad(mixed)
at_edge, near, exact = float(slope(0.0)), float(slope(1e-6)), math.exp(2) - 1
print(f"at 0: {at_edge:.4f}; at 1e-6: {near:.4f}; exact {exact:.4f}")
sys.exit(not (abs(at_edge + 1) < 1e-9 and abs(near - exact) < 1e-4))
PY
