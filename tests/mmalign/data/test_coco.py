import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.data import DataSource, RejectedRow, SourceFormatError, iter_pairs, read_pairs

CAT = {"id": 17, "file_name": "cat.jpg", "height": 6, "width": 4}


def write(tmp_path: Path, images: list[object], annotations: list[object], mark: str = "") -> DataSource:
    path = tmp_path / "annotations" / "captions.json"
    path.parent.mkdir()
    path.write_text(mark + json.dumps({"info": {}, "images": images, "annotations": annotations}), encoding="utf-8")
    return DataSource(str(path), check_images=False)


def note(image_id: object, caption: object) -> dict[str, object]:
    return {"id": 1, "image_id": image_id, "caption": caption}


def rejected(source: DataSource) -> dict[str | None, str]:
    return {row.origin.member: row.reason for row in iter_pairs(source) if isinstance(row, RejectedRow)}


def test_all_captions_of_an_image_are_one_pair(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    path = put_image("train/cat.jpg")
    source = write(tmp_path, [CAT], [note(17, "a cat"), note(17, "A cat. ")])
    (pair,) = read_pairs(DataSource(source.path, image_root=str(tmp_path / "train"))).pairs
    assert (pair.image, pair.captions) == (path, ("a cat", "A cat."))
    assert str(pair.origin) == f"{source.path}, member image 17"


def test_ids_may_be_texts_and_the_file_may_start_with_a_mark(tmp_path: Path) -> None:
    source = write(tmp_path, [{"id": "x1", "file_name": "猫.png"}], [note("x1", "猫")], mark="\ufeff")
    assert read_pairs(source).pairs[0].captions == ("猫",)


def test_an_id_means_nothing_in_another_file(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    for name in ("a", "b"):
        put_image(f"{name}/cat.jpg")
        (tmp_path / name / "captions.json").write_text(json.dumps({"images": [CAT], "annotations": [note(17, name)]}))
    first, second = read_pairs(DataSource(str(tmp_path / "*" / "captions.json"), format="coco")).pairs
    assert first.concept != second.concept


def test_an_image_without_captions_is_rejected(tmp_path: Path) -> None:
    assert rejected(write(tmp_path, [CAT], []))["image 17"].startswith("no caption: no annotation names this image")


def test_an_image_with_a_blank_caption_only_is_rejected(tmp_path: Path) -> None:
    assert rejected(write(tmp_path, [CAT], [note(17, " ")]))["image 17"].startswith("no caption: every caption")


def test_a_second_image_with_an_id_is_rejected(tmp_path: Path) -> None:
    source = write(tmp_path, [CAT, CAT], [note(17, "a cat")])
    assert "an earlier image has its id" in rejected(source)["image 17"]


def test_annotations_of_an_unknown_image_are_rejected(tmp_path: Path) -> None:
    source = write(tmp_path, [CAT], [note(17, "a cat"), note(18, "a dog")])
    assert rejected(source) == {"annotations of image 18": "no image has this id; expected an entry in images"}


def test_a_bad_entry_is_rejected_alone(tmp_path: Path) -> None:
    source = write(tmp_path, [{"id": 1}, CAT], [note(17, "a cat"), note(17, None)])
    assert rejected(source) == {
        "annotations[1]": "Expected `str`, got `null` - at `$.caption`; expected image_id and caption",
        "images[0]": "Object missing required field `file_name`; expected id and file_name",
    }


@pytest.mark.parametrize("content", ["[]", '{"images": []}', "{", "image,caption"])
def test_another_kind_of_file_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(content)
    with pytest.raises(SourceFormatError, match=r"is not a COCO captions file: .*lists images and annotations"):
        read_pairs(DataSource(str(path)), on_error="skip")
