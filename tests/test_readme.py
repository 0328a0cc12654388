"""Every Python block of the README and of docs/ runs, and prints what the page shows.

A page is one program, its blocks pasted one after the other into `my_model.py`. A block
that a bare block follows prints exactly that, or ends in exactly that error; any other
prints nothing. Pages hold in 32 bits, as JAX is when it is imported; the README in 64, too.
"""

import contextlib
import io
import os
import re
import traceback
from pathlib import Path

import jax
import pytest

from ppl import PPLError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [page for page in PAGES if "```python" in page.read_text()]
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", re.DOTALL)


def outputs(text):
    """For each Python block of a page, what it prints and what the page shows."""
    namespace, lines = {"__name__": "my_model"}, 0
    for source, shown in BLOCK.findall(text):
        code = compile("\n" * lines + source, "my_model.py", "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(code, namespace)
            except PPLError as error:
                print("".join(traceback.format_exception_only(error)), end="")
        yield printed.getvalue(), shown
        lines += source.count("\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page, x64",
    [pytest.param(page, False, id=page.stem) for page in PROGRAMS]
    + [pytest.param(PAGES[0], True, id="README in 64 bits")],
)
def test_page(page, x64):
    with jax.enable_x64(x64):
        for printed, shown in outputs(page.read_text()):
            assert printed == shown


def test_the_first_commands_run_from_a_bare_clone_in_ci():
    """The first block's commands are programs of the clone, which .ci/run gives as they stand."""
    commands = (ROOT / "README.md").read_text().split("```\n")[1].splitlines()
    assert len(commands) == 2
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    for command in commands:
        assert os.access(ROOT / command, os.X_OK) and run.count(command) == 1, command


def test_links_are_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).is_file(), target
