"""The site: every page and name is on it, and its checks find what is wrong with a page."""

import importlib
import importlib.util
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from website import browser, links
from website.docstrings import first_line, readable
from website.pages import ROOT, moved, write
from website.reference import reference

PACKAGES = (
    "ppl",
    "inference",
    "semantics",
    "inference.gaussian",
    "inference.sites",
    "inference.tensors",
)


def test_every_public_name_is_in_the_reference_once():
    due = [getattr(p, name) for p in map(importlib.import_module, PACKAGES) for name in p.__all__]
    shown = re.findall(r"^::: (\S+)$", "\n".join(reference().values()), re.MULTILINE)
    assert sorted(map(id, map(collected, shown))) == sorted(map(id, due))
    told = reference()["index"]
    assert all(told.count(f"#{path})") == 1 for path in shown)


def collected(path):
    """What is found by a path without importing: a file of this name goes first."""
    home, _, name = path.rpartition(".")
    assert not ROOT.joinpath(*path.split(".")).with_suffix(".py").is_file()
    return getattr(importlib.import_module(home), name)


def test_no_name_of_the_reference_is_without_a_line():
    rows = re.findall(r"^\| \[`.*$", reference()["index"], re.MULTILINE)
    assert rows and not [row for row in rows if row.endswith("|  |")]


def test_the_navigation_has_every_page_once(tmp_path):
    write(tmp_path / "pages")
    written = {p.relative_to(tmp_path / "pages").as_posix() for p in tmp_path.rglob("*.md")}

    def pages(nav):
        for entry in nav:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    shown = list(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(shown) == sorted(written)
    assert {p.stem for p in (ROOT / "docs").glob("*.md")} < {p.removesuffix(".md") for p in written}


def test_the_gallery_has_every_example_with_its_picture():
    text = (ROOT / "docs" / "gallery.md").read_text()
    programs = {
        p.stem
        for p in (ROOT / "examples").glob("*.py")
        if '__name__ == "__main__"' in p.read_text()
    }
    assert set(re.findall(r"python -m examples\.(\w+)", text)) == programs
    drawn = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert drawn == {p.name for p in (ROOT / "docs").glob("*.png")}
    sections = text.split("\n### ")[1:]
    assert len(sections) == len(programs)
    for section in sections:
        assert re.search(r"^- `python -m examples\.[^\n]*: \d+ s$", section, re.MULTILINE), section
        assert "\n- Data: " in section


def test_the_page_of_benchmarks_has_every_program():
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    folder = ROOT / "benchmarks"
    programs = {p.stem for p in folder.glob("*.py") if '__name__ == "__main__"' in p.read_text()}
    programs |= {p.parent.name for p in folder.glob("*/__main__.py")}
    programs -= {"particles_filter"}  # of another interpreter: benchmarks.smc calls it
    assert set(re.findall(r"python -m benchmarks\.(\w+)", text)) == programs


@pytest.mark.parametrize(
    "here, there",
    [
        ("[a](docs/moves.md#a-b)", "[a](moves.md#a-b)"),
        ("![a](docs/co2.png)", "![a](co2.png)"),
        ("[a](README.md)", "[a](index.md)"),
        ("[a](examples/data/README.md)", "a"),
        ("[a](https://example.org/b)", "[a](https://example.org/b)"),
        ("[a](#b)", "[a](#b)"),
        ("```\n[a](docs/moves.md)\n```", "```\n[a](docs/moves.md)\n```"),
    ],
)
def test_links_of_the_first_page_lead_to_pages_of_the_site(here, there):
    assert moved(here, ROOT) == there


def test_a_docstring_becomes_markdown_that_says_the_same():
    text = """<<s>>(f) = E[f(*args)], for `*args` that is *meant*.

Args:
  a, b: numbers; they
    go on.
  rest: more.

Raises:
  As `f`.

>>> 1 * 2
2

Source: one."""
    assert (
        readable(text)
        == r"""&lt;&lt;s>>(f) = E[f(\*args)], for `*args` that is *meant*.

**Args**

- `a, b`: numbers; they go on.
- `rest`: more.

**Raises**

- As `f`.

```pycon
>>> 1 * 2
2
```

Source: one."""
    )
    assert first_line("p(x|y) of\n`f`.\n\nMore.") == r"p(x\|y) of `f`."


def test_every_docstring_keeps_its_words():
    """What the reference shows of a docstring are its words, in their order."""

    def words(text):
        return re.findall(r"\w+", text.replace("&lt;", "<").replace("```pycon", ""))

    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            text = inspect.getdoc(getattr(module, name)) or ""
            assert words(readable(text)) == words(text), name


# What follows the system's choice of colours, as the site's own script does.
PAGE = """<html><head><link rel="icon" href="data:,"></head><body><script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const set = () => document.body.dataset.mdColorScheme = dark.matches ? "slate" : "default";
dark.addEventListener("change", set); set();
</script><article>{}</article></body></html>"""
DOT = "R0lGODlhAQABAAAAACwAAAAAAQABAAA="
GOOD = f'<a id="x" href="#x">here</a><img alt="dot" src="data:image/gif;base64,{DOT}">'


def site(folder: Path, body: str) -> Path:
    (folder / "index.html").write_text(PAGE.format(body))
    return folder


@pytest.mark.parametrize(
    "body, fault",
    [
        (GOOD, None),
        ('<a href="https://example.org/">elsewhere</a>', None),
        ('<a href="index.html#">top</a>', None),
        ('<a href="no.html">a</a>', "no page no.html"),
        ('<a href="#no">a</a>', "no anchor #no"),
        ('<a href="index.html#no">a</a>', "no anchor index.html#no"),
        ('<img alt="a" src="no.png">', "no file no.png"),
        ('<script src="//example.org/a.js"></script>', "loads //example.org/a.js from elsewhere"),
        (
            '<link href="https://example.org/a.css">',
            "loads https://example.org/a.css from elsewhere",
        ),
        ('<img src="data:image/png,">', "a picture without a text: data:image/png,"),
    ],
)
def test_faults_are_seen_without_a_browser(tmp_path, body, fault):
    due = [] if fault is None else [f"index.html: {fault}"]
    assert links.faults(site(tmp_path, body)) == due


SHOWN = pytest.mark.skipif(
    browser.executable() is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium (apt install chromium) and playwright (pip install 'giry[docs]')",
)


@SHOWN
@pytest.mark.slow
@pytest.mark.parametrize(
    "body, fault, ways",
    [
        (GOOD, None, 4),
        ('<pre style="overflow: auto">' + "wide " * 400 + "</pre>", None, 4),
        ('<p style="width: 700px">wide</p>', "pixels wide", 2),
        ('<img alt="a" src="no.png">', "no picture", 4),
        ('<p style="color: #999">faint</p>', 'contrast 2.85 of "faint"', 4),
        ('<p style="color: #999; font-size: 30px">large</p>', 'contrast 2.85 of "large"', 4),
        ('<p style="color: #888; font-size: 30px">large</p>', None, 4),
        ("<style>@media (prefers-color-scheme: dark) { p { color: #eee } }</style><p>a</p>",
         'contrast 1.16 of "a"', 2),
        ("<script>fetch('http://127.0.0.2:9/').catch(() => 0)</script>", "asks for", 1),
        ("<script>throw Error('a fault')</script>", "a fault", 1),
    ],
)  # fmt: skip
def test_faults_are_seen_in_a_browser(tmp_path, body, fault, ways):
    found = browser.faults(site(tmp_path, body))
    if fault is None:
        assert found == []
    else:
        assert len([line for line in found if fault in line]) == ways, found
