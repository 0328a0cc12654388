"""What is said of draws and particles: summaries, verdicts, predictions, export, pictures.

Nothing here draws from a posterior; it reads what a run has left. It may use `ppl`, the
algebra, and what particles leave behind in `smc` and elements missing in `targets`.
"""
