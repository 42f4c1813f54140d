"""The page of the training configuration: every key, from the structs that read it and their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import tomli_w

from docs.gen.markdown import table
from mmalign.config import Config

_INTRODUCTION = """# Configuration

`mmalign train` reads one TOML file. Only `data.sources` is required; every other key has a default. An unknown key
is an error that names the nearest known one.

```toml
[[data.sources]]
path = "pairs.csv"

[train]
epochs = 5
```

`--set` overrides a key for one run: `mmalign train config.toml --set train.epochs=5 --set optim.weight_decay=0.1`.
A value is read as TOML, and as plain text where it is not TOML."""

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", flags=re.MULTILINE)


class Table(msgspec.Struct, frozen=True):
    """One TOML table: its name, whether it may be repeated, and the struct that reads it."""

    name: str
    is_list: bool
    struct: type[msgspec.Struct]


def tables(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Table]:
    """Yield every table of the configuration, in the order of the fields."""
    for field in msgspec.structs.fields(struct):
        inner, is_list = _struct_of(field.type)
        if inner is not None:
            yield Table(f"{prefix}{field.name}", is_list, inner)
            yield from tables(inner, f"{prefix}{field.name}.")


def keys(of: Table) -> list[msgspec.structs.FieldInfo]:
    """Return the fields of a table that are values, not tables."""
    return [field for field in msgspec.structs.fields(of.struct) if _struct_of(field.type)[0] is None]


def config_page() -> str:
    """Return the whole page. Raises ValueError for a key without a meaning, or a meaning without a key."""
    sections = [_section(each) for each in tables() if keys(each)]
    return "\n\n".join([_INTRODUCTION, *sections]) + "\n"


def meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstring's `Attributes` says of each field. Raises ValueError unless it names exactly these."""
    _, _, attributes = inspect.getdoc(struct).partition("Attributes:\n")  # type: ignore[union-attr]
    found = {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(attributes)}
    fields = [field.name for field in msgspec.structs.fields(struct)]
    if list(found) != fields:
        raise ValueError(f"{struct.__name__}: the docstring's Attributes are {list(found)}, the fields {fields}")
    return found


def _section(of: Table) -> str:
    name = f"[[{of.name}]]" if of.is_list else f"[{of.name}]"
    head = f"## `{name}` {{ #{of.name} }}"
    twin = next(each for each in tables() if each.struct is of.struct)
    if twin != of:
        return f"{head}\n\nThe keys of [`[[{twin.name}]]`](#{twin.name})."
    summary = inspect.getdoc(of.struct).partition("Attributes:\n")[0].strip()  # type: ignore[union-attr]
    said = meanings(of.struct)
    rows = [
        [
            f'<a id="{of.name}.{field.name}"></a>`{field.name}`',
            type_words(field.type),
            _default(field),
            said[field.name],
        ]
        for field in keys(of)
    ]
    return f"{head}\n\n{summary}\n\n{table(('key', 'type', 'default', 'meaning'), rows)}".replace("&lt;", "<")


def type_words(annotation: Any) -> str:  # noqa: ANN401 - any type form
    """Return a field's type in words, with its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return ", ".join([type_words(arguments[0]), *_bounds(arguments[1])])
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(type_words(each) for each in arguments if each is not type(None))
    if origin is tuple:
        inner = type_words(arguments[0])
        return f"list of {inner}" if arguments[1:] == (Ellipsis,) else f"list of {len(arguments)}, each {inner}"
    return {"int": "integer", "float": "number", "str": "text", "bool": "true or false"}[annotation.__name__]


def _bounds(meta: msgspec.Meta) -> list[str]:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [f"{word} {getattr(meta, name):,}" for name, word in words.items() if getattr(meta, name) is not None]
    if meta.min_length is not None:
        found.append(f"{'' if meta.min_length == meta.max_length else 'at least '}{meta.min_length} of them")
    return found


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = msgspec.to_builtins(field.default)
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).strip()[4:]


def _struct_of(annotation: Any) -> tuple[type[msgspec.Struct] | None, bool]:  # noqa: ANN401 - any type form
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return (annotation, False) if issubclass(annotation, msgspec.Struct) else (None, False)
    for argument in get_args(annotation):
        if (found := _struct_of(argument)[0]) is not None:
            return found, True
    return None, False
