"""Vectors on disk, read and written: a file, or the folder of parts of a bulk embedding.

`vectors` is what users call, `tables` the Parquet that it is in, `manifest` the record beside a folder's parts.
"""

from __future__ import annotations

from mmalign_runtime.saved.vectors import UNKNOWN_VARIANT, SavedVectors, check_output, load_vectors, save_vectors

__all__ = ["UNKNOWN_VARIANT", "SavedVectors", "check_output", "load_vectors", "save_vectors"]
