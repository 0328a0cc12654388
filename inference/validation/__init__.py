"""What is asked of arguments before anything runs: their kind, their range, the same target.

Each check raises an error that says what was given, what is due, and what to do. It may use
`ppl` and nothing else of `inference`, so that the algebra and every room may use it.
"""
