"""Whether tests run in their long forms: `GIRY_LONG=1 bin/test -m slow`, for a release."""

import os

LONG = os.environ.get("GIRY_LONG", "") not in ("", "0")
