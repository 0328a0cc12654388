"""What can be seen of the built pages without a browser: their links, anchors and sources.

Links inside of the site must lead to a file that is there, and to an anchor that is on it; what a
page loads must be the site's own, so that it can be read without a network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Seen(HTMLParser):
    """What a page links to (`href` of `a`), loads (all else), and which anchors it has."""

    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    without_text: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.anchors |= {x for x in (has.get("id"), has.get("name") if tag == "a" else "") if x}
        for key in ("href", "src"):
            if has.get(key):
                (self.links if tag == "a" else self.loads).append(str(has[key]))
        if tag == "img" and not has.get("alt"):
            self.without_text.append(str(has.get("src")))


def read(path: Path) -> Seen:
    """What is on the page in a file."""
    seen = Seen()
    seen.feed(path.read_text())
    return seen


def faults(folder: Path) -> list[str]:
    """What is wrong with the pages of a site, a line each."""
    # of a page that is not found the addresses are absolute: it may be shown anywhere
    pages = {path: read(path) for path in sorted(folder.rglob("*.html")) if path.name != "404.html"}
    found = []
    for page, seen in pages.items():
        here = page.relative_to(folder)
        for link in seen.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            path = (page.parent / unquote(target.path)).resolve() if target.path else page
            path = path / "index.html" if path.is_dir() else path
            if not path.is_file():
                found.append(f"{here}: no page {link}")
            elif path in pages and target.fragment:
                anchors = pages[path].anchors
                found += [f"{here}: no anchor {link}"] * (unquote(target.fragment) not in anchors)
        for load in seen.loads:
            target = urlsplit(load)
            if target.scheme == "data":
                continue
            if target.scheme or target.netloc:
                found.append(f"{here}: loads {load} from elsewhere")
            elif not (page.parent / unquote(target.path)).resolve().is_file():
                found.append(f"{here}: no file {load}")
        found += [f"{here}: a picture without a text: {src}" for src in seen.without_text]
    return found
