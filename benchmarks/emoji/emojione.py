"""EmojiOne's drawings, found by name: Iconify's package carries no code points.

Iconify named the icons after the CLDR names of its day, some of which CLDR has changed since. Names are
matched only for emoji that existed when EmojiOne 2 was drawn: a later "cricket" is an insect, the icon a bat.
"""

import re
import unicodedata
from collections.abc import Sequence

import msgspec

from benchmarks.emoji.captions import Concept
from benchmarks.harness.packages import Archive

# EmojiOne 2.2.7, the release that was drawn last, covers Unicode 9 and with it Emoji 3.0.
LAST_EMOJI_VERSION = 3.0

# Concepts whose CLDR name has changed, or does not survive being made a slug.
ICON_NAMES = {
    "1f170": "a-button",
    "1f171": "b-button",
    "1f17e": "o-button",
    "1f18e": "ab-button",
    "1f199": "up-text-button",
    "1f3af": "direct-hit",
    "1f46b": "man-and-woman-holding-hands",
    "1f46c": "two-men-holding-hands",
    "1f46d": "two-women-holding-hands",
    "1f470": "bride-with-veil",
    "1f471": "blond-haired-person",
    "1f472": "man-with-chinese-cap",
    "1f52b": "pistol",
    "1f574": "man-in-suit-levitating",
    "1f621": "pouting-face",
    "1f635": "dizzy-face",
    "1f638": "grinning-cat-face-with-smiling-eyes",
    "1f639": "cat-face-with-tears-of-joy",
    "1f63a": "grinning-cat-face",
    "1f63b": "smiling-cat-face-with-heart-eyes",
    "1f63c": "cat-face-with-wry-smile",
    "1f63d": "kissing-cat-face",
    "1f63e": "pouting-cat-face",
    "1f63f": "crying-cat-face",
    "1f640": "weary-cat-face",
    "1f916": "robot-face",
    "1f917": "hugging-face",
    "1f935": "man-in-tuxedo",
    "23-20e3": "keycap-pound",
    "2753": "question-mark",
    "2757": "exclamation-mark",
    "2763": "heavy-heart-exclamation",
    "2a-20e3": "keycap-asterisk",
}


class Icon(msgspec.Struct, frozen=True):
    """An icon of Iconify; a size of its own wins over that of its set."""

    body: str
    width: int | None = None
    height: int | None = None
    hidden: bool = False


class _Alias(msgspec.Struct, frozen=True):
    parent: str


class IconFile(msgspec.Struct, frozen=True):
    """A package's icons.json."""

    icons: dict[str, Icon]
    aliases: dict[str, _Alias] = {}
    width: int = 16
    height: int = 16

    def svg(self, icon: Icon) -> bytes:
        """Return an icon as a document."""
        box = f"0 0 {icon.width or self.width} {icon.height or self.height}"
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon.body}</svg>'.encode()


def emojione_svgs(archive: Archive, concepts: Sequence[Concept]) -> dict[str, bytes]:
    """Return the SVG document of every concept that EmojiOne drew, by concept key."""
    icon_set = msgspec.json.decode(archive.read("package/icons.json"), type=IconFile)
    svgs = {}
    for concept in concepts:
        if concept.emoji_version > LAST_EMOJI_VERSION:
            continue
        name = ICON_NAMES.get(concept.key, icon_slug(concept.label))
        if name in icon_set.aliases:
            name = icon_set.aliases[name].parent
        if name in icon_set.icons:
            svgs[concept.key] = icon_set.svg(icon_set.icons[name])
    return svgs


def icon_slug(label: str) -> str:
    """Spell a CLDR name as Iconify does: ASCII, lower case, words joined by dashes.

    Apostrophes and full stops vanish (`twelve o'clock` -> `twelve-oclock`), all other signs part words.
    """
    ascii_label = unicodedata.normalize("NFKD", label.replace("&", "and")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['.]", "", ascii_label.lower())).strip("-")
