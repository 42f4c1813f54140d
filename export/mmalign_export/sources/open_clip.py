"""open_clip: a folder ("local-dir:FOLDER", or the folder itself), or a name on the hub ("hf-hub:OWNER/NAME")."""

from __future__ import annotations

from pathlib import Path

from mmalign_export.sources import SourceOptions
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import refuse_options
from mmalign_runtime.errors import MissingDependencyError

# What a file of weights is asked for besides.
_OF_FILES = frozenset({"model", "activation"})
_READS = frozenset({"orientation", "alpha", "length", "jpeg_oversampling", "licence"}) | _OF_FILES


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model of a place, with open_clip's own pipeline.

    Raises SourceError, FormatLimitError, and MissingDependencyError where open_clip is not installed.
    """
    return read_as("open_clip", str(location), options)


def read_as(kind: str, location: str, options: SourceOptions) -> Imported:
    """Return the model of a place that open_clip builds, as a source of that kind. Raises as `read`."""
    try:
        import open_clip  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{location} is a model of open_clip, which is not installed: {error}. Run "
            "`pip install 'mmalign-export[open-clip]'`."
        ) from error
    refuse_options(kind, options, _READS if Path(location).is_file() else _READS - _OF_FILES)
    from mmalign_export.sources.open_clip_model import import_place
    from mmalign_export.sources.open_clip_place import find_place

    return import_place(find_place(location, options), options, kind)
