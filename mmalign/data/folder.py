"""Folders of images, nested or not, each image with a .txt of the same name that has one caption a line."""

import os
from collections.abc import Iterator
from pathlib import Path

from mmalign.data.cells import Cells
from mmalign.data.pair import Origin, RejectedRow
from mmalign.data.source import DataSource

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
CAPTION_SUFFIX = ".txt"


def read_folder(path: Path, source: DataSource) -> Iterator[Cells | RejectedRow]:
    """Yield one row an image below `path`, in sorted order; hidden files and folders are left out.

    Links to folders are not followed, since they may lead in a circle. Raises `OSError`.
    """
    for folder, subfolders, names in os.walk(path, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        visible = sorted(name for name in names if not name.startswith("."))
        yield from _rows(Path(folder), visible)


def _raise(error: OSError) -> None:
    raise error  # os.walk alone would leave out a folder that it cannot list


def _rows(folder: Path, names: list[str]) -> Iterator[Cells | RejectedRow]:
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    texts = {Path(name).stem: name for name in names if Path(name).suffix.lower() == CAPTION_SUFFIX}
    for name in images:
        yield _row(folder / name, texts.get(Path(name).stem))
    for stem in sorted(texts.keys() - {Path(name).stem for name in images}):
        yield RejectedRow(Origin(folder / texts[stem]), "no image of this name; expected one beside the text")


def _row(image_path: Path, text_name: str | None) -> Cells | RejectedRow:
    origin = Origin(image_path)
    if text_name is None:
        return RejectedRow(origin, f"no captions; expected {image_path.stem}{CAPTION_SUFFIX} beside it")
    captions = caption_lines(origin, image_path.with_name(text_name).read_bytes())
    return captions if isinstance(captions, RejectedRow) else Cells(origin, image_path.name, captions)


def caption_lines(origin: Origin, text: bytes) -> tuple[str, ...] | RejectedRow:
    """Split the content of a caption file into its lines, of which there is always one."""
    try:
        return tuple(text.decode("utf-8-sig").split("\n"))
    except UnicodeDecodeError as error:
        return RejectedRow(origin, f"captions are not UTF-8 ({error}); expected UTF-8 text")
