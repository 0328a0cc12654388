"""Environments of the peers, made by pip in a temporary folder and kept for the next run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .turns import Peer

FOLDER = Path(tempfile.gettempdir()) / "giry-benchmarks"
PEERS = {
    "GenJAX": ("genjax", "optax"),
    "Pyro": ("torch", "pyro-ppl"),
    "tinygp": ("tinygp==0.3.1", "jax==0.10.2", "jaxlib==0.10.2"),
    "smolgp": ("smolgp==0.4.3", "jax==0.10.2", "jaxlib==0.10.2"),
    "dynamax": ("dynamax==1.0.3",),
    "tensorly": ("tensorly==0.10.0", "numpy", "scipy"),
    "NumPyro": ("numpyro==0.22.0", "jax==0.10.2", "jaxlib==0.10.2", "funsor", "optax"),
}
"""What each peer needs; NumPyro's enumeration needs funsor, which is not one of ours."""
OLDEST = {"GenJAX": (3, 12)}
"""The oldest Python that a peer runs on."""


class Unobtainable(Exception):
    """A peer could not be installed."""


def begun(peer: str, script: str, *words: object) -> Peer | None:
    """A peer's script, ready to be timed; None where it cannot be had, which a line says."""
    try:
        return Peer(_python_of(peer), script, *words)
    except (Unobtainable, RuntimeError) as error:
        print(f"# {peer} is left out: {error}", file=sys.stderr)
        return None


def _python_of(peer: str) -> Path:
    """The interpreter of a peer's environment.

    Raises:
      Unobtainable: there is no Python for it, or pip says no; the message is its last line.
    """
    home = FOLDER / peer.lower()
    python, marker = home / "bin" / "python", home / "complete"
    if not marker.exists():
        base = _interpreter(OLDEST.get(peer, (3, 11)))
        for command in (
            [base, "-m", "venv", "--clear", str(home)],
            [str(python), "-m", "pip", "install", "-q", *PEERS[peer]],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["pip says nothing"]
                raise Unobtainable(said[-1])
        marker.touch()
    return python


def _interpreter(oldest: tuple[int, int]) -> str:
    """This interpreter, or one of the path or of pyenv that is new enough."""
    if sys.version_info >= oldest:
        return sys.executable
    minors = range(oldest[1], oldest[1] + 3)
    named = [found for n in minors if (found := shutil.which(f"python3.{n}"))]
    versions = Path.home() / ".pyenv" / "versions"
    kept = [str(p) for n in minors for p in sorted(versions.glob(f"3.{n}.*/bin/python"))]
    for candidate in [*named, *kept]:
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    raise Unobtainable(f"it needs Python {oldest[0]}.{oldest[1]} or newer")
