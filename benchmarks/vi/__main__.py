"""What variational inference costs against hand-written JAX and peers.

    python -m benchmarks.vi [--quick] [--json] [--no-peers]

A training step of a variational autoencoder, written with `elbo` and `expectation`, against the
same estimate written by hand, which is checked first, and against NumPyro, GenJAX and Pyro;
gradients through binary choices; and variances. Peers run in environments of their own, which pip
makes in the folder for temporary files; one that cannot be had is left out and said. Times are
medians, in turns, on the clock and of the processor.
"""

from __future__ import annotations

import argparse
import json

from ..language import table
from . import autoencoder, chains, variance


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vi", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter turns")
    parser.add_argument("--no-peers", action="store_true", help="nothing that must be installed")
    options = parser.parse_args(argv)
    rows = []
    for part in (autoencoder, chains, variance):
        for figure in part.figures(options.quick, not options.no_peers):
            rows.append(figure)
            if options.json:
                print(json.dumps(figure.row()), flush=True)
    if not options.json:
        table(rows)


if __name__ == "__main__":
    main()
