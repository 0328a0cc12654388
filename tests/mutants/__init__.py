"""Deliberate bugs, each one term away from a correct algorithm, and the check that sees it."""
