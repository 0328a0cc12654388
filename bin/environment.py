"""Makes the environment in which the examples and the tests run; prints its Python.

The environment is in `.environment`, apart from any that a person keeps. It is made anew
unless its stamp, which is written last, is of this place and these dependencies: so one whose
making was interrupted is never used. Of two runs at once, the second waits for the first.
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".environment"
PYTHON = PLACE / "bin" / "python"
STAMP = PLACE / "complete"
NO_VENV = """\
This Python cannot make environments: it has no module `{missing}`.
  given: {python}
  fix:   install it (on Debian and Ubuntu: apt install python3-venv),
         or name another Python: PYTHON=/path/to/python3.12 bin/test"""


def works():
    """Whether the Python of the environment still starts."""
    command = [PYTHON, "-c", ""]
    return PYTHON.exists() and subprocess.run(command, capture_output=True).returncode == 0


def make():
    """Make the environment, with what the tests and the examples need."""
    try:
        import ensurepip  # noqa: F401
        import venv
    except ImportError as error:
        sys.exit(NO_VENV.format(missing=error.name, python=sys.executable))
    print(f"Making the environment in {PLACE}, which takes a minute or two.", file=sys.stderr)
    venv.create(PLACE, clear=True, with_pip=True, symlinks=True)
    install = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "-e", f"{ROOT}[test]"]
    # what pip tells is no result of this program
    if subprocess.run(install, stdout=sys.stderr).returncode:
        sys.exit("The packages were not installed; pip's message is above. Run it again.")


with (ROOT / "pyproject.toml").open("rb") as project:
    fcntl.flock(project, fcntl.LOCK_EX)
    due = f"{hashlib.sha256(project.read()).hexdigest()} {PLACE}"
    if not (STAMP.is_file() and STAMP.read_text() == due and works()):
        try:
            make()
        except KeyboardInterrupt:
            sys.exit("Interrupted: the next run makes the environment anew.")
        STAMP.write_text(due)
print(PYTHON)
