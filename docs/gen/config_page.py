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
    """One TOML table: its name, whether it may be repeated, and the struct that reads it.

    Where `kind` in the table chooses between structs, there is one Table for each.
    """

    name: str
    is_list: bool
    struct: type[msgspec.Struct]

    @property
    def kind(self) -> str:
        """The `kind` that chooses this struct, or "" where there is no choice."""
        tag = self.struct.__struct_config__.tag
        return tag if isinstance(tag, str) else ""

    @property
    def anchor(self) -> str:
        """The id of its section."""
        return f"{self.name}.{self.kind}" if self.kind else self.name


def tables(struct: type[msgspec.Struct] = Config, prefix: str = "") -> Iterator[Table]:
    """Yield every table of the configuration, in the order of the fields."""
    for field in msgspec.structs.fields(struct):
        inner, repeated = _structs_of(field.type)
        for each in inner:
            name = f"{prefix}{field.name}{'.NAME' if repeated is dict else ''}"
            yield Table(name, repeated is tuple, each)
            yield from tables(each, f"{name}.")


def keys(of: Table) -> list[msgspec.structs.FieldInfo]:
    """Return the fields of a table that are values, not tables."""
    return [field for field in msgspec.structs.fields(of.struct) if not _structs_of(field.type)[0]]


def config_page() -> str:
    """Return the whole page. Raises ValueError for a key without a meaning, or a meaning without a key."""
    sections = [_section(each) for each in tables() if keys(each)]
    return "\n\n".join([_INTRODUCTION, *sections]) + "\n"


def meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return what the docstring's `Attributes` says of each field. Raises ValueError unless it names exactly these."""
    found = {}
    for each in reversed([base for base in struct.__mro__ if base.__doc__ and issubclass(base, msgspec.Struct)]):
        _, _, attributes = inspect.cleandoc(str(each.__doc__)).partition("Attributes:\n")
        found |= {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(attributes)}
    fields = [field.name for field in msgspec.structs.fields(struct)]
    if list(found) != fields:
        raise ValueError(f"{struct.__name__}: the docstring's Attributes are {list(found)}, the fields {fields}")
    return found


def _section(of: Table) -> str:
    name = f"[[{of.name}]]" if of.is_list else f"[{of.name}]"
    chosen = f', `kind = "{of.kind}"`' if of.kind else ""
    head = f"## `{name}`{chosen} {{ #{of.anchor} }}"
    twin = next(each for each in tables() if each.struct is of.struct)
    if twin != of:
        return f"{head}\n\nThe keys of [`{twin.name}`](#{twin.anchor})."
    summary = inspect.getdoc(of.struct).partition("Attributes:\n")[0].strip()  # type: ignore[union-attr]
    said = meanings(of.struct)
    rows = [
        [
            f'<a id="{of.anchor}.{field.name}"></a>`{field.name}`',
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
    if origin is dict:
        return f"table of {type_words(arguments[1])}"
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
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    value = msgspec.to_builtins(value)
    return "" if value is None else f"`{_toml(value)}`"


def _toml(value: object) -> str:
    if value == {}:
        return "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return tomli_w.dumps({"x": value}).strip()[4:]


def _structs_of(annotation: Any) -> tuple[list[type[msgspec.Struct]], type | None]:  # noqa: ANN401 - any type form
    """Return the structs that may read a field, and what holds them: a tuple, a dict, or None."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return ([annotation] if issubclass(annotation, msgspec.Struct) else []), None
    found = [each for argument in get_args(annotation) for each in _structs_of(argument)[0]]
    origin = get_origin(annotation)
    return found, origin if origin in (tuple, dict) else None
