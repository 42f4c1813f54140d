from __future__ import annotations

from pathlib import Path

from mmalign.data import Origin, Pair
from mmalign.pool import Pool, build_pool


def pair(image: str, concept: str, *captions: str, group: str | None = None) -> Pair:
    return Pair(image.encode(), captions, concept, Origin(Path("pairs.csv"), line=2), group)


def relevant(pool: Pool) -> list[list[bool]]:
    right = [pool.relevant.right(row) for row in range(len(pool.pairs))]
    return [[column in columns for column in range(len(pool.texts))] for columns in right]


def test_all_captions_and_all_images_of_a_concept_belong_together() -> None:
    pairs = [pair("1", "cat", "a cat", "kitten"), pair("2", "dog", "a dog"), pair("3", "cat", "tom")]
    pool = build_pool(pairs, "all")
    assert sorted(pool.texts) == ["a cat", "a dog", "kitten", "tom"]
    assert [(each.image, each.concept) for each in pool.pairs] == [(b"1", "cat"), (b"3", "cat"), (b"2", "dog")] or [
        (each.image, each.concept) for each in pool.pairs
    ] == [(b"3", "cat"), (b"1", "cat"), (b"2", "dog")]
    cat, dog = [text != "a dog" for text in pool.texts], [text == "a dog" for text in pool.texts]
    assert relevant(pool) == [cat, cat, dog]


def test_first_captions_alone_when_asked() -> None:
    pool = build_pool([pair("1", "cat", "a cat", "kitten"), pair("2", "dog", "a dog", "puppy")], "first")
    assert pool.texts == ("a cat", "a dog")
    assert relevant(pool) == [[True, False], [False, True]]


def test_a_text_of_two_concepts_is_one_candidate_right_for_both() -> None:
    pool = build_pool([pair("1", "cat", "pet"), pair("2", "dog", "pet", "a dog")], "all")
    assert pool.texts == ("pet", "a dog")
    assert relevant(pool) == [[True, False], [True, True]]


def test_an_image_of_several_rows_is_one_candidate() -> None:
    rows = [pair("1", "x", caption) for caption in ("a cat", "kitten", "tom", "a cat")] + [pair("2", "y", "a dog")]
    for captions, texts in (("all", ("a cat", "kitten", "tom", "a dog")), ("first", ("a cat", "a dog"))):
        pool = build_pool(rows, captions)  # type: ignore[arg-type]
        assert (len(pool.pairs), pool.texts) == (2, texts)


def test_an_image_of_two_concepts_is_one_candidate_and_both_their_captions_are_right() -> None:
    pool = build_pool([pair("1", "fox", "a fox", group="wild"), pair("1", "dog", "a dog", group="pet")], "all")
    assert (len(pool.pairs), relevant(pool), pool.groups) == (1, [[True, True]], (frozenset({"wild", "pet"}),))


def test_images_given_by_path_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    names = ("a.png", "x/../a.png", "link.png", "b.png")
    pairs = [Pair(tmp_path / name, (name,), name, Origin(tmp_path)) for name in names]
    assert len(build_pool(pairs, "all").pairs) == 2
