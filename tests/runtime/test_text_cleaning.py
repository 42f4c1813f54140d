"""The cleaners by what they give, and the fast path for ASCII by the way it saves. ftfy is not here in every run."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from mmalign_runtime import Embedder, text_cleaning
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import BundleSpec, Cleaning, TextSpec
from mmalign_runtime.text_cleaning import find_cleaner
from mmalign_runtime.tokenizer import TextTokenizer

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]
CLIP: tuple[Cleaning, ...] = ("clip", "clip_cased", "clip_canonical")
ASCII = " \tA_photo\r\nof  (a) DOG, 50% off: <b>x</b> \n"
ASCII_TEXTS = st.text(st.characters(max_codepoint=0x7F), max_size=60) | st.text("&;#<>x0 amplt\t\r\n\x0b\x1f")


@pytest.mark.parametrize(
    ("cleaning", "expected"),
    [
        ("clip", "a_photo of (a) dog, 50% off: <b>x</b>"),
        ("clip_cased", "A_photo of (a) DOG, 50% off: <b>x</b>"),
        ("clip_canonical", "a photo of a dog 50 off bxb"),
        ("siglip", " aphoto of a dog 50 off bxb"),
    ],
)
def test_ascii_is_cleaned_without_ftfy(monkeypatch: pytest.MonkeyPatch, cleaning: Cleaning, expected: str) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    cleaner = find_cleaner(cleaning)
    assert cleaner is not None
    assert cleaner(ASCII) == expected
    assert cleaner("") == ""


@pytest.mark.parametrize(
    ("cleaning", "expected"),
    [
        ("clip", "café & 'quoted' ¬ ok fi 狗"),
        ("clip_cased", "Café & 'quoted' ¬ OK fi 狗"),
        ("clip_canonical", "café quoted ¬ ok fi 狗"),
    ],
)
def test_other_texts_are_repaired_first(cleaning: Cleaning, expected: str) -> None:
    pytest.importorskip("ftfy")
    cleaner = find_cleaner(cleaning)
    assert cleaner is not None
    assert cleaner("CafÃ© &amp;amp; ‘quoted’ &amp;not ＯＫ　ﬁ 狗") == expected


def test_siglip_has_no_repair_and_keeps_one_space_at_the_beginning() -> None:
    cleaner = find_cleaner("siglip")
    assert cleaner is not None
    assert cleaner("CafÃ© &amp; ▁ Ünder_score") == "cafã© amp ünderscore"
    assert (cleaner("  two "), cleaner("! one"), cleaner("!one"), cleaner("?")) == (" two", " one", "one", "")


@pytest.mark.parametrize("cleaning", CLIP)
@given(text=ASCII_TEXTS)
@settings(max_examples=300, deadline=None)
def test_the_fast_path_gives_what_the_repair_gives(cleaning: Cleaning, text: str) -> None:
    pytest.importorskip("ftfy")
    cleaner = find_cleaner(cleaning)
    assert cleaner is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_cleaning, "_PLAIN", re.compile("(?!)"))
        repaired = cleaner(text)
    assert cleaner(text) == repaired


@pytest.mark.parametrize("cleaning", CLIP)
def test_a_text_that_needs_ftfy_names_the_extra(monkeypatch: pytest.MonkeyPatch, cleaning: Cleaning) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    cleaner = find_cleaner(cleaning)
    assert cleaner is not None
    for text in ("Café", "a &amp; b", "a\x1fb"):
        with pytest.raises(
            MissingDependencyError, match=r"cleaned by ftfy .* `pip install 'mmalign-runtime\[clean\]'`"
        ):
            cleaner(text)


def test_a_bundle_with_cleaning_loads_and_embeds_ascii_without_ftfy(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, edit_spec: SpecEdit
) -> None:
    def cleaned(spec: BundleSpec) -> BundleSpec:
        tower = spec.towers["text"]
        changed = msgspec.structs.replace(tower, spec=msgspec.structs.replace(tower.spec, cleaning="clip_canonical"))
        return msgspec.structs.replace(spec, towers={**spec.towers, "text": changed})

    plain = Embedder.load(tiny_bundle, provider="cpu").encode_text(["a big dog", "one cat"])
    edit_spec(cleaned)
    monkeypatch.setitem(sys.modules, "ftfy", None)
    embedder = Embedder.load(tiny_bundle, provider="cpu")
    assert (embedder.encode_text(["A  *big* dog!", "one_cat"]) == plain).all()
    with pytest.raises(MissingDependencyError, match=r"the text 'Caf\\xe9' is to be cleaned by ftfy"):
        embedder.encode_text(["a dog", "Café"])


def test_a_long_text_is_cleaned_before_its_prefix_is_taken() -> None:
    """Cleaned, these texts are far shorter, or begin with other words: a cut before the cleaning would lose tokens."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "dog": 1, "cat": 2, "b": 3}, unk_token="[UNK]"))
    words.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bound = TextTokenizer(words, TextSpec(cleaning="clip_canonical", context_length=4))
    for text in (
        " " * 5_000 + "DOG cat" + " " * 5_000 + "b",
        "!" * 5_000 + " dog" + " ?" * 900 + "\n.CAT. b",
        "dog cat " + "- " * 3_000 + "b",
    ):
        assert bound.encode([text]).input_ids.tolist() == [[1, 2, 3]]
    assert bound.encode(["dog ... " * 9_000]).truncated.tolist() == [True]
