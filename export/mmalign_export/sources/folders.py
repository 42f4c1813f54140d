"""A folder that a library saved a model in, or that the hub is asked for: where it is, and what of it was read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import first_sentence, refuse_bundle
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import SourceFile

# Weights and what says how to read them; no code, and no weights of other frameworks.
_WANTED = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.md", "*.npy")
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)


def model_folder(location: str, wanted: Sequence[str] = _WANTED) -> Path:
    """Return the folder itself, or that of a name on the hub, from the cache or fetched. Raises SourceError."""
    path = Path(location)
    refuse_bundle(path)
    if path.is_dir():
        return path
    if path.exists() or location.count("/") != 1:
        raise SourceError(f"{location} is not a folder here, nor a name on the hub (OWNER/NAME). Check the path.")
    try:
        return Path(snapshot_download(location, allow_patterns=list(wanted)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SourceError(
            f"{location} is not a folder here, and the hub did not give it: {first_sentence(error)}. Check the "
            "name, or copy the model's folder here."
        ) from error


def source_file(path: Path) -> SourceFile:
    """Return hash and size of a file that was read."""
    return SourceFile(sha256=sha256_of_file(path), size_bytes=path.stat().st_size)


def source_files(folder: Path, weights: Iterable[Path]) -> dict[str, SourceFile]:
    """Return hash and size of the weights and of the small files beside them, by their path from the folder."""
    beside = (path for pattern in ("*.json", "*.txt", "*.model") for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): source_file(path) for path in sorted({*weights, *beside})}


def licence_of(folder: Path) -> str:
    """Return the licence that the head of the folder's model card names, or "unknown"."""
    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    head = card.read_text(encoding="utf-8", errors="replace").partition("---")[2].partition("\n---")[0]
    found = _LICENCE.search(head)
    return found[1] if found else "unknown"
