import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.data import DataSource, Origin, Pair, RejectedRow
from mmalign.data.cells import Cells, to_pair
from mmalign.data.source import SourceFiles


def build(
    tmp_path: Path, image: object = b"x", captions: object = "a cat", check_images: bool = True, **labels: object
) -> Pair | RejectedRow:
    concept_column = "id" if "concept" in labels else None
    source = DataSource(str(tmp_path / "a.csv"), concept_column=concept_column, check_images=check_images)
    files = SourceFiles(source, "csv", (tmp_path / "a.csv",))
    origin = Origin(tmp_path / "a.csv", line=2)
    return to_pair(Cells(origin, image, (captions,), labels.get("concept"), labels.get("group")), files)


def pair(row: Pair | RejectedRow) -> Pair:
    assert isinstance(row, Pair), row
    return row


def reason(row: Pair | RejectedRow) -> str:
    assert isinstance(row, RejectedRow), row
    return row.reason


def test_captions_are_stripped_and_blank_ones_left_out(tmp_path: Path) -> None:
    assert pair(build(tmp_path, captions=["  a cat\r", None, " ", "chat\n"])).captions == ("a cat", "chat")


@pytest.mark.parametrize("captions", [None, "", " \n", [], [None, ""]])
def test_a_row_without_captions_is_rejected(tmp_path: Path, captions: object) -> None:
    assert reason(build(tmp_path, captions=captions)).startswith("no caption: every caption is null or blank")


@pytest.mark.parametrize(("captions", "seen"), [(3, r"3 (int)"), (["a", 1.5], "1.5 (float)"), ({}, "{} (dict)")])
def test_a_caption_of_another_type_is_rejected(tmp_path: Path, captions: object, seen: str) -> None:
    assert reason(build(tmp_path, captions=captions)) == f"caption is {seen}; expected a text or a list of texts"


@pytest.mark.parametrize("image", [None, "", b"", {"bytes": None, "path": None}, {}])
def test_a_row_without_an_image_is_rejected(tmp_path: Path, image: object) -> None:
    assert reason(build(tmp_path, image)).startswith("no image: the image cell is null or empty")


def test_an_image_of_another_type_is_rejected_and_shown_short(tmp_path: Path) -> None:
    seen = reason(build(tmp_path, list(range(10_000))))
    assert "(list); expected a path, encoded bytes, or a struct" in seen
    assert len(seen) < 150


def test_a_struct_gives_its_bytes_or_else_its_path(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    path = put_image("cat.png")
    assert pair(build(tmp_path, {"bytes": b"x", "path": "gone.png"})).image == b"x"
    assert pair(build(tmp_path, {"bytes": None, "path": "cat.png"})).image == path


def test_an_image_file_that_is_not_there_is_rejected_with_the_folder_looked_in(tmp_path: Path) -> None:
    seen = reason(build(tmp_path, "gone.jpg"))
    assert "gone.jpg" in seen
    assert f"relative to {tmp_path}. Set image_root" in seen


def test_a_caption_in_the_place_of_a_path_is_rejected_like_any_missing_file(tmp_path: Path) -> None:
    assert reason(build(tmp_path, "a cat " * 1000)).startswith("no image file at ")


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    path = put_image("elsewhere/cat.jpg")
    assert pair(build(tmp_path, str(path))).image == path


def test_one_image_is_one_concept_however_its_path_is_written(tmp_path: Path, put_image: Callable[[str], Path]) -> None:
    path = put_image("images/chat é 猫.JPG")
    spellings = ["images/chat é 猫.JPG", "./images/../images/chat é 猫.JPG", str(path)]
    concepts = {pair(build(tmp_path, spelling)).concept for spelling in [*spellings, path.read_bytes()]}
    assert concepts == {hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}


def test_images_that_are_not_to_be_read_are_one_concept_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    spellings = ["gone.jpg", "./x/../gone.jpg", str(tmp_path / "gone.jpg"), "link/gone.jpg"]
    found = {pair(build(tmp_path, spelling, check_images=False)).image_id for spelling in spellings}
    assert found == {f"path:{tmp_path.resolve() / 'gone.jpg'}"}


def test_a_file_that_cannot_be_read_is_rejected(tmp_path: Path) -> None:
    def refused(image: Path | bytes) -> str:
        raise PermissionError(13, "Permission denied", str(image))

    (tmp_path / "a.jpg").touch()
    files = SourceFiles(DataSource("a.csv"), "csv", (tmp_path / "a.csv",))
    cells = Cells(Origin(tmp_path / "a.csv", line=2), "a.jpg", ("a cat",))
    assert "a.jpg' cannot be read: Permission denied; expected a readable file" in reason(
        to_pair(cells, files, refused)
    )


def test_the_concept_of_bytes_is_a_stable_hash_of_them(tmp_path: Path) -> None:
    # As `printf x | b2sum -l 128` prints it. Were it to change, every split of such data would be drawn anew.
    assert pair(build(tmp_path, b"x")).concept == "442a44457137672b3218c1007dc8f76a"
    assert pair(build(tmp_path, b"y")).concept != pair(build(tmp_path, b"x")).concept


@pytest.mark.parametrize(("cell", "concept"), [("cat", "cat"), (7, "7"), (" cat ", "cat")])
def test_a_concept_is_text_or_a_whole_number(tmp_path: Path, cell: object, concept: str) -> None:
    assert pair(build(tmp_path, concept=cell)).concept == concept


@pytest.mark.parametrize(
    ("cell", "seen"),
    [(None, "'id' is null or blank"), (" ", "'id' is null or blank"), (1.5, "1.5 (float)"), (True, "True (bool)")],
)
def test_a_row_without_the_concept_that_was_asked_for_is_rejected(tmp_path: Path, cell: object, seen: str) -> None:
    assert f"{seen}; expected text or a whole number" in reason(build(tmp_path, concept=cell))


def test_a_group_is_optional_and_typed(tmp_path: Path) -> None:
    assert pair(build(tmp_path, group="animal")).group == "animal"
    assert pair(build(tmp_path, group=None)).group is None
    assert "group is ['x'] (list)" in reason(build(tmp_path, group=["x"]))
