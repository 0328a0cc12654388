#!/bin/sh
# A NumPy array that a 32-bit JAX program has closed over is rounded to 32 bits in 64-bit ones, too.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: under `jax.enable_x64(True)` a compiled function that multiplies by a float64 array of
# NumPy gives float64. If the same array object was traced before in a program of 32 bits, the
# 64-bit program, another function, compiled anew, still has its values rounded to 32 bits: as long
# as the first program is kept, JAX remembers what it made of the array by the object, whatever the
# precision is now. The result
# is float64 by its type, and is wrong in the eighth digit, with no word of it where
# `jnp.asarray(x)` comes first; where the array is used as it is, compiling raises an error about
# types. An equal array that is another object is right.
# Seen: thirds, before 0.0e+00; the same array after a 32-bit program 9.9e-09; a copy 0.0e+00
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
import numpy as np

THIRD = np.array([1 / 3, 1 / 3])


def error(constant):
    """How far a compiled 64-bit product by one is from the constant."""
    with jax.enable_x64(True):
        product = jax.jit(lambda x: jnp.asarray(constant) * x)(jnp.ones(2))
        assert product.dtype == np.float64
        return float(np.abs(np.asarray(product) - 1 / 3).max())


before = error(THIRD.copy())
single = jax.jit(lambda x: THIRD * x)  # in 32 bits; kept, as what is remembered goes with it
single(jnp.ones(2))
after, copy = error(THIRD), error(THIRD.copy())
print(f"thirds, before {before:.1e}; the same array after a 32-bit program {after:.1e}; a copy {copy:.1e}")
sys.exit(not (before == copy == 0.0 and 5e-9 < after < 5e-8))
PY
