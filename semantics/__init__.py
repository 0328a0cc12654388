"""Checks of what inference means."""
