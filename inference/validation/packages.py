"""Packages of the optional extras, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from ppl import errors


def extra(module: str, name: str, purpose: str) -> Any:
    """The module, which `pip install 'giry[name]'` brings.

    Raises:
      MissingPackage: it is not installed.

    >>> from inference.validation.packages import extra
    >>> extra("math", "plots", "Counting").floor(2.5)
    2
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise errors.MissingPackage(
            f"{purpose} needs the package {module.split('.')[0]}, which is not installed.",
            where=errors.caller(),
            given=str(error),
            expected=f"giry with its extra `{name}`",
            fix=f"pip install 'giry[{name}]'",
        ) from error
