"""Which kind of source a place is, told from its name or from the files that lie there. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from mmalign_export.errors import ExportError
from mmalign_export.sources import SOURCES
from mmalign_export.sources.refusals import refuse_bundle

# What a place may begin with. open_clip's own schemes are its own to read.
_PREFIXES = {source.prefix: kind for kind, source in SOURCES.items()}
_OPEN_CLIP_SCHEMES = ("local-dir:", "hf-hub:")
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json")


def detect_source(place: str) -> tuple[str, str]:
    """Return (kind, location) of a place: "open_clip:ViT-B-32", a folder, a file of weights, or a name on the hub.

    Raises ExportError, saying what was looked for, when the place tells nothing.
    """
    if place.startswith(_OPEN_CLIP_SCHEMES):
        return "open_clip", place
    prefix, colon, rest = place.partition(":")
    if colon and prefix in _PREFIXES:
        return _PREFIXES[prefix], rest
    path = Path(place)
    refuse_bundle(path)
    if path.is_dir():
        return _kind_of_folder(path), place
    if path.is_file():
        return _kind_of_file(path), place
    if place.count("/") == 1 and not place.startswith((".", "/", "~")) and " " not in place:
        return "transformers", place  # a name on the hub
    raise ExportError(
        f"{place} is neither a file nor a folder here, nor a name on the hub (OWNER/NAME). Check the path, or put the "
        f"kind before a name: {', '.join(f'{name}:' for name in sorted(_PREFIXES))}."
    )


def _kind_of_folder(folder: Path) -> str:
    for kind, source in SOURCES.items():
        if source.mark and (folder / source.mark).is_file():
            return kind
    has_weights = any(found for pattern in _WEIGHTS for found in folder.glob(pattern))
    if not has_weights and next(folder.rglob("*.onnx"), None) is not None:
        return "onnx_pair"
    if (folder / "config.json").is_file():
        return "transformers"
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise ExportError(
        f"{folder} holds {names}; expected a config.json (transformers), modules.json (sentence-transformers), "
        "open_clip_config.json (open_clip), .onnx files, or a run's config.toml. Say which it is with --kind."
    )


def _kind_of_file(path: Path) -> str:
    for kind, source in SOURCES.items():
        if path.suffix in source.suffixes:
            return kind
    suffixes = [suffix for source in SOURCES.values() for suffix in source.suffixes]
    raise ExportError(
        f"{path} is a file of kind {path.suffix or 'unknown'!r}; expected weights ({', '.join(suffixes)}), or a "
        "folder. Say which source it is with --kind."
    )
