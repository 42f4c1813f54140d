"""What the emoji are called: names, keywords and groups, in English and Chinese, from emojibase.

Decides what counts as a concept. Flags are left out because their captions are place names, skin tones and
bare hair because they are parts of emoji, and letters that only build flags because they have no group.
"""

from collections.abc import Sequence

import msgspec

from benchmarks.harness.packages import Archive, Package

EMOJIBASE = Package(
    "npm", "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)
# Variation selector 16 (emoji presentation) and the zero width joiner: Unicode Technical Standard 51.
UNWRITTEN = frozenset({"fe0f", "200d"})
GROUPS_LEFT_OUT = frozenset({"components", "flags"})


class Concept(msgspec.Struct, frozen=True):
    """One emoji and its captions; `emoji_version` is the Emoji release that introduced it."""

    key: str
    emoji: str
    label: str
    keywords: Sequence[str]
    label_zh: str
    keywords_zh: Sequence[str]
    group: str
    subgroup: str
    emoji_version: float


class _Emoji(msgspec.Struct, frozen=True):
    hexcode: str
    emoji: str
    label: str
    version: float
    tags: list[str] = []
    group: int | None = None
    subgroup: int | None = None


class _Message(msgspec.Struct, frozen=True):
    order: int
    message: str


class _Messages(msgspec.Struct, frozen=True):
    groups: list[_Message]
    subgroups: list[_Message]


def concept_key(hexcode: str) -> str:
    """Normalise a dash-separated hex code: lower case, no fe0f or 200d, no leading zeros.

    Vendors spell one emoji in several ways (`2764-FE0F`, `2764`; `0023-fe0f-20e3`, `23-20e3`). The key drops what
    only asks for a presentation or glues a sequence together, so that drawings and captions of all of them meet.

    Raises ValueError when a part is not a hexadecimal number, or when no part is left.
    """
    try:
        parts = [f"{int(part, 16):x}" for part in hexcode.split("-")]
    except ValueError:
        raise ValueError(
            f"{hexcode!r} is not a hex code; expected code points joined by dashes, as in '1f468-200d-1f466'"
        ) from None
    kept = [part for part in parts if part not in UNWRITTEN]
    if not kept:
        raise ValueError(f"{hexcode!r} holds nothing but joiners and variation selectors; expected an emoji")
    return "-".join(kept)


def read_concepts(emojibase: Archive) -> list[Concept]:
    """Return every concept that is captioned in both languages, sorted by key."""
    english = _read_emoji(emojibase, "en")
    chinese = _read_emoji(emojibase, "zh")
    messages = msgspec.json.decode(emojibase.read("package/en/messages.json"), type=_Messages)
    groups = {group.order: group.message for group in messages.groups}
    subgroups = {subgroup.order: subgroup.message for subgroup in messages.subgroups}

    concepts = []
    for key in sorted(english.keys() & chinese.keys()):
        en, zh = english[key], chinese[key]
        if en.group is None or en.subgroup is None or groups[en.group] in GROUPS_LEFT_OUT:
            continue
        if not (en.label and en.tags and zh.label and zh.tags):
            continue
        captions = (en.label, en.tags, zh.label, zh.tags)
        concepts.append(Concept(key, en.emoji, *captions, groups[en.group], subgroups[en.subgroup], en.version))
    return concepts


def _read_emoji(emojibase: Archive, language: str) -> dict[str, _Emoji]:
    rows = msgspec.json.decode(emojibase.read(f"package/{language}/data.json"), type=list[_Emoji])
    by_key = {concept_key(row.hexcode): row for row in rows}
    assert len(by_key) == len(rows), f"two emoji of emojibase's {language} list share a concept key"
    return by_key
