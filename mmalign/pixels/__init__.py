"""The preprocessing graph: Pillow's resize of eight bits, exactly, in operators that mean the same in every engine.

`graph` puts together what an image spec says, and each other module adds one part of it.
"""
