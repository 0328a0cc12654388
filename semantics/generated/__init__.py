"""Programs whose measures are known: descriptions, Hypothesis strategies, and their code.

Finite programs have exact tables, others closed forms; each can be printed as code. It may use
`measures`.
"""
