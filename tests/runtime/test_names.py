import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime.names import as_text, is_utf8, printable

ANY = st.text(st.characters(codec=None))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=ANY)
def test_any_name_becomes_one_line_that_every_table_and_terminal_holds(text: str) -> None:
    assert is_utf8(as_text(text))
    shown = printable(text)
    assert shown.encode("utf-8").decode() == shown
    assert shown.splitlines() in ([shown], [])
    assert "\x1b" not in shown
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("café.jpg", "café.jpg", "café.jpg"),
        ("caf\udce9.jpg", "caf\\xe9.jpg", "caf\\xe9.jpg"),
        ("\ud83d", "\\ud83d", "\\ud83d"),
        ("a\x1b[31mb\nc\t", "a\x1b[31mb\nc\t", "a\\x1b[31mb\\nc\\t"),
        ("\u202egpj.exe", "\u202egpj.exe", "\\u202egpj.exe"),
    ],
)
def test_what_cannot_be_shown_is_escaped(name: str, text: str, line: str) -> None:
    assert (as_text(name), printable(name)) == (text, line)
