"""The tools that are compared, each used as its own documentation says. One module a tool; nothing is imported here."""
