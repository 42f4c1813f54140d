"""The small pieces of HTML that the report's sections share. Texts from data are escaped where they are put in."""

from base64 import b64encode

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """A headline figure and what it says."""

    value: str
    caption: str


def section(name: str, title: str, words: str, body: str) -> str:
    """Return a section with its heading and introduction; all four are HTML already."""
    intro = f"<p>{words}</p>" if words else ""
    return f'<section id="{name}"><h2>{title}</h2>{intro}{body}</section>'


def legend_key(colour: str, words: str) -> str:
    """Return one entry of a legend; `colour` is the name of a CSS variable."""
    return f'<span><span class="key" style="--key:var({colour})"></span>{words}</span>'


def table(columns: list[str], rows: list[str]) -> str:
    """Return a table that scrolls by itself on narrow screens. Columns whose heading starts with a dash hold words."""
    heads = "".join(
        f'<th class="word">{column[1:]}</th>' if column.startswith("-") else f"<th>{column}</th>" for column in columns
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def webp_uri(data: bytes) -> str:
    """Return the bytes of a .webp file as a URI, so that the page holds them."""
    return f"data:image/webp;base64,{b64encode(data).decode()}"
