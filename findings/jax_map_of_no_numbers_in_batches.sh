#!/bin/sh
# jax.lax.map divides by zero when it runs in batches and a result has no elements.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: a function may put out an array of shape (0,), a group without members. lax.map stacks
# such results to shape (4, 0), and jax.vmap does. With batch_size, which is said to change memory
# and not results, joining the batches infers an axis from a size of zero: ZeroDivisionError.
# Seen: whole (4, 0); in batches ZeroDivisionError
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder" # so that no other code is imported
venv/bin/python - <<'PY'
import sys

import jax
import jax.numpy as jnp


def pair(x):
    return x, jnp.zeros(0)


whole = jax.lax.map(pair, jnp.arange(4.0))[1].shape
try:
    found = str(jax.lax.map(pair, jnp.arange(4.0), batch_size=2)[1].shape)
except ZeroDivisionError as error:
    found = type(error).__name__
print(f"whole {whole}; in batches {found}")
sys.exit(not (whole == (4, 0) and found == "ZeroDivisionError"))
PY
