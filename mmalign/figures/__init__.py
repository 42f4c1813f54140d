"""Figures of retrieval beyond recall, one kind a file: pure functions of vectors and of what each query came to."""
