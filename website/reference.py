"""The pages of the reference: every public name of the packages, with its docstring.

A package has one page, but `inference`, which has one for each room; rooms with names of their
own (`inference.gaussian`) have pages, too. Names are read off the `__init__` files, and nothing is
imported, so that a new name needs no entry here.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .docstrings import first_line, readable

ROOT = Path(__file__).parents[1]
PACKAGES = ("ppl", "inference", "semantics")


@dataclass(frozen=True)
class Public:
    """A public name: the file that defines it, and its docstring; empty for a value."""

    name: str
    file: Path
    docstring: str

    @property
    def path(self) -> str:
        """Where it is collected, and its anchor: its name, unless a file has that (`ppl.law`)."""
        taken = ROOT.joinpath(*self.name.split(".")).with_suffix(".py").is_file()
        module = ".".join(self.file.relative_to(ROOT).with_suffix("").parts)
        return f"{module}.{self.name.rpartition('.')[2]}" if taken else self.name


@dataclass(frozen=True)
class Page:
    """A page of the reference: its title, what it is about, and the names that are on it."""

    title: str
    about: str
    names: tuple[Public, ...]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def public(package: str) -> list[Public]:
    """What a package (or a room) has in `__all__`."""
    home = ROOT / package.replace(".", "/")
    found, names = {}, []
    for node in _tree(home / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and node.level:
            file = home.joinpath(*(node.module or "").split("."))
            for alias in node.names:
                found[alias.name] = file / alias.name if file.is_dir() else file
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    return [_public(package, name, found[name].with_suffix(".py")) for name in names]


def _public(package: str, name: str, file: Path) -> Public:
    tree = _tree(file)
    defined = [n for n in tree.body if getattr(n, "name", "") == name]
    documented = defined[-1] if defined else (tree if file.stem == name else None)
    text = (ast.get_docstring(documented) if documented else "") or ""
    for node in tree.body:  # a value is of a class, which has the docstring
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            text = f"A value: `{ast.unparse(getattr(node.value, 'func', node.value))}`."
    return Public(f"{package}.{name}", file, text)


def _about(path: Path) -> str:
    """What a file says of itself, without what it may import, and without its example."""
    text = (ast.get_docstring(_tree(path)) or "").split("\n\n>>>")[0]
    return re.sub(r"It\s+may\s+use.*", "", text, flags=re.DOTALL).strip()


@cache
def pages() -> dict[str, Page]:
    """By file name."""
    found = {}
    for package in PACKAGES:
        home = ROOT / package
        by_room: dict[str, list[Public]] = {}
        for each in public(package):
            room = (
                each.file.parent.name if package == "inference" and each.file.parent != home else ""
            )
            by_room.setdefault(room, []).append(each)
        for room, some in sorted(by_room.items()):
            title = f"{package}: {room}" if room else package
            about = _about(home / room / "__init__.py")
            found[f"{package}-{room}".rstrip("-")] = Page(title, about, tuple(some))
        for init in sorted(home.glob("*/__init__.py")):
            room = f"{package}.{init.parent.name}"
            if own := public(room):
                found[room.replace(".", "-")] = Page(room, _about(init), tuple(own))
    return found


def _table(page: Page, there: str = "") -> list[str]:
    rows = []
    for each in page.names:
        link = f"[`{each.name.rpartition('.')[2]}`]({there}#{each.path})"
        rows.append(f"| {link} | {first_line(each.docstring)} |")
    return ["| name | |", "| --- | --- |", *rows, ""]


def reference() -> dict[str, str]:
    """By file name, the Markdown of each page, and of one with all names."""
    found = {}
    every = ["# Every public name", ""]
    for file, page in pages().items():
        text = [f"# {page.title}", "", readable(page.about), "", *_table(page)]
        for each in page.names:
            text += [f"::: {each.path}", ""]
        found[file] = "\n".join(text)
        every += [f"## {page.title}", "", *_table(page, f"{file}.md")]
    found["index"] = "\n".join(every)
    return found
