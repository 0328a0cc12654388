"""dynamax's forward filter of a hidden Markov model: its matrix t leads out of step t.

PYTHON benchmarks/statespace/regimes_of_dynamax.py N
"""

import sys

import jax
from dynamax.hidden_markov_model import hmm_filter
from jax.scipy.stats import norm
from problem import regimes, run_as_peer


def density(p, values):
    logits, means = p
    moves = jax.nn.softmax(logits)
    # it is told the law of the first state, and not the state before
    return hmm_filter(moves[0], moves, norm.logpdf(values[:, None], means)).marginal_loglik


if __name__ == "__main__":
    run_as_peer(density, regimes(int(sys.argv[1])))
