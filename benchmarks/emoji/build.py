"""Build the emoji packs: fetch the sources, draw, write one Parquet file a style.

python -m benchmarks.emoji.build --out benchmarks/emoji
"""

import tempfile
from pathlib import Path
from typing import Annotated

from typer import Option

from benchmarks.emoji.captions import EMOJIBASE, read_concepts
from benchmarks.emoji.packs import build_table, write_pack
from benchmarks.emoji.styles import STYLES
from benchmarks.harness.command import run
from benchmarks.harness.packages import fetch


def build(
    out: Annotated[Path, Option(help="folder that gets packs/ and packs-cc-by-sa/")],
    cache: Annotated[Path | None, Option(help="folder that keeps the fetched packages between runs")] = None,
) -> None:
    """Write every pack below `out` and report what is in them."""
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return build(out, Path(folder))
    concepts = read_concepts(fetch(EMOJIBASE, cache))
    print(f"{len(concepts)} concepts captioned in both languages, from {EMOJIBASE}")
    drawn: list[set[str]] = []
    for style in STYLES:
        drawings = style.read_drawings(fetch(style.package, cache), concepts)
        path = out / style.pack_path
        write_pack(build_table(style, concepts, drawings), path)
        drawn.append(set(drawings))
        print(f"{style.name:10} {len(drawings):5} concepts {path.stat().st_size:9} bytes  {style.package}")
    print(f"{len(set.intersection(*drawn))} concepts common to all {len(STYLES)} styles")
    return None


if __name__ == "__main__":
    run(build)
