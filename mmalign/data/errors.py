"""Everything that reading pairs can raise.

MmalignError
└── DataError
    ├── DataConfigError       a setting has an impossible value (also a ValueError)
    ├── SourceError           the source as a whole cannot be read
    │   ├── SourceNotFoundError
    │   ├── SourceFormatError
    │   ├── EmptySourceError
    │   └── ColumnError
    └── RowError              one row cannot be read, and skipping was not asked for

Each message says what was seen, what was expected and what to do.
"""

from mmalign_runtime.errors import MmalignError


class DataError(MmalignError):
    """Root of what `mmalign.data` raises."""


class DataConfigError(DataError, ValueError):
    """A setting of a source or a split is impossible.

    A `ValueError` too: msgspec turns those into validation errors that name the place in the TOML file.
    """


class SourceError(DataError):
    """A source cannot be read as a whole. Skipping rows does not help."""


class SourceNotFoundError(SourceError):
    """The path names no file or folder, or the pattern matches none."""


class SourceFormatError(SourceError):
    """The format is unknown, ambiguous, or not the one that the bytes are in."""


class EmptySourceError(SourceError):
    """The source was read to its end and gave no pair."""


class ColumnError(SourceError):
    """A configured column is not in the source."""


class RowError(DataError):
    """A row cannot be read. `on_error = "skip"` leaves such rows out and counts them."""
