"""What variational inference costs against hand-written JAX and peers.

    python -m benchmarks.vi [--quick] [--json] [--no-peers]

A training step of a variational autoencoder, written with `elbo` and `expectation`, against the
same estimate written by hand, which is checked first, and against NumPyro, GenJAX and Pyro;
gradients through binary choices; and variances. Peers run in environments of their own, which pip
makes in the folder for temporary files; one that cannot be had is left out and said. Times are
medians, in turns, on the clock and of the processor.
"""

from __future__ import annotations

from ..report import report
from . import autoencoder, chains, variance


def main(argv: list[str] | None = None) -> None:
    parts = {
        "autoencoder": autoencoder.figures,
        "chains": chains.figures,
        "variance": variance.figures,
    }
    report("benchmarks.vi", __doc__, parts, argv, peers=True)


if __name__ == "__main__":
    main()
