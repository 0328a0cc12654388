"""Docstrings as Markdown.

They are plain text with conventions of their own, which no common style has: backticks mark code,
`*word*` a word that is meant, `>>>` an example; an entry of a section (`Args:`) may have several
names, or none. So sections become lists here, and what would be markup by chance is escaped: a `*`
of a formula (`f(*args)`) and a `<` (`<<s>>(f)`) stand for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable

SECTION = re.compile(r"(Args|Attributes|Raises|Returns):")
NAMES = re.compile(r"([\w.*]+(?:(?:, | or | and )[\w.*]+)*): (.*)")
SPAN = re.compile(r"(`[^`]*`)")
MEANT = re.compile(r"(\*\*?(?=\w)[^*]*\w\*\*?(?!\w))")


def readable(text: str) -> str:
    """The docstring `text` as Markdown."""
    out: list[str] = []
    lines = text.splitlines()
    while lines:
        if lines[0].lstrip().startswith(">>>"):
            out += ["", "```pycon", *_taken(lines, lambda line: bool(line.strip())), "```"]
        elif SECTION.fullmatch(lines[0]):
            title = lines.pop(0).rstrip(":")
            inside = _taken(lines, lambda line: not line.strip() or line.startswith(" "))
            out += ["", f"**{title}**", "", *_entries(inside), ""]
        else:
            some = _taken(lines, _ordinary)
            out += _escaped("\n".join(some)).splitlines()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def first_line(text: str) -> str:
    """The first paragraph of a docstring on one line, for a cell of a table."""
    return _escaped(" ".join(text.split("\n\n")[0].split())).replace("|", r"\|")


def _ordinary(line: str) -> bool:
    return not (SECTION.fullmatch(line) or line.lstrip().startswith(">>>"))


def _taken(lines: list[str], here: Callable[[str], bool]) -> list[str]:
    """Take the lines at the front for which `here` is true."""
    n = next((i for i, line in enumerate(lines) if not here(line)), len(lines))
    some, lines[:n] = lines[:n], []
    return some


def _entries(lines: list[str]) -> list[str]:
    """The entries of a section as a list; a line that is indented further goes on with one."""
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    entries: list[str] = []
    for line in lines:
        line = line[margin:]
        if line.strip() and not line.startswith(" "):
            entries.append(line)
        else:
            entries[-1] = f"{entries[-1]} {line.strip()}".rstrip()
    named = [(NAMES.fullmatch(entry), entry) for entry in entries]
    return [f"- `{n[1]}`: {_escaped(n[2])}" if n else f"- {_escaped(e)}" for n, e in named]


def _escaped(text: str) -> str:
    """Escape what would be markup, outside of code."""
    return "".join(span if i % 2 else _plain(span) for i, span in enumerate(SPAN.split(text)))


def _plain(text: str) -> str:
    parts = MEANT.split(text.replace("<", "&lt;"))
    return "".join(part if i % 2 else part.replace("*", r"\*") for i, part in enumerate(parts))
