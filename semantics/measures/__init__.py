"""Exact measures on finite sets and kernels as matrices, and what a random program denotes.

`measure` and `matrix` are an oracle that shares no code with `ppl` or `inference`; `denote` is
the bridge to it. It may use `ppl`, and no other room.
"""
