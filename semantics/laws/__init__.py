"""The laws of a generative function's six methods, on any object that has them.

`generative_function` is the public check; `method_laws` has a law for each method. It may use
the two files at the root, and no other room.
"""
