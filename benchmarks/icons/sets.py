"""The sets of drawings and icons: their packages, licences, and how their names are read.

Drawings have colours of their own and join the emoji in training; icons are one colour, for interfaces.
"""

from dataclasses import dataclass
from typing import Literal

from benchmarks.emoji.sources import Package

Kind = Literal["drawings", "icons"]

APACHE = ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
CC_BY = ("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/")
CC_BY_3 = ("CC-BY-3.0", "https://creativecommons.org/licenses/by/3.0/")
ISC = ("ISC", "https://opensource.org/license/isc-license-txt")
MIT = ("MIT", "https://opensource.org/license/mit")


@dataclass(frozen=True)
class IconSet:
    """One set, as a package of Iconify has it.

    `variants` are endings of names that say how an icon is drawn and not what it shows; of several variants one is
    taken. `is_emoji` sets hold emoji alone: what is not matched to one is left out. `tags` is a file of search words
    in another package, of the same names.
    """

    name: str
    package: Package
    kind: Kind
    licence: tuple[str, str]  # SPDX identifier, address
    attribution: str
    variants: tuple[str, ...] = ()
    is_emoji: bool = False
    tags: tuple[Package, str] | None = None


def _iconify(name: str, version: str, sha256: str) -> Package:
    return Package("npm", f"@iconify-json/{name}", version, sha256)


LUCIDE_TAGS = Package(
    "npm", "lucide-static", "1.62.0", "386f9080c440d6f5049cefe3456ae8357f7a0c7f76e59670cd1cb83bc7050a44"
)
TABLER_TAGS = Package(
    "npm", "@tabler/icons", "3.52.0", "626620c7d42afd2f294fba167ce4653b5cb946336d186b4991c70b700e5616af"
)
MDI_TAGS = Package("npm", "@mdi/svg", "7.4.47", "de92e5dc9ce46c392ab5c53aa7190b19f82b40cb48872a083f788c7e13e91fef")

STREAMLINE = "Streamline, https://streamlinehq.com"

SETS = (
    IconSet(
        "noto-v1",
        _iconify("noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
        "drawings",
        APACHE,
        "Noto Emoji, first generation, copyright Google Inc, https://github.com/googlefonts/noto-emoji",
        is_emoji=True,
    ),
    IconSet(
        "fxemoji",
        _iconify("fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
        "drawings",
        APACHE,
        "Firefox OS Emoji, copyright Mozilla, https://github.com/mozilla/fxemoji",
        is_emoji=True,
    ),
    IconSet(
        "streamline-emojis",
        _iconify("streamline-emojis", "1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc"),
        "drawings",
        CC_BY,
        f"Streamline Emojis by {STREAMLINE}",
    ),
    IconSet(
        "flat-color-icons",
        _iconify("flat-color-icons", "1.2.3", "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786"),
        "drawings",
        MIT,
        "Flat Color Icons, copyright Icons8, https://github.com/icons8/flat-Color-icons",
    ),
    IconSet(
        "streamline-ultimate-color",
        _iconify(
            "streamline-ultimate-color", "1.2.2", "46133a11f3734bcef29066391d7edc141ed1d8056242ddfa1b5d36ce286420b6"
        ),
        "drawings",
        CC_BY,
        f"Ultimate color icons by {STREAMLINE}",
    ),
    IconSet(
        "streamline-freehand-color",
        _iconify(
            "streamline-freehand-color", "1.2.2", "00d74cbddaf1bcf35c8614ac0544d10af69c7cee8801475473fe424ee0c0c642"
        ),
        "drawings",
        CC_BY,
        f"Freehand color icons by {STREAMLINE}",
    ),
    IconSet(
        "streamline-kameleon-color",
        _iconify(
            "streamline-kameleon-color", "1.2.2", "5f972d986afb340d8a45d7a16e767f99f91fdd94db53e46a78c79847212aed7b"
        ),
        "drawings",
        CC_BY,
        f"Kameleon color icons by {STREAMLINE}",
        variants=("duo",),
    ),
    IconSet(
        "streamline-plump-color",
        _iconify("streamline-plump-color", "1.2.2", "33ed8a9ebda9ed896125f1e01873105688d68d0b0c95ca1bcead5a41309afcf6"),
        "drawings",
        CC_BY,
        f"Plump color icons by {STREAMLINE}",
        variants=("flat",),
    ),
    IconSet(
        "streamline-flex-color",
        _iconify("streamline-flex-color", "1.2.2", "17ef2e9d596bb288991c271a2b468be822f994cb073c94801a1c186a0e4af827"),
        "drawings",
        CC_BY,
        f"Flex color icons by {STREAMLINE}",
        variants=("flat",),
    ),
    IconSet(
        "streamline-cyber-color",
        _iconify("streamline-cyber-color", "1.2.2", "bc71bb624b8a500841e2e47c0175bf13dfb99b38a6ddc2421d3ac21331e21eac"),
        "drawings",
        CC_BY,
        f"Cyber color icons by {STREAMLINE}",
    ),
    IconSet(
        "fluent-color",
        _iconify("fluent-color", "1.2.21", "fa2ddaaac7a2a7b902659cea1b5b8c03017ce2ae56295138876b86a36177dfbe"),
        "drawings",
        MIT,
        "Fluent UI System Color Icons, copyright Microsoft Corporation, https://github.com/microsoft/fluentui-system-icons",
        variants=("48", "32", "28", "24", "20", "16"),
    ),
    IconSet(
        "icon-park",
        _iconify("icon-park", "1.2.4", "c1a25212a31602aca93c3fa6f6b3288e89b9d7811afc132dfd78506e9d586b6f"),
        "drawings",
        APACHE,
        "IconPark, copyright ByteDance, https://github.com/bytedance/IconPark",
    ),
    IconSet(
        "lucide",
        _iconify("lucide", "1.2.137", "e74db8c3a55fff55bc82de21268c4bced9f65ff10aacc0d5f3a395b0e93243c3"),
        "icons",
        ISC,
        "Lucide, copyright Lucide Contributors, https://lucide.dev",
        tags=(LUCIDE_TAGS, "package/tags.json"),
    ),
    IconSet(
        "tabler",
        _iconify("tabler", "1.2.41", "3bf99af156d28d05568aff524a35ed1ba238df640a7835a5e02e1f8e439685f6"),
        "icons",
        MIT,
        "Tabler Icons, copyright Paweł Kuna, https://tabler.io/icons",
        variants=("filled",),
        tags=(TABLER_TAGS, "package/icons.json"),
    ),
    IconSet(
        "phosphor",
        _iconify("ph", "1.2.2", "e3a582a047d9829fc7e8842c660d8065e598d1b68bb58cb68e75a1f1e5a614cc"),
        "icons",
        MIT,
        "Phosphor Icons, copyright Phosphor Icons, https://phosphoricons.com",
        variants=("fill", "bold", "duotone", "light", "thin"),
    ),
    IconSet(
        "material-design",
        _iconify("mdi", "1.2.3", "ddd817a7213f91de51147943915c0cda8c8b818a53c92b5c068cfa9883c6d7ac"),
        "icons",
        APACHE,
        "Material Design Icons, copyright Pictogrammers, https://pictogrammers.com",
        variants=("outline", "variant", "variant-outline"),
        tags=(MDI_TAGS, "package/meta.json"),
    ),
    IconSet(
        "material-symbols",
        _iconify("material-symbols", "1.2.98", "142d50bf28e7db85362795be335ebc29dac611d73c404fc1e6fc5cc198e2b3d0"),
        "icons",
        APACHE,
        "Material Symbols, copyright Google, https://fonts.google.com/icons",
        variants=("rounded", "sharp", "outline", "outline-rounded", "outline-sharp"),
    ),
    IconSet(
        "bootstrap",
        _iconify("bi", "1.2.7", "86a7f213711c929169dbcd64318cd678a0845385156fc707401ba07cbde4da0d"),
        "icons",
        MIT,
        "Bootstrap Icons, copyright The Bootstrap Authors, https://icons.getbootstrap.com",
        variants=("fill",),
    ),
    IconSet(
        "game-icons",
        _iconify("game-icons", "1.2.4", "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4"),
        "icons",
        CC_BY_3,
        "Game-icons.net, by Lorc, Delapouite and contributors, https://game-icons.net",
    ),
    IconSet(
        "fluent",
        _iconify("fluent", "1.2.60", "9a7cad7adb15288c1fd5e2e1835f1b17f2a8764bb1f31971bffa7c9df1349d6d"),
        "icons",
        MIT,
        "Fluent UI System Icons, copyright Microsoft Corporation, https://github.com/microsoft/fluentui-system-icons",
        variants=tuple(
            f"{px}-{how}" for px in (24, 20, 28, 16, 32, 48, 12, 10) for how in ("regular", "filled", "light")
        ),
    ),
    IconSet(
        "health",
        _iconify("healthicons", "1.2.13", "4c2552c45737788a6599da3c5b72610c7fb4e7f87075d401c56fa16d487d4caf"),
        "icons",
        MIT,
        "Health Icons, copyright Resolve to Save Lives, https://healthicons.org",
        variants=("outline", "24px", "outline-24px", "negative"),
    ),
    IconSet(
        "carbon",
        _iconify("carbon", "1.2.29", "8e3059dc90933875439c29ff36ae4370767bc02d8beca6923b1f2bb856cf327a"),
        "icons",
        APACHE,
        "Carbon, copyright IBM, https://carbondesignsystem.com",
        variants=("filled", "outline"),
    ),
    IconSet(
        "iconoir",
        _iconify("iconoir", "1.2.11", "8e5d3bfbd55aa8ef3878f0c2f248cf71fe99822172fd07990e32ab7fe7a68b1e"),
        "icons",
        MIT,
        "Iconoir, copyright Luca Burgio, https://iconoir.com",
        variants=("solid",),
    ),
)
