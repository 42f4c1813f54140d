"""The preprocessing graph: Pillow's resize of eight bits, exactly, in operators that mean the same in every engine.

`plan` says what is to be done, `graph` puts it together, and each other module adds one part of it.
"""
