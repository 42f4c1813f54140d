import io
import tarfile
from pathlib import Path

import pytest

from mmalign.data import ColumnError, DataSource, RejectedRow, SourceFormatError, iter_pairs, read_pairs


def pack(tmp_path: Path, *members: tuple[str, bytes]) -> DataSource:
    path = tmp_path / "shard-000.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return DataSource(str(path))


def rejected(source: DataSource) -> list[tuple[str | None, str]]:
    return [(row.origin.member, row.reason) for row in iter_pairs(source) if isinstance(row, RejectedRow)]


def test_members_of_one_key_are_a_pair(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("a/0001.JPG", jpeg), ("a/0001.txt", "a cat é\n".encode()), ("a/0001.cls", b"3"))
    (pair,) = read_pairs(source).pairs
    assert (pair.image, pair.captions, pair.origin.member) == (jpeg, ("a cat é",), "a/0001")


def test_a_text_member_is_one_caption_whatever_line_breaks_it_has(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat\non a\r\nmat\n"))
    assert read_pairs(source).pairs[0].captions == ("a cat\non a\r\nmat",)


def test_captions_and_labels_may_be_fields(tmp_path: Path, jpeg: bytes) -> None:
    fields = b'{"en": "a cat", "all": ["chat", null], "id": 7, "class": "pet"}'
    path = pack(tmp_path, ("1.json", fields), ("1.jpg", jpeg)).path
    source = DataSource(path, caption_columns=("en", "all"), concept_column="id", group_column="class")
    (pair,) = read_pairs(source).pairs
    assert (pair.captions, pair.concept, pair.group) == (("a cat", "chat"), "7", "pet")


def test_captions_of_a_text_member_win_over_fields(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.json", b'{"caption": "raw"}'), ("1.txt", b"clean"))
    assert read_pairs(source).pairs[0].captions == ("clean",)


def test_same_bytes_are_one_concept_in_any_shard(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat"), ("2.jpg", jpeg), ("2.txt", b"chat"))
    first, second = read_pairs(source).pairs
    assert first.concept == second.concept


def test_hidden_meta_and_nameless_members_are_left_out(tmp_path: Path, jpeg: bytes) -> None:
    extra = [("./._1.jpg", b""), (".cache/2.jpg", b""), ("__meta__/1.json", b""), ("LICENSE", b"")]
    source = pack(tmp_path, ("./__İ.jpg", jpeg), *extra, ("./__İ.txt", b"a cat"))
    assert [pair.origin.member for pair in read_pairs(source).pairs] == ["__İ"]


def test_a_key_ends_at_the_first_dot(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.seg.png", b"mask"), ("1.jpg", jpeg), ("1.txt", b"a cat"))
    assert read_pairs(source).pairs[0].image == jpeg


@pytest.mark.parametrize(
    "names", [["1.txt"], ["1.jpg"], ["1.jpg", "1.png", "1.txt"], ["1.jpg", "1.txt", "1.txt"], ["1.jpg", "1.cls"]]
)
def test_a_sample_with_other_members_is_rejected_with_their_names(tmp_path: Path, names: list[str]) -> None:
    source = pack(tmp_path, *[(name, b"x") for name in names])
    listed = ", ".join(name.removeprefix("1") for name in names)
    expected = "one image, and .txt or .json with captions, each suffix once, side by side"
    assert rejected(source) == [("1", f"members {listed}; expected {expected}")]


def test_a_key_that_occurs_again_is_rejected(tmp_path: Path, jpeg: bytes) -> None:
    sample = [("1.jpg", jpeg), ("1.txt", b"a cat")]
    source = pack(tmp_path, *sample, ("2.jpg", jpeg), ("2.txt", b"a dog"), *sample)
    ((member, reason),) = rejected(source)
    assert (member, reason.split(";")[0]) == ("1", "the key occurs again")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1.txt", b"\xff", "not UTF-8"),
        ("1.txt", b"", "no caption"),
        ("1.json", b"[]", "bad JSON"),
        ("1.json", b'{"caption": null}', "no caption"),
        ("1.json", b'{"caption": 3}', "caption is 3 (int)"),
    ],
)
def test_bad_captions_reject_their_sample(tmp_path: Path, jpeg: bytes, name: str, content: bytes, reason: str) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), (name, content), ("2.jpg", jpeg), ("2.txt", b"a dog"))
    ((member, seen),) = rejected(source)
    assert member == "1"
    assert reason in seen


def test_an_empty_image_rejects_its_sample(tmp_path: Path) -> None:
    assert "no image: " in rejected(pack(tmp_path, ("1.jpg", b""), ("1.txt", b"a cat")))[0][1]


def test_a_field_that_no_sample_has_is_a_column_error(tmp_path: Path, jpeg: bytes) -> None:
    path = pack(tmp_path, ("1.jpg", jpeg), ("1.json", b'{"caption": "a cat", "key": "1"}')).path
    with pytest.raises(ColumnError, match=r"no column 'id'.*'caption', 'key'; the nearest is"):
        read_pairs(DataSource(path, concept_column="id"), on_error="skip")


def test_a_shard_that_was_cut_short_anywhere_is_an_error(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat"), ("2.jpg", jpeg), ("2.txt", b"a dog"))
    whole = Path(source.path).read_bytes()
    end = whole.rstrip(b"\0").rfind(b"a dog") + tarfile.BLOCKSIZE
    for size in range(0, end, 100):
        Path(source.path).write_bytes(whole[:size])
        with pytest.raises(SourceFormatError, match=r"shard-000\.tar (is cut short|cannot be read).*download it again"):
            read_pairs(source)


def test_a_shard_that_ends_between_members_is_an_error(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat"))
    whole = Path(source.path).read_bytes()
    end = whole.find(b"a cat") + tarfile.BLOCKSIZE
    Path(source.path).write_bytes(whole[:end])
    with pytest.raises(SourceFormatError, match=f"is cut short or damaged: .*the end mark at byte {end}"):
        read_pairs(source)


def test_what_stands_behind_the_end_mark_is_not_lost_without_a_word(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat"))
    shard = Path(source.path)
    shard.write_bytes(2 * shard.read_bytes())  # as cat joins them
    with pytest.raises(SourceFormatError, match=r"goes on behind its end mark at byte \d+\. .*tar --concatenate"):
        read_pairs(source)


def test_a_damaged_header_and_a_hole_are_errors(tmp_path: Path, jpeg: bytes) -> None:
    source = pack(tmp_path, ("1.jpg", jpeg), ("1.txt", b"a cat"), ("2.jpg", jpeg), ("2.txt", b"a dog"))
    whole = Path(source.path).read_bytes()
    at = whole.index(b"2.jpg")
    for damage, reason in ((b"\xff", "cut short or damaged"), (bytes(tarfile.BLOCKSIZE), "goes on behind")):
        Path(source.path).write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        with pytest.raises(SourceFormatError, match=f"{reason}.*byte {at}"):
            read_pairs(source)


@pytest.mark.parametrize("content", [b"", b"no archive" * 100, b"\x1f\x8b\x08"])
def test_a_file_that_is_no_tar_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SourceFormatError, match=r"a\.tar cannot be read: .*Expected a whole, uncompressed \.tar"):
        read_pairs(DataSource(str(tmp_path / "a.tar")))
