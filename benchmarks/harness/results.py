"""Results as JSON, for people and programs."""

from pathlib import Path
from typing import TypeVar

import msgspec

from mmalign_runtime.atomic import replacing

Result = TypeVar("Result", bound=msgspec.Struct)


def write_result(result: object, path: Path) -> None:
    """Write a result in the place of what was there, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read_result(path: Path, kind: type[Result]) -> Result:
    """Read a result. Raises msgspec.ValidationError when the file is another thing."""
    return msgspec.json.decode(path.read_bytes(), type=kind)
