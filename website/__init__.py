"""The site: `bin/site` builds it of the README, `docs/` and docstrings, and checks it."""
