"""A check that `ppl`, `inference` and `semantics` come from one installation."""

from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).resolve().parent.parent


def check(package: str) -> None:
    """Raise `ImportError` when a sibling of `package` is another distribution's.

    Other distributions also install a top-level `inference`.
    """
    for name in ("ppl", "inference", "semantics"):
        spec = find_spec(name)
        if (
            spec is None
            or spec.origin is None
            or Path(spec.origin).resolve().parent.parent != _HOME
        ):
            found = "nowhere" if spec is None else spec.origin
            raise ImportError(
                f"{package} is installed in {_HOME}, but `import {name}` finds {found}. "
                "Another distribution shadows it: uninstall that one, or use a fresh "
                "virtual environment with only giry in it."
            )
