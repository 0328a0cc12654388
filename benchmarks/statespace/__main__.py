"""What exact inference costs, against peers, dense matrices and loops written by hand.

    python -m benchmarks.statespace [--quick] [--json] [--no-peers] [--only PART]

Gaussian processes on a line, the same written as models and summed out, hidden Markov models,
plates, posteriors of hyperparameters, and functional tensors. All programs of a part that compute
the same must give the same numbers first.
Peers run in environments of their own, which pip makes in the folder for temporary files; one
that cannot be had is left out and said. Times are medians, in turns, of the processor.
"""

from __future__ import annotations

from ..report import report
from . import hidden_markov, hyperparameters, plates, processes, tables, written


def main(argv: list[str] | None = None) -> None:
    parts = {
        "processes": processes.figures,
        "written": written.figures,
        "hidden_markov": hidden_markov.figures,
        "plates": plates.figures,
        "hyperparameters": hyperparameters.figures,
        "tables": tables.figures,
    }
    report("benchmarks.statespace", __doc__, parts, argv, peers=True)


if __name__ == "__main__":
    main()
