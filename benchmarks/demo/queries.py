"""What the demo searches for, and which concepts are right answers.

Right answers are written down by label, from what the words say; only concepts that training never saw can be
answers, and every right one is listed. The words are not the labels, so finding them takes more than matching names.
"""

import msgspec


class TextQuery(msgspec.Struct, frozen=True):
    """Words to search for, and the CLDR labels of every concept that answers them."""

    text: str
    labels: tuple[str, ...]


TEXT_QUERIES = (
    TextQuery("tropical island with a palm", ("palm tree", "desert island", "beach with umbrella")),
    TextQuery("a sea animal with tentacles", ("octopus", "jellyfish")),
    TextQuery("something sweet for dessert", ("cookie", "ice cream", "lollipop", "dango", "pie")),
    TextQuery(
        "clock face",
        ("one o’clock", "two o’clock", "ten o’clock", "eleven o’clock", "two-thirty", "four-thirty", "six-thirty"),
    ),
    TextQuery(
        "in love",
        ("growing heart", "white heart", "grey heart", "heart on fire", "mending heart", "smiling cat with heart-eyes"),
    ),
    TextQuery("a fresh vegetable", ("eggplant", "cucumber", "carrot", "ear of corn")),
    TextQuery("birds on a farm", ("rooster", "chicken", "hatching chick")),
    TextQuery("a mother and her child", ("woman feeding baby",)),
    TextQuery("a car on the road", ("oncoming automobile", "sport utility vehicle", "pickup truck")),
    TextQuery("weeping with sorrow", ("loudly crying face", "smiling face with tear")),
    TextQuery("the moon at night", ("waxing gibbous moon", "last quarter moon", "crescent moon")),
    TextQuery("winter sports", ("skis", "ice skate")),
)


class ImageQuery(msgspec.Struct, frozen=True):
    """A drawing to search with, by style and label; right answers are its label, and the same thing in other styles."""

    style: str
    label: str


# One of each style, the held-out one last.
IMAGE_QUERIES = (
    ImageQuery("noto", "grapes"),
    ImageQuery("twemoji", "crescent moon"),
    ImageQuery("emojione", "mobile phone"),
    ImageQuery("noto-v1", "ferris wheel"),
    ImageQuery("fxemoji", "hatching chick"),
    ImageQuery("streamline-emojis", "jack-o-lantern"),
    ImageQuery("openmoji", "loudly crying face"),
)

# How many results a query shows.
TOP_K = 6
