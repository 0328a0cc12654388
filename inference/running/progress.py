"""Progress of a run on the terminal; silent anywhere else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[str, int, int | None], None]


@contextlib.contextmanager
def bar(show: bool) -> Iterator[Advance]:
    """`advance(phase, done, total)`, which moves a bar; nothing off a terminal.

    The total is None where it is not known.

    >>> from inference.running.progress import bar
    >>> with bar(show=False) as advance:
    ...     advance("sampling", 10, 100)
    """
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda phase, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict = {}

        def advance(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done)

        yield advance
