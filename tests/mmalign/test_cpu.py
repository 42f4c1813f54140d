"""Imports of torch, and the memory it frees, which glibc keeps for the next step: counted by pages mapped anew."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

# Eight times a block of 64 MB, written to; then the pages that the system mapped for the last four.
_FAULTS = """
import resource, sys
import numpy as np
from mmalign.cpu import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for i in range(8):
    if i == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 << 20, np.uint8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""


def mapped_again(how: str, **settings: str) -> int:
    # numpy asks for huge pages, of which one fault maps 2 MB: without them every page counts.
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **settings}
    ran = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True, env=environment
    )
    return int(ran.stdout)


@glibc
def test_a_block_that_was_freed_is_not_mapped_again() -> None:
    assert mapped_again("plain") > 200 << 20
    assert mapped_again("keep") < 1 << 20


@glibc
def test_what_the_user_told_the_library_stays() -> None:
    assert mapped_again("keep", MALLOC_TRIM_THRESHOLD_="131072") > 200 << 20


_IMPORTED = """
import gc
from mmalign.cpu import importing_torch
with importing_torch():
    import torch._dynamo
assert gc.isenabled()
print(gc.get_freeze_count())
"""


def test_what_is_imported_is_not_looked_through_for_garbage_and_is_taken_apart_at_the_end() -> None:
    ran = subprocess.run([sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 100_000
    assert ran.stderr == ""  # triton tells what an interpreter leaves behind
