"""The keys of a TOML file held against the structs that it is to become, before anything is converted.

A misspelt key that is ignored costs a training run, so that each is refused with the nearest one that is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec

from mmalign.errors import ConfigError


def check_keys(struct: type[msgspec.Struct], settings: dict[str, Any], origin: str, prefix: str) -> None:
    """Refuse unknown keys; where a table is one of several kinds and does not say which, write the default's into it.

    Raises ConfigError that names `origin`, the key behind `prefix`, and the nearest key that is known.
    """
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    for key, value in settings.items():
        if key == struct.__struct_config__.tag_field:
            continue
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(fields)}."
            raise ConfigError(f"{origin}: unknown key {prefix}{key}; {hint}")
        for name, table in _tables(fields[key], value, f"{prefix}{key}."):
            if (inner := _struct_of(fields[key], table, origin, prefix)) is not None:
                check_keys(inner, table, origin, name)


def _tables(field: msgspec.structs.FieldInfo, value: object, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of a value, one, a list of them or some by name, and the prefix of their keys."""
    if get_origin(field.type) is dict and isinstance(value, dict):
        named = [(f"{prefix}{name}.", table) for name, table in value.items()]
    else:
        named = [(prefix, table) for table in (value if isinstance(value, list) else [value])]
    yield from ((name, table) for name, table in named if isinstance(table, dict))


def _struct_of(
    field: msgspec.structs.FieldInfo, table: dict[str, Any], origin: str, prefix: str
) -> type[msgspec.Struct] | None:
    structs = list(_structs_in(field.type))
    tag_field = structs[0].__struct_config__.tag_field if structs else None
    if tag_field is None:
        return structs[0] if structs else None
    by_kind = {struct.__struct_config__.tag: struct for struct in structs}
    known = ", ".join(sorted(map(str, by_kind)))
    if tag_field not in table:
        if not isinstance(field.default, msgspec.Struct):
            raise ConfigError(f"{origin}: a table of {prefix}{field.name} has no {tag_field}; choose one of {known}.")
        table[tag_field] = type(field.default).__struct_config__.tag
    kind = table[tag_field]
    if kind not in by_kind:
        raise ConfigError(f"{origin}: {prefix}{field.name}.{tag_field} {kind!r} is not known; choose one of {known}.")
    return by_kind[kind]


def _structs_in(annotation: Any) -> Iterator[type[msgspec.Struct]]:  # noqa: ANN401 - any type form
    if isinstance(annotation, type) and get_origin(annotation) is None:
        if issubclass(annotation, msgspec.Struct):
            yield annotation
        return
    for argument in get_args(annotation):
        yield from _structs_in(argument)
