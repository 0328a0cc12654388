"""Runs driven by the host: chains and particles in blocks, with progress and checkpoints.

What is random in a run is a random program of another room; here it is compiled, driven and
saved. It may use every other room; none may use it.
"""
