"""The pages of the site, as Zensical takes them: the README, `docs/`, and the reference.

The README is the first page and lies beside the pages of `docs/`; so its links lose that
folder. A link to another file of the repository is none on the site: only its text is kept.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from .reference import reference

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def moved(text: str, home: Path) -> str:
    """A page of the folder `home` with the links that it has on the site."""
    parts = FENCE.split(text)
    return "".join(
        x if i % 2 else LINK.sub(lambda m: _link(m, home), x) for i, x in enumerate(parts)
    )


def _link(link: re.Match[str], home: Path) -> str:
    kind, text, path, anchor = link.groups()
    if not path or path.startswith(("http:", "https:")):
        return link.group()
    found = (home / path).resolve()
    if found == ROOT / "README.md":
        there = "index.md"
    elif found.parent == ROOT / "docs":
        there = found.name
    else:
        return text
    return f"{kind}[{text}]({there}{anchor or ''})"


def write(folder: Path) -> None:
    """Write all pages and their pictures into `folder`, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    docs = ROOT / "docs"
    for page in docs.glob("*.md"):
        (folder / page.name).write_text(moved(page.read_text(), docs))
    (folder / "index.md").write_text(moved((ROOT / "README.md").read_text(), ROOT))
    for picture in docs.glob("*.png"):
        shutil.copy(picture, folder)
    shutil.copy(Path(__file__).parent / "style.css", folder)
    (folder / "api").mkdir()
    for name, text in reference().items():
        (folder / "api" / f"{name}.md").write_text(text)
