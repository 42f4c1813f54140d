"""What a .json file that is not a COCO captions file is instead, and the command that makes JSON Lines of it."""

import re
from pathlib import Path

import msgspec


def advise_json(path: Path, content: bytes) -> str:
    """Return what to do with a JSON file of another layout; `content` is UTF-8."""
    if re.match(rb"\s*\{[^\n]*\}\s*\n\s*\{", content):
        return 'it holds one object a line: set format = "jsonl"'
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "set format if it is something else"
    if isinstance(value, list):
        return _advise_rows(path, value)
    images = value.get("images") if isinstance(value, dict) else None
    first = images[0] if isinstance(images, list) and images else None
    if isinstance(first, dict) and "sentences" in first:
        rows = '.images[] | {image: ([.filepath, .filename] | map(values) | join("/")), caption: [.sentences[].raw]}'
        return (
            "it is a Karpathy split, such as dataset_coco.json, with sentences inside of images: "
            f"{_convert(path, rows)}"
        )
    if isinstance(value, dict) and value and all(isinstance(item, str | list) for item in value.values()):
        rows = "to_entries[] | {image: .key, caption: .value}"
        return f"if its keys are images and its values captions, {_convert(path, rows)}"
    return "set format if it is something else"


def _advise_rows(path: Path, rows: list[object]) -> str:
    first = rows[0] if rows else None
    if not isinstance(first, dict):
        return "it is an array; expected objects in it, one a row"
    if "conversations" in first:
        picked = '.[] | select(.image) | {image, caption: [.conversations[] | select(.from == "gpt") | .value]}'
        return f"it is an array of conversations, as LLaVA has them: {_convert(path, picked)}"
    return f"it is an array with one object a row: {_convert(path, '.[]')}"


def _convert(path: Path, query: str) -> str:
    return f"write it as JSON Lines with jq -c '{query}' {path.name} > rows.jsonl"
