#!/bin/sh
# The normal of BlackJAX's Pathfinder lies on the wrong side of the point that it is fitted at.
#
# Versions: blackjax 1.7.1, jax and jaxlib 0.10.2, optax 0.2.8, numpy 2.4.6.
# Behaviour: Pathfinder (Zhang, Carpenter, Gelman and Vehtari, JMLR 2022, algorithm 4) puts a normal
# at x - H g for each point x of an L-BFGS path, with g the gradient of the negative log density and
# H the estimated inverse Hessian: Newton's step, which for a quadratic leads to the mode, once H is
# known. The state has g of the negative log density, and its draws are around x + H g. Near the end
# of a path g is small and nothing shows; at points before that the normal is as far on the other
# side, their bounds are too low, and the path's best point comes later than it would.
# Here the target is N(mode, A^-1), mode (1, -2), and the path is cut after four steps.
# Seen: x 1.040 -2.100; mean of draws 1.08 -2.20; x - H g 1.000 -2.000; x + H g 1.080 -2.200
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check \
    blackjax==1.7.1 jax==0.10.2 jaxlib==0.10.2 optax==0.2.8 numpy==2.4.6
cd "$folder" # so that no other code is imported
venv/bin/python - <<'PY'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.vi.pathfinder import approximate, sample

jax.config.update("jax_enable_x64", True)
PRECISION, MODE = jnp.array([[2.0, 0.6], [0.6, 1.0]]), jnp.array([1.0, -2.0])


def log_density(x):
    return -0.5 * (x - MODE) @ PRECISION @ (x - MODE)


state, _ = approximate(jax.random.key(0), log_density, jnp.zeros(2), num_samples=2000, maxiter=4)
draws, _ = sample(jax.random.key(1), state, 200_000)
inverse = jnp.diag(state.alpha) + state.beta @ state.gamma @ state.beta.T
step = inverse @ state.grad_position
newton, other, mean = state.position - step, state.position + step, draws.mean(0)


def shown(x, digits):
    return " ".join(f"{value:.{digits}f}" for value in x)


print(
    f"x {shown(state.position, 3)}; mean of draws {shown(mean, 2)}; "
    f"x - H g {shown(newton, 3)}; x + H g {shown(other, 3)}"
)
# the mean of so many draws has an error of 0.003
at_mode = np.abs(newton - MODE).max() < 1e-2
sys.exit(not (at_mode and np.abs(mean - other).max() < 0.01 < np.abs(mean - newton).max()))
PY
