"""The pages in a real browser: Chromium of the system, driven by Playwright.

Each page is looked at on a desk and on a phone, light and dark. It must not be wider than the
screen (what is wide scrolls inside of itself), must load nothing from elsewhere, and log no error;
its pictures must be there, and its texts in sufficient contrast with what is behind them: 4.5, or 3
where they are large (WCAG 2, 1.4.3). The search must find a page by a word of it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
SCHEMES: dict[Any, str] = {"light": "default", "dark": "slate"}
NAMES = ("chromium", "chromium-browser", "google-chrome")
SEARCHED = ("Hamiltonian", "#inference.hmc")
"""A word, and the end of the address of what it must find."""

STILL = "*, ::before, ::after { transition: none !important; animation: none !important }"
"""Else a colour is measured on its way from light to dark."""

MEASURED = (Path(__file__).parent / "measured.js").read_text()


def executable() -> str | None:
    """The browser, if one is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """The address at which this machine, and no other, sees the files of a folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A page of a new browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # of all containers, few let a process of root have a sandbox
        started = playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield started.new_page()
        finally:
            started.close()


def _ways(page: Any) -> Iterator[str]:
    """Show a page at each width, light and dark; how it is shown now."""
    page.add_style_tag(content=STILL)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme, name in SCHEMES.items():
            page.emulate_media(color_scheme=scheme)
            page.wait_for_selector(f"body[data-md-color-scheme={name}]")
            yield f"{width}-{scheme}"


def faults(folder: Path) -> list[str]:
    """What is wrong with the pages of a site as they are shown, a line each."""
    found: list[str] = []
    with served(folder) as address, browser() as page:
        here = ""
        page.on("console", lambda m: m.type == "error" and found.append(f"{here}: {m.text}"))
        page.on("pageerror", lambda error: found.append(f"{here}: {error}"))

        def asked(request: Any) -> None:
            if not request.url.startswith((address, "data:", "blob:")):
                found.append(f"{here}: asks for {request.url}")

        page.on("request", asked)
        for path in sorted(folder.rglob("*.html")):
            here = path.relative_to(folder).as_posix()
            page.goto(f"{address}/{here}", wait_until="load")
            for shown in _ways(page):
                found += [f"{here} ({shown}): {x}" for x in page.evaluate(MEASURED)]
    return found


def searched(folder: Path) -> list[str]:
    """What is wrong with the search."""
    from playwright.sync_api import TimeoutError

    word, due = SEARCHED
    with served(folder) as address, browser() as page:
        page.goto(f"{address}/index.html", wait_until="load")
        page.click(".md-search__button")
        page.keyboard.type(word)
        try:
            page.wait_for_selector(f"a[href$='{due}']")
        except TimeoutError:
            return [f"the search for {word} does not find {due}"]
    return []


def photograph(folder: Path, names: Sequence[str], into: Path) -> None:
    """Screenshots of pages, at both widths, light and dark, for people to look at."""
    into.mkdir(parents=True, exist_ok=True)
    with served(folder) as address, browser() as page:
        for name in names:
            page.goto(f"{address}/{name}", wait_until="load")
            stem = name.replace("/", "-").removesuffix(".html")
            for shown in _ways(page):
                page.screenshot(path=into / f"{stem}-{shown}.png")
