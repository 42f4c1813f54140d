"""JSON into typed structs, where whatever is wrong with the bytes is one kind of error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

Content = TypeVar("Content")


class JsonError(ValueError):
    """The bytes are not JSON, or not what was expected; says at which field where there is one."""


def read_json(raw: bytes, kind: type[Content]) -> Content:
    """Decode bytes as `kind`. Raises JsonError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise JsonError(str(error)) from error
    except UnicodeDecodeError as error:  # msgspec lets it out for text that is not UTF-8
        raise JsonError(f"a text in it is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise JsonError("it is nested too deep") from error
