"""What holds of every struct of the format."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest


def check_words(kind: type[msgspec.Struct], field: str, words: Sequence[str]) -> None:
    """A field takes each of the words as it is, and no other."""
    for word in words:
        assert getattr(msgspec.convert({field: word}, kind), field) == word
    with pytest.raises(msgspec.ValidationError, match=rf"Invalid enum value 'other' - at `\$\.{field}`"):
        msgspec.convert({field: "other"}, kind)


def check_closed(kind: type[msgspec.Struct]) -> None:
    """Fields are given by name, a field that is not in the format is refused, and none is set anew."""
    first = kind.__struct_fields__[0]
    with pytest.raises(TypeError, match="positional"):
        kind(getattr(kind(), first))
    with pytest.raises(msgspec.ValidationError, match="unknown field `news`"):
        msgspec.convert({"news": 1}, kind)
    with pytest.raises(AttributeError, match="immutable type"):
        setattr(kind(), first, getattr(kind(), first))
