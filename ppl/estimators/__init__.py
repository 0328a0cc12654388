"""What `expectation` is made of: strategies for choices, and the program that they run in.

A random program becomes a graph of single operations (`nodes`); which choices each value depends
on, and by which elements, is read off it (`flow`, by `axes`), and what is a sum of what (`needs`,
by `linear`). `plan` decides what can be decided before anything runs; `evaluate`, with `loops` and
`branches`, runs the graph, several outcomes side by side in `lanes`, and gives every term its
`scores`. A strategy is a file of its own that implements `strategies.Strategy`.
"""
