"""More memory than there is, as one named error: an array of a size that a configuration asked for.

torch has no class for it on the CPU: it raises RuntimeError, and TypeError or ValueError for sizes beyond 64 bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mmalign_runtime.errors import MmalignError

_TOO_LARGE = ("allocate", "out of memory", "not enough memory", "bad_alloc")
_BEYOND_64_BITS = (
    *("overflow when unpacking", "calculation overflowed", "multiplication overflow"),
    *("too large to convert to c", "maximum supported dimension", "array is too big"),
)


@contextlib.contextmanager
def within_memory(what: str, advice: str, kind: type[MmalignError]) -> Iterator[None]:
    """Raise `kind` for an array that no memory holds: what it was for, the size, and what to do. Decorates, too."""
    try:
        yield
    except MmalignError:  # some are ValueErrors
        raise
    except (MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        if (reason := memory_reason(error)) is None:
            raise
        raise kind(f"{what} needs more memory than there is: {reason}. {advice}") from error


def memory_reason(error: Exception) -> str | None:
    """Return in one line how much was asked for, or None for an error of something else."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    lower = first_line.lower()
    if any(words in lower for words in _BEYOND_64_BITS):
        return "a size does not fit in 64 bits"
    if isinstance(error, MemoryError) or any(words in lower for words in _TOO_LARGE):
        return first_line.rpartition("DefaultCPUAllocator: ")[2].rstrip(".") or "none was left"
    return None
