"""Changes to a tower's modules before it is traced, and to its graph after: fewer operations, the same numbers.

One change a file.
"""
