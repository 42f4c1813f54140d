"""Build packs of further drawings and of interface icons: fetch the sets, draw, write one Parquet file a set.

python -m benchmarks.icons.build --out FOLDER [SET ...] [--cache DIR] [--sample FILE]

Five sets and a sample of 2,000 icons are committed: all are made in some minutes from pinned packages.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from typer import Argument, Option

from benchmarks.emoji.captions import EMOJIBASE, read_concepts
from benchmarks.emoji.packs import encode_webp, encoder_version, render, source_metadata, write_pack
from benchmarks.harness.command import run
from benchmarks.harness.packages import fetch
from benchmarks.icons.reading import Named, emoji_names, read_set, read_tags
from benchmarks.icons.sets import SETS, IconSet

NUM_SAMPLE = 2000


def build(out: Path, cache: Path, names: Sequence[str]) -> None:
    """Write the packs of the sets named, or of all."""
    emoji = emoji_names(read_concepts(fetch(EMOJIBASE, cache)))
    for icon_set in SETS:
        if names and icon_set.name not in names:
            continue
        tags = read_tags(fetch(icon_set.tags.package, cache), icon_set.tags.file) if icon_set.tags else {}
        drawn = read_set(icon_set, fetch(icon_set.package, cache), emoji, tags)
        path = out / icon_set.kind / f"{icon_set.name}.parquet"
        write_pack(table(icon_set, drawn), path)
        shared = sum(each.concept != each.label for each in drawn)
        print(f"{icon_set.name:28} {len(drawn):6} ({shared:5} emoji) {path.stat().st_size:9} bytes", flush=True)


def write_sample(folder: Path, path: Path) -> None:
    """Write one pack of `NUM_SAMPLE` icons: of each set that `folder` has, as large a share, spread over its names."""
    paths = [folder / each.kind / f"{each.name}.parquet" for each in SETS if each.kind == "icons"]
    icons = [pq.read_table(path) for path in paths if path.is_file()]
    every = sum(len(each) for each in icons) / NUM_SAMPLE
    parts = [each.take([int(i * every) for i in range(int(len(each) / every))]) for each in icons]
    sample = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    write_pack(sample.replace_schema_metadata({"source": "see NOTICE, by style", "encoder": encoder_version()}), path)


def table(icon_set: IconSet, drawn: Sequence[Named]) -> pa.Table:
    """Return a set's pack: a row a concept, with licence and source in the metadata."""
    columns = {
        **{name: [getattr(each, name) for each in drawn] for name in ("concept", "label", "keywords", "group")},
        "style": [icon_set.name] * len(drawn),
        "image": [encode_webp(render(each.svg)) for each in drawn],
    }
    return pa.table(columns).replace_schema_metadata(source_metadata(icon_set))


def main(
    out: Annotated[Path, Option(help="folder that gets drawings/ and icons/")],
    sets: Annotated[list[str] | None, Argument(help="names of sets; default all")] = None,
    cache: Annotated[Path | None, Option(help="folder that keeps the fetched packages between runs")] = None,
    sample: Annotated[Path | None, Option(help="the file that gets a sample of the icons")] = None,
) -> None:
    """Build what is asked for. Raises SystemExit for a set that is not known."""
    if unknown := set(sets or ()) - {each.name for each in SETS}:
        raise SystemExit(f"seen {', '.join(sorted(unknown))}, expected some of {', '.join(each.name for each in SETS)}")
    with tempfile.TemporaryDirectory() as fallback:
        build(out, cache or Path(fallback), sets or ())
    if sample:
        write_sample(out, sample)


if __name__ == "__main__":
    run(main)
