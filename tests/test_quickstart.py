"""The README's main command does what the README shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"[+-]?\d+\.\d+")
# Chains differ between machines: a rounding changes an acceptance, and all that follows. The
# means have a Monte Carlo standard error of about 0.03, so two runs differ by about 0.04;
# 3.5 times that, and 0.01 for the last digit printed.
CLOSE = 0.15


def table(text):
    """The cells of each row of the table in `text`, headings first."""
    rows = [line for line in text.splitlines() if line.startswith(("┃", "│"))]
    return [[cell.strip() for cell in re.split("[┃│]", row)[1:-1]] for row in rows]


def numbers(cell):
    return [float(each) for each in NUMBER.findall(cell)]


@pytest.mark.slow
def test_the_table_is_the_one_shown(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "examples.quickstart"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    readme = (ROOT / "README.md").read_text()
    shown, made = table(readme), table(run.stdout)
    title = "Eight schools: posterior means (sd), distance to the reference in se"
    assert title in readme and title in run.stdout
    assert len(shown) == len(made) == 11
    assert shown[0] == made[0] == ["", "reference", "resimulation", "z", "random walk", "z"]
    for mine, theirs in zip(made[1:], shown[1:], strict=True):
        assert mine[:2] == theirs[:2]
        reference = numbers(mine[1])[0]
        for now, then in ((mine[2:4], theirs[2:4]), (mine[4:6], theirs[4:6])):
            assert numbers(now[0]) == pytest.approx(numbers(then[0]), abs=CLOSE)
            for mean, z in ((*numbers(pair[0])[:1], *numbers(pair[1])) for pair in (now, then)):
                assert abs(z) < 4
                # both are rounded, to 0.01: a larger difference has the sign of z
                assert abs(mean - reference) < 0.015 or (mean - reference) * z > 0
    assert (tmp_path / "eight_schools.png").read_bytes().startswith(b"\x89PNG")
