"""From a set's package to named drawings: names without variants, captions, and concepts shared with the emoji."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from benchmarks.emoji.captions import Concept
from benchmarks.emoji.emojione import ICON_NAMES, Icon, IconFile, icon_slug
from benchmarks.harness.packages import Archive
from benchmarks.icons.sets import IconSet

# Words that say nothing of what is shown.
_EMPTY_WORDS = frozenset({"brand", "logo", "streamline", "alt", "variant"})


class Named(msgspec.Struct, frozen=True):
    """A drawing and its captions. `concept` is the emoji's key where an emoji has its name, else its own name."""

    concept: str
    label: str
    keywords: Sequence[str]
    group: str
    svg: bytes


class _Tagged(msgspec.Struct, frozen=True):
    name: str
    tags: list[str | int | None] = []
    aliases: list[str] = []


def read_set(
    icon_set: IconSet, archive: Archive, emoji: Mapping[str, Concept], tags: Mapping[str, Sequence[str]]
) -> list[Named]:
    """Return what a set draws, one drawing a name, sorted by name; `emoji` as `emoji_names` gives it."""
    found = msgspec.json.decode(archive.read("package/icons.json"), type=IconFile)
    named = []
    for name, icon in sorted(_one_variant(icon_set, found.icons)):
        concept = emoji_of(name, emoji)
        label = concept.label if concept else spoken(name)
        if not label or (icon_set.is_emoji and concept is None):
            continue
        keywords = concept.keywords if concept else [word for word in tags.get(name, ()) if word != label] or [label]
        key, group = (concept.key, concept.group) if concept else (label, icon_set.name)
        named.append(Named(key, label, keywords, group, found.svg(icon)))
    return list({each.concept: each for each in reversed(named)}.values())[::-1]


def emoji_names(concepts: Sequence[Concept]) -> dict[str, Concept]:
    """Return emoji by every name that a set may give them: today's, that of Unicode, and older ones."""
    names: dict[str, Concept] = {}
    for concept in concepts:
        spellings = [icon_slug(concept.label), ICON_NAMES.get(concept.key, "")]
        if len(concept.emoji.rstrip("\ufe0f")) == 1:
            spellings.append(unicodedata.name(concept.emoji[0], ""))
        for spelling in spellings:
            names.setdefault(squeezed(spelling), concept)
            names.setdefault(_in_order(spelling), concept)
    names.pop("", None)
    return names


def emoji_of(name: str, emoji: Mapping[str, Concept]) -> Concept | None:
    """Return the emoji of a name, also of "boy-1" for "boy" and "arrow-down" for "down arrow".

    A drawing that is missed here is a concept of its own, and may be trained on while the emoji is in the test split.
    """
    plain = spoken(name)
    return emoji.get(squeezed(name)) or emoji.get(squeezed(plain)) or emoji.get(_in_order(plain))


def read_tags(archive: Archive, member: str) -> dict[str, list[str]]:
    """Return search words by name, of the three shapes that sets write them in."""
    contents = archive.read(member)
    try:
        return msgspec.json.decode(contents, type=dict[str, list[str]])  # lucide
    except msgspec.ValidationError:
        pass
    listed = msgspec.json.decode(contents, type=list[_Tagged] | dict[str, _Tagged])
    rows = listed if isinstance(listed, list) else listed.values()
    return {
        row.name: [spoken(alias) for alias in row.aliases] + [str(tag).lower() for tag in row.tags if tag is not None]
        for row in rows
    }


def squeezed(name: str) -> str:
    """Spell a name without what vendors spell differently: cases, spaces and dashes."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _in_order(name: str) -> str:
    """Spell a name by its words in the order of the alphabet."""
    return " ".join(sorted(re.findall(r"[a-z0-9]+", name.lower())))


def spoken(name: str) -> str:
    """Return a name as words: no numbers that count variants, no words that say nothing. Empty if none is left."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and word not in _EMPTY_WORDS]
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    text = " ".join(words)
    return text if re.search(r"[a-z]{2}", text) else ""


def _one_variant(icon_set: IconSet, icons: Mapping[str, Icon]) -> Iterator[tuple[str, Icon]]:
    """Yield each icon once, by its name without variant: the plain one, else the variant that stands first."""
    ranked: dict[str, tuple[int, Icon]] = {}
    order = ("", *icon_set.variants)
    for name, icon in icons.items():
        variant = max((each for each in icon_set.variants if name.endswith(f"-{each}")), key=len, default="")
        base, rank = name.removesuffix(f"-{variant}") if variant else name, order.index(variant)
        if not icon.hidden and (base not in ranked or rank < ranked[base][0]):
            ranked[base] = (rank, icon)
    yield from ((base, icon) for base, (_, icon) in ranked.items())
