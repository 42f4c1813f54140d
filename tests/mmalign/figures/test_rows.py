from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from mmalign.data import Origin, Pair
from mmalign.figures.answers import Vectors, answer, diagnosis, differences, scored
from mmalign.figures.retrieval import chance_recall
from mmalign.figures.retrieval_set import RetrievalSet, build_retrieval_set
from mmalign.figures.rows import groups, remarks
from mmalign.figures.scores import Scored
from mmalign_runtime.spec import Similarity

TEXTS = torch.eye(6)
SIMILARITY = Similarity(kind="softmax", scale=3.0)


def items_of(num_captions: int) -> RetrievalSet:
    """Six captions of as many concepts as there are groups of `num_captions`, an image each."""
    captions = [tuple(f"caption {c}" for c in range(at, at + num_captions)) for at in range(0, 6, num_captions)]
    pairs = [
        Pair(str(n).encode(), each, f"c{n}", Origin(Path("x")), image_id=str(n)) for n, each in enumerate(captions)
    ]
    return build_retrieval_set(pairs, "all")


def chance(items: RetrievalSet) -> Scored:
    return Scored(chance_recall(items.relevant), chance_recall(items.relevant.reversed()))


@pytest.mark.parametrize(("num_captions", "is_shown"), [(1, False), (2, True)])
def test_average_precision_is_shown_where_queries_have_several_right_answers(num_captions: int, is_shown: bool) -> None:
    items = items_of(num_captions)
    vectors = Vectors(TEXTS[::num_captions].roll(1, dims=0), TEXTS)
    model = scored(items, answer(items, (), vectors))
    to_text, to_image = groups(model, None, chance(items), None, 0)
    assert ("mAP" in [row.name for row in to_text.rows]) == is_shown
    assert [row.name for row in to_image.rows][-1] == "nDCG@10"
    assert {row.linear_map for row in to_text.rows} == {row.ahead for row in to_text.rows} == {""}


def test_rows_say_what_was_measured() -> None:
    items = items_of(1)
    right, wrong = Vectors(TEXTS, TEXTS), Vectors(TEXTS.roll(1, dims=0), TEXTS)
    ideal, bad = answer(items, (), right, SIMILARITY), answer(items, (), wrong)
    model, linear_map = scored(items, ideal), scored(items, bad)
    to_text, _ = groups(model, linear_map, chance(items), differences(items, ideal, bad), 0)
    first = to_text.rows[0]
    assert msgspec.structs.astuple(first) == ("recall@1", "1.000", "1.00-1.00", "0.000", "+1.00 to +1.00", "0.167")
    assert [row.model for row in to_text.rows] == ["1.000", "1.000", "1.000", "1", "1.000", "1.000"]
    found = diagnosis(items, ideal, right, declared=(3,), asked=())
    lines = remarks(model, found)
    assert lines[0].startswith("calibration error 0.")
    assert lines[1] == "alignment 0.000, uniformity -4.00 images and -4.00 captions, modality gap 0.000"
    assert lines[-1] == "intervals: 95% of 1,000 resamples by concept"
