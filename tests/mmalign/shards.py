"""Shards of tiny images for tests: tar files of one colour a sample, each with its name as the caption."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(number: int) -> bytes:
    """Return a picture of its own for each number."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(np.kron(pixels, np.ones((10, 10, 1), np.uint8))).save(file, "PNG")
    return file.getvalue()


def write_shard(path: Path, numbers: range, damaged: frozenset[int] = frozenset(), ending: str = ".txt") -> None:
    """Write a shard of samples by their numbers; of those damaged the image is cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            image = png(number)[: 60 if number in damaged else None]
            add_sample(tar, f"{number:04d}", {".png": image, ending: f"a picture {number}".encode()})


def add_sample(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes]) -> None:
    """Add one sample, its members by their suffixes."""
    for suffix, content in members.items():
        info = tarfile.TarInfo(f"{key}{suffix}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def write_drawings(pairs_csv: Path, folder: Path, num_shards: int) -> str:
    """Write the drawings of a table as shards, and return the pattern that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    with pairs_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for row in rows[shard::num_shards]:
                image = (pairs_csv.parent / row["image"]).read_bytes()
                add_sample(tar, Path(row["image"]).stem, {".png": image, ".txt": row["caption"].encode()})
    return str(folder / "*.tar")


def write_shards(folder: Path, num_shards: int, num_pairs: int, damaged: frozenset[int] = frozenset()) -> str:
    """Write shards of as many pairs each, numbered through, and return the pattern that names them."""
    for shard in range(num_shards):
        write_shard(folder / f"{shard:03d}.tar", range(shard * num_pairs, (shard + 1) * num_pairs), damaged)
    return str(folder / "*.tar")
