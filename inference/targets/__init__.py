"""What a target becomes: tempered, restricted, read as a series or a plate, missing in part.

What is here rewrites or reads the staged program of a target, and knows no algorithm. It may
use `ppl` and the algebra at the root of `inference`, and no other room.
"""
