"""Figures of retrieval, one kind a file: pure functions of vectors and of what each query came to.

`retrieval` ranks, `retrieval_set` says what is searched, `answers` and `scores` hold what came out, `rows` shows it.
"""
