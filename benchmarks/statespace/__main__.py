"""What Gaussian series cost, against peers, dense matrices and a loop written by hand.

    python -m benchmarks.statespace [--quick] [--json] [--no-peers]

Peers run in environments of their own, which pip makes in the folder for temporary files; one
that cannot be had is left out and said. Times are medians, in turns, of the processor.
"""

from __future__ import annotations

import argparse
import json

from ..language import table
from . import processes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statespace", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter turns")
    parser.add_argument("--no-peers", action="store_true", help="nothing that must be installed")
    options = parser.parse_args(argv)
    rows = []
    for figure in processes.figures(options.quick, not options.no_peers):
        rows.append(figure)
        if options.json:
            print(json.dumps(figure.row()), flush=True)
    if not options.json:
        table(rows)


if __name__ == "__main__":
    main()
