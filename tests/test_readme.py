"""Every Python block of the README runs as it stands."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(source, tmp_path):
    # from a file of its own, as a user would run it: errors and models name their lines
    script = tmp_path / "block.py"
    script.write_text(source)
    exec(compile(source, str(script), "exec"), {})
