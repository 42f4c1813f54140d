"""Changes to a tower's modules before it is traced: fewer operators, the same numbers. One change a file."""
