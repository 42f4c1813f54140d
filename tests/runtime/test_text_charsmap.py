"""A table of characters: the longest key wins, and a table that was damaged or made to do harm is an error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.text_charsmap import Charsmap
from tests.runtime.charsmaps import BLOCK, charsmap, joined, parted

E_ACUTE, E_BELOW = "e\u0301", "e\u0323"
REPLACED = {
    E_ACUTE: "é",
    f"{E_BELOW}\u0301": "ẹ\u0301",
    "ﬁ": "fi",
    "\u0301": "",
    "ab": "c",
    "abcd": "狗",
    "　": " ",
}
TABLE = charsmap(REPLACED)
# Bytes of units that a text reaches, of the size and of the replacements: most of the rest is empty.
PLACES = [at for at, byte in enumerate(TABLE) if byte not in (0, 0x80)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("a dog", "a dog"),
        (f"caf{E_ACUTE}", "café"),
        (f"{E_BELOW}\u0301 {E_BELOW}", f"ẹ\u0301 {E_BELOW}"),
        ("abcd abc ab a", "狗 cc c a"),
        ("ﬁ\u0301!", "fi!"),
        ("狗　狗\x00🐶", "狗 狗\x00🐶"),
        ("ababcdabc", "c狗cc"),
    ],
)
def test_the_longest_key_is_replaced(text: str, expected: str) -> None:
    assert Charsmap(TABLE).replace(text) == expected


@given(st.text(st.sampled_from("abcde\u0301\u0323ﬁ　 狗🐶"), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_as_a_plain_search_gives_it(text: str) -> None:
    expected, at = "", 0
    while at < len(text):
        key = max((key for key in REPLACED if text.startswith(key, at)), key=len, default="")
        expected += REPLACED[key] if key else text[at]
        at += len(key) or 1
    assert Charsmap(TABLE).replace(text) == expected


def test_ascii_that_no_key_is_made_of_skips_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Charsmap(TABLE)
    monkeypatch.setattr(Charsmap, "_longest", None)
    text = "".join(map(chr, range(0x20, 0x7F))).replace("a", "")
    assert found.replace(text) == text
    with pytest.raises(TypeError, match="not callable"):
        found.replace("ab")


def _circle(units: np.ndarray, texts: bytes) -> bytes:
    place = BLOCK + ord("a")  # its children become the root's own, so that "aaaa..." never ends
    units[place] = (place ^ BLOCK) << 10 | ord("a")
    return joined(units, texts)


def _circle_through_zero(units: np.ndarray, texts: bytes) -> bytes:
    units[0] = 0  # a zero byte leads from the root to the root
    return joined(units, texts)


def _outside(units: np.ndarray, texts: bytes) -> bytes:
    units[BLOCK + ord("a")] = 0x1FFFFF << 10 | ord("a")
    return joined(units, texts)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda units, texts: b"", "it has 0 bytes"),
        (lambda units, texts: joined(units, texts)[:-200], "bytes and says that [0-9]+ of them"),
        (lambda units, texts: joined(units, b""), "of them are its trie"),
        (lambda units, texts: joined(units[:300], texts), "leads to [0-9]+, and it has 300"),
        (lambda units, texts: joined(units[:8], texts), "32 of them are its trie"),
        (lambda units, texts: joined(np.zeros(2**20 + 256), texts), "1048832 units, at most 1048576"),
        (_circle, "goes in a circle"),
        (_circle_through_zero, "goes in a circle"),
        (_outside, "leads to 2096798, and it has"),
        (lambda units, texts: joined(units, texts[:5] + b"\xff" + texts[6:]), "are not UTF-8 at byte"),
        (lambda units, texts: joined(units, texts + b"x"), "no zero byte closes"),
        (lambda units, texts: joined(units, b"\0"), "a replacement begins at byte [0-9]+ of 1"),
        (lambda units, texts: joined(units, "é狗éé\0".encode().rjust(len(texts), b"x")), "inside a character, at byte"),
        (lambda units, texts: joined(units, b"x" * 300 + b"\0"), "a replacement has 300 bytes, at most 256"),
        (lambda units, texts: charsmap({"a" * 129: "b"}), "keys of more than 128 bytes"),
    ],
)
def test_a_damaged_table_is_a_named_error(damage: Callable[[np.ndarray, bytes], bytes], message: str) -> None:
    with pytest.raises(BundleFormatError, match=f"precompiled_charsmap, .* cannot be read: .*({message})"):
        Charsmap(damage(*parted(TABLE)))


def test_a_table_cannot_make_texts_grow_without_bound() -> None:
    assert len(Charsmap(charsmap({"a": "b" * 256})).replace("a" * 1000)) == 256_000
    with pytest.raises(BundleFormatError, match="a replacement has 257 bytes, at most 256 are read"):
        Charsmap(charsmap({"a": "b" * 257}))


@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 255)), min_size=1, max_size=8),
    st.text(st.sampled_from("abcde\u0301\u0323ﬁ　 \x00狗🐶"), max_size=200),
)
@settings(max_examples=500, deadline=None)
def test_any_damage_is_an_error_or_a_table_that_works(changes: list[tuple[int, int]], text: str) -> None:
    damaged = bytearray(TABLE)
    for at, byte in changes:
        damaged[at] = byte
    try:
        found = Charsmap(bytes(damaged))
    except BundleFormatError as error:
        assert "cannot be read" in str(error)
        return
    assert len(found.replace(text)) <= 256 * len(text.encode())
