"""What notebooks show of a result: a table in HTML with the cells of its text.

Cells are plain text and are escaped. There are no scripts, and no colours, so that a table has
those of the notebook, be it light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    head: Sequence[str] = (),
    foot: Iterable[Sequence[str]] = (),
) -> str:
    """The rows as a table; the first cell of each is the row's name.

    Args:
      rows: of as many cells as `head`, if that is given.
      caption: what the table is of, above it.
      head: names of the columns.
      foot: rows that are set apart, below the others.

    >>> from ppl.notebook import table
    >>> print(table([("a < b",)], caption="of one"))
    <table><caption>of one</caption>
    <tbody>
    <tr><th scope="row" style="text-align: left">a &lt; b</th></tr>
    </tbody>
    </table>
    """
    parts = [f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}"]
    if head:
        cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
        parts += ["<thead>", f"<tr>{cells}</tr>", "</thead>"]
    parts += ["<tbody>", *map(_row, rows), "</tbody>"]
    if last := [*map(_row, foot)]:
        parts += ["<tfoot>", *last, "</tfoot>"]
    return "\n".join([*parts, "</table>"])


def lines(text: str) -> str:
    """Text whose lines and spaces stay as they are, such as code.

    >>> from ppl.notebook import lines
    >>> lines("at x < 1")
    '<pre>at x &lt; 1</pre>'
    """
    return f"<pre>{escape(text)}</pre>"


def _row(cells: Sequence[str]) -> str:
    first, *others = cells
    name = f'<th scope="row" style="text-align: left">{escape(first)}</th>'
    return f"<tr>{name}{''.join(map(_cell, others))}</tr>"


def _cell(text: str) -> str:
    side = "right" if _is_number(text) else "left"
    return f'<td style="text-align: {side}">{escape(text)}</td>'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"  # a number that is not defined
    return True
