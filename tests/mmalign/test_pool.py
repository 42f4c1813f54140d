from __future__ import annotations

from pathlib import Path

import torch

from mmalign.data import Origin, Pair
from mmalign.pool import build_pool


def pair(concept: str, *captions: str) -> Pair:
    return Pair(b"image", captions, concept, Origin(Path("pairs.csv"), line=2))


def test_all_captions_and_all_images_of_a_concept_belong_together() -> None:
    pairs = [pair("cat", "a cat", "kitten"), pair("dog", "a dog"), pair("cat", "tom")]
    pool = build_pool(pairs, "all")
    assert pool.texts == ("a cat", "kitten", "a dog", "tom")
    cat, dog = [True, True, False, True], [False, False, True, False]
    assert pool.relevant.tolist() == [cat, dog, cat]


def test_first_captions_alone_when_asked() -> None:
    pool = build_pool([pair("cat", "a cat", "kitten"), pair("dog", "a dog", "puppy")], "first")
    assert pool.texts == ("a cat", "a dog")
    assert torch.equal(pool.relevant, torch.eye(2, dtype=torch.bool))


def test_a_text_of_two_concepts_is_one_candidate_right_for_both() -> None:
    pool = build_pool([pair("cat", "pet"), pair("dog", "pet", "a dog")], "all")
    assert pool.texts == ("pet", "a dog")
    assert pool.relevant.tolist() == [[True, False], [True, True]]
