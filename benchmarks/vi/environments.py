"""Environments of the peers, made by pip in a temporary folder and kept for the next run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "giry-benchmarks"
PEERS = {
    "GenJAX": ("genjax", "optax"),
    "Pyro": ("torch", "pyro-ppl"),
    "NumPyro": ("numpyro==0.22.0", "jax==0.10.2", "jaxlib==0.10.2", "funsor", "optax"),
}
"""What each peer needs; NumPyro's enumeration needs funsor, which is not one of ours."""


class Unobtainable(Exception):
    """A peer could not be installed."""


def python_of(peer: str, newest: str | None = None) -> Path:
    """The interpreter of a peer's environment.

    Args:
      newest: an interpreter to make it with; else `python3.12` where there is one.

    Raises:
      Unobtainable: pip says no; the message is its last line.
    """
    home = FOLDER / peer.lower()
    python, marker = home / "bin" / "python", home / "complete"
    if not marker.exists():
        base = newest or shutil.which("python3.12") or sys.executable
        for command in (
            [base, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "-q", *PEERS[peer]],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["it says nothing"]
                raise Unobtainable(f"{peer}: {said[-1]}")
        marker.touch()
    return python
