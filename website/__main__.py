"""Build the site, and look at what was built: `bin/site`, and its options.

The site is in build/site/html. Whatever Zensical warns of (links and anchors that lead nowhere) is
an error. With `--check`, links, anchors and sources are looked at again in what was built, and
then, where Chromium is installed, each page in it: `browser` says for what.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from . import browser, links
from .pages import ROOT, write

BUILD = ROOT / "build" / "site"
LOOKED_AT = ("index.html", "gallery.html", "results.html", "kill_matrix.html", "api/ppl.html")
NO_BROWSER = """\
The pages were not looked at in a browser: there is none.
  expected: one of: {names}
  fix:      install it (on Debian: apt install chromium)"""


def build() -> int:
    """Write the pages and build the site of them; the exit status."""
    write(BUILD / "pages")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    there = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": there}).returncode


def check() -> int:
    """How many faults the built site has; each is printed."""
    html = BUILD / "html"
    found = links.faults(html)
    if browser.executable():
        found += browser.faults(html) + browser.searched(html)
    else:
        print(NO_BROWSER.format(names=", ".join(browser.NAMES)))
    print(*found, f"{len(found)} faults on {len(list(html.rglob('*.html')))} pages", sep="\n")
    return len(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/site", description="Build the site.")
    parser.add_argument("--check", action="store_true", help="look for faults in what was built")
    parser.add_argument("--serve", type=int, metavar="PORT", help="show it on this machine")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="of five pages")
    options = parser.parse_args()
    if failed := build():
        return failed
    if options.check and check():
        return 1
    if options.screenshots:
        browser.photograph(BUILD / "html", LOOKED_AT, options.screenshots)
    print(f"site: {BUILD / 'html' / 'index.html'}")
    if options.serve is not None:
        with browser.served(BUILD / "html", options.serve) as address:
            print(f"{address} (Ctrl-C ends it)")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
