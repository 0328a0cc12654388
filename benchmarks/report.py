"""The command of a benchmark: its options, and its figures as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from .measure import Figure


def report(
    name: str,
    description: str | None,
    parts: Mapping[str, Callable[..., Iterator[Figure]]],
    argv: list[str] | None = None,
    *,
    peers: bool = False,
) -> None:
    """Run all parts, or those that are named, and show their figures as they come or in the end.

    Args:
      parts: each is called with whether to be quick, and with whether to install peers if
        the benchmark has any.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter")
    parser.add_argument("--only", action="append", choices=parts, help="one part; may be repeated")
    if peers:
        add = parser.add_argument
        add("--no-peers", action="store_true", help="nothing that must be installed")
    options = parser.parse_args(argv)
    words: tuple[Any, ...] = (options.quick,)
    if peers:
        words += (not options.no_peers,)
    rows = []
    for part in options.only or parts:
        for figure in parts[part](*words):
            rows.append(figure)
            if options.json:
                print(json.dumps(figure.row()), flush=True)
    if not options.json:
        table(rows)


def table(rows: list[Figure]) -> None:
    """Print the figures as a table; missed goals are marked."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"{jax.devices()[0].device_kind}, JAX {jax.__version__}")
    for heading in ("name", "against", "unit"):
        shown.add_column(heading)
    for heading in ("ours", "theirs", "ratio", "goal"):
        shown.add_column(heading, justify="right")
    for f in rows:
        theirs = "" if f.theirs is None else f"{f.theirs:.4g}"
        goal = "" if f.goal is None else f"{f.goal:g}"
        ratio = "" if f.ratio is None else f"{f.ratio:.3f}"
        style = "red" if f.missed else None
        shown.add_row(f.name, f.against, f.unit, f"{f.ours:.4g}", theirs, ratio, goal, style=style)
    Console().print(shown)
