from __future__ import annotations

from pathlib import Path

from mmalign.data import Origin, Pair
from mmalign.figures.retrieval_set import RetrievalSet, build_retrieval_set


def pair(image: str, concept: str, *captions: str, group: str | None = None) -> Pair:
    return Pair(image.encode(), captions, concept, Origin(Path("pairs.csv"), line=2), group)


def relevant(items: RetrievalSet) -> list[list[bool]]:
    right = [items.relevant.right(row) for row in range(len(items.pairs))]
    return [[column in columns for column in range(len(items.texts))] for columns in right]


def test_all_captions_and_all_images_of_a_concept_belong_together() -> None:
    pairs = [pair("1", "cat", "a cat", "kitten"), pair("2", "dog", "a dog"), pair("3", "cat", "tom")]
    items = build_retrieval_set(pairs, "all")
    assert sorted(items.texts) == ["a cat", "a dog", "kitten", "tom"]
    assert [(each.image, each.concept) for each in items.pairs] == [(b"1", "cat"), (b"3", "cat"), (b"2", "dog")] or [
        (each.image, each.concept) for each in items.pairs
    ] == [(b"3", "cat"), (b"1", "cat"), (b"2", "dog")]
    cat, dog = [text != "a dog" for text in items.texts], [text == "a dog" for text in items.texts]
    assert relevant(items) == [cat, cat, dog]


def test_first_captions_alone_when_asked() -> None:
    items = build_retrieval_set([pair("1", "cat", "a cat", "kitten"), pair("2", "dog", "a dog", "puppy")], "first")
    assert items.texts == ("a cat", "a dog")
    assert relevant(items) == [[True, False], [False, True]]


def test_a_text_of_two_concepts_is_one_candidate_right_for_both() -> None:
    items = build_retrieval_set([pair("1", "cat", "pet"), pair("2", "dog", "pet", "a dog")], "all")
    assert items.texts == ("pet", "a dog")
    assert relevant(items) == [[True, False], [True, True]]


def test_an_image_of_several_rows_is_one_candidate() -> None:
    rows = [pair("1", "x", caption) for caption in ("a cat", "kitten", "tom", "a cat")] + [pair("2", "y", "a dog")]
    for captions, texts in (("all", ("a cat", "kitten", "tom", "a dog")), ("first", ("a cat", "a dog"))):
        items = build_retrieval_set(rows, captions)  # type: ignore[arg-type]
        assert (len(items.pairs), items.texts) == (2, texts)


def test_an_image_of_two_concepts_is_one_candidate_and_both_their_captions_are_right() -> None:
    items = build_retrieval_set(
        [pair("1", "fox", "a fox", group="wild"), pair("1", "dog", "a dog", group="pet")], "all"
    )
    assert (len(items.pairs), relevant(items), items.groups) == (1, [[True, True]], (frozenset({"wild", "pet"}),))


def test_images_given_by_path_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    names = ("a.png", "x/../a.png", "link.png", "b.png")
    pairs = [Pair(tmp_path / name, (name,), name, Origin(tmp_path)) for name in names]
    assert len(build_retrieval_set(pairs, "all").pairs) == 2


def test_captions_of_each_language_and_keywords_of_each_concept_are_known() -> None:
    named = (("en", "cat"), ("en", "Pet"), ("de", "Katze"), ("de", "Pet"))
    cat = Pair(b"1", ("cat", "Pet", "Katze"), "cat", Origin(Path("x")), languages=named)
    pairs = [cat, pair("2", "dog", "a dog", "pet")]
    items = build_retrieval_set(pairs, "all")
    assert items.texts == ("cat", "Pet", "Katze", "a dog", "pet")
    assert {name: tuple(texts) for name, texts in items.languages.items()} == {"en": (0, 1), "de": (2, 1)}
    assert items.keywords == (frozenset({"cat", "pet", "katze"}), frozenset({"a dog", "pet"}))
    first = build_retrieval_set(pairs, "first")
    assert first.texts == ("cat", "Katze", "a dog")
    assert {name: tuple(texts) for name, texts in first.languages.items()} == {"en": (0,), "de": (1,)}
    assert first.keywords == items.keywords


def test_a_text_of_two_languages_belongs_to_the_concepts_that_have_it_in_each() -> None:
    # "Gift" is a present in English and poison in German.
    poison = Pair(b"1", ("Poison", "Gift"), "poison", Origin(Path("x")), languages=(("en", "Poison"), ("de", "Gift")))
    present = Pair(b"2", ("Gift",), "present", Origin(Path("x")), languages=(("en", "Gift"),))
    items = build_retrieval_set([poison, present], "all")
    number = items.texts.index("Gift")
    assert items.relevant.candidate_labels[number] == (0, 1)
    assert (items.languages["de"], items.languages["en"][number]) == ({number: (0,)}, (1,))
