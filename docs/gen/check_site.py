"""Looks at the built site: everything public is on it, its links lead somewhere, and nothing is fetched from elsewhere.

python -m docs.gen.check_site site
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs.gen.config_page import keys, tables

_PACKAGES = ("mmalign", "mmalign_export", "mmalign_runtime")


class _Page(HTMLParser):
    """The ids on a page, the addresses that it links to, and those that a browser fetches to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag's id and what it fetches."""
        found = {name: value or "" for name, value in attrs}
        self.ids.add(found.get("id", ""))
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.fetched.append(found["src"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "preconnect", "preload", "icon", "modulepreload"):
            self.fetched.append(found.get("href", ""))
        elif tag == "a":
            self.linked.append(found.get("href", ""))


def faults(site: Path) -> Iterator[str]:
    """Yield a line for everything that is wrong with a built site."""
    pages = {str(path.relative_to(site)): _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for name, page in pages.items():
        yield from (f"{name} fetches {url}" for url in page.fetched if urlsplit(url).netloc)
        yield from (
            f"{name} leads to {url}" for url in (*page.fetched, *page.linked) if _is_broken(site, name, url, pages)
        )
    for package in _PACKAGES:
        ids = pages[f"reference/{package}.html"].ids
        names = (f"{package}.{name}" for name in import_module(package).__all__)
        yield from (f"{name} is not in the reference" for name in names if name not in ids)
    ids = pages["reference/config.html"].ids
    for table in tables():
        twin = next(each for each in tables() if each.struct is table.struct)
        wanted = [table.anchor, *(f"{twin.anchor}.{field.name}" for field in keys(table))] if keys(table) else []
        yield from (f"{key} is not in the reference" for key in wanted if key not in ids)


def _is_broken(site: Path, name: str, url: str, pages: dict[str, _Page]) -> bool:
    parts = urlsplit(url)
    if parts.scheme or parts.netloc:
        return False
    path = unquote(parts.path)
    folder = site if path.startswith("/") else (site / name).parent
    target = folder / path.lstrip("/") if path else site / name
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return True
    page = pages.get(str(target.resolve().relative_to(site.resolve())))
    return bool(parts.fragment and page) and unquote(parts.fragment) not in page.ids  # type: ignore[union-attr]


def main() -> None:
    """Print the faults of the site in the folder that is named, and exit with 1 if there are any."""
    found = list(faults(Path(sys.argv[1])))
    print("\n".join(found) or "the site is complete, its links lead somewhere, and it fetches nothing from elsewhere")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
