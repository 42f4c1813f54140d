"""Files of weights alone: OpenAI's archives, LAION's state dicts, checkpoints of training. open_clip builds the model.

The number of heads and the activation are in no such file: --model and --activation say them.
"""

from __future__ import annotations

from pathlib import Path

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.open_clip import read_as
from mmalign_export.sources.protocol import Imported


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model of a file of weights and of `options.model`. Raises as open_clip's `read`."""
    if not Path(location).is_file():
        raise SourceError(f"{location} is not a file. Give the file of weights, and its architecture with --model.")
    return read_as("openai", str(location), options)
