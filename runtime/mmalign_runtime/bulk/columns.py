"""Which Parquet columns hold texts, images or ids, and the values that they give.

A text is decoded here, not by pyarrow, for which one that is not UTF-8 would be the end of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    import pyarrow as pa

# The fields of an image in a data set of Hugging Face's: the file's bytes, or else where it lies.
_BYTES, _PATH = "bytes", "path"


def fits(kind: pa.DataType, modality: Modality) -> bool:
    """Say whether a column of this type holds texts; or images, as paths, as files' bytes, or as structs of these."""
    kind = _plain(kind)
    if _is_text(kind):
        return True
    return modality == "image" and (_is_binary(kind) or bool(_image_fields(kind)))


def fits_ids(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds ids: texts, their bytes, whole numbers, UUIDs."""
    from pyarrow import types

    plain = _plain(kind)
    is_whole = types.is_integer(plain) or (types.is_decimal(plain) and plain.scale == 0)
    return is_whole or _is_text(plain) or _is_binary(plain)


def texts(array: pa.Array[Any]) -> list[str | None]:
    """Return a column's texts, or its ids as text; a byte that is not UTF-8 becomes a lone surrogate (PEP 383)."""
    return [None if value is None else _as_text(value) for value in _values(array)]


def images(array: pa.Array[Any]) -> list[str | bytes | None]:
    """Return a column's images: a path as text, a file as bytes."""
    plain = _plain(array.type)
    if _is_text(plain):
        return list(texts(array))
    if not (names := _image_fields(plain)):
        return _values(array)
    columns = [images(_field(array, name)) for name in names]
    return [next((value for value in values if value is not None), None) for values in zip(*columns, strict=True)]


def _values(array: pa.Array[Any]) -> list[Any]:
    """Return the values of a column as they are stored, texts as bytes."""
    import pyarrow as pa

    if isinstance(array, pa.DictionaryArray):
        return _values(array.dictionary.take(array.indices))
    return (array.cast(pa.large_binary()) if _is_text(array.type) else array).to_pylist()


def _as_text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _field(array: pa.Array[Any], name: str) -> pa.Array[Any]:
    import pyarrow.compute as pc

    # Unlike StructArray.field, null where the struct is.
    return cast("pa.Array[Any]", pc.struct_field(cast("pa.StructArray", array), name))


def _image_fields(kind: pa.DataType) -> list[str]:
    """Return the names of the fields that hold an image, its bytes first; none where the type is not such a struct."""
    import pyarrow as pa

    if not isinstance(kind, pa.StructType):
        return []
    fields = {field.name: _plain(field.type) for field in kind}
    found = [_BYTES] if _BYTES in fields and _is_binary(fields[_BYTES]) else []
    return found + ([_PATH] if _PATH in fields and _is_text(fields[_PATH]) else [])


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, and what an extension type such as a UUID is stored as."""
    import pyarrow as pa

    if isinstance(kind, pa.DictionaryType):
        return _plain(kind.value_type)
    return _plain(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types

    is_view = types.is_binary_view(kind)
    return is_view or types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
