#!/bin/sh
# In a scan, forward over reverse differentiation forgets the rule of a jax.custom_jvp function.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6.
# Behaviour: jax.grad of a lax.scan looks for what it can move out of the loop, and evaluates the
# body for that as if custom_jvp functions were their code. So a second derivative (jax.hessian,
# or jvp of grad) is that of the code, not of the rule. It shows where the two differ by intent:
# the "magic box" of DiCE estimators (value 1, derivative that of the score), straight-through
# functions, clipped derivatives. For sum over k of k * box(k * t), box(s) = 1 with the derivative
# box(s) ds, the second derivative is the sum of k^3, 36 for k = 1, 2, 3. A Python loop, and
# forward over forward, say 36; jvp of grad of the scan says 0.
# Seen: python loop 36.0; scan, jvp of jvp 36.0; scan, jvp of grad 0.0
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


@jax.custom_jvp
def box(score):
    return jnp.ones_like(score)


@box.defjvp
def box_jvp(primals, tangents):
    one = box(primals[0])
    return one, one * tangents[0]


rows = jnp.arange(1.0, 4.0)


def by_scan(t):
    return jax.lax.scan(lambda total, k: (total + k * box(k * t), None), 0.0, rows)[0]


def by_loop(t):
    return sum(k * box(k * t) for k in rows)


def along(f):
    return lambda t: jax.jvp(f, (t,), (1.0,))[1]


loop = float(along(jax.grad(by_loop))(0.3))
forward = float(along(along(by_scan))(0.3))
reverse = float(along(jax.grad(by_scan))(0.3))
print(f"python loop {loop}; scan, jvp of jvp {forward}; scan, jvp of grad {reverse}")
sys.exit(not (loop == forward == 36.0 and reverse == 0.0))
PY
