"""What mkdocstrings collects, by Griffe, with docstrings that are Markdown."""

from __future__ import annotations

from typing import Any

import griffe

from .docstrings import readable


class Readable(griffe.Extension):
    """Makes every docstring readable as it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = readable(obj.docstring.value)
