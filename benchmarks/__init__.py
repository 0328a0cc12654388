"""Measured costs of the language and of inference."""
