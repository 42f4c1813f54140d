"""The name under which drawings and captions of different vendors meet: a normalised hex code.

Vendors spell one emoji in several ways (`2764-FE0F`, `2764`; `0023-fe0f-20e3`, `23-20e3`). The key drops
what only asks for a presentation or glues a sequence together, so all spellings give one concept.
"""

# Variation selector 16 (emoji presentation) and the zero width joiner: Unicode Technical Standard 51.
UNWRITTEN = frozenset({"fe0f", "200d"})


def concept_key(hexcode: str) -> str:
    """Normalise a dash-separated hex code: lower case, no fe0f or 200d, no leading zeros.

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
