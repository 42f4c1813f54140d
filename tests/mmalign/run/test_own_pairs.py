from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mmalign.data import Origin, Pair
from mmalign.errors import CheckpointError
from mmalign.run.own_pairs import NUM_OWN, keep_own_pairs, read_own_pairs, usable_pairs
from mmalign_runtime.spec import ImageLimits, ImageSpec, TextSpec


@pytest.fixture
def pairs(pairs_csv: Path) -> list[Pair]:
    paths = sorted(pairs_csv.parent.glob("*.png"))[:8]
    return [Pair(path, (path.stem,), path.stem, Origin(pairs_csv, line=line)) for line, path in enumerate(paths, 2)]


def test_pairs_come_back_with_their_images_as_bytes(pairs: list[Pair], tmp_path: Path) -> None:
    keep_own_pairs(usable_pairs(pairs, ImageSpec(), TextSpec()), tmp_path / "own")
    found = read_own_pairs(tmp_path / "own")
    assert found is not None
    assert [pair.captions for pair in found] == [pair.captions for pair in pairs[:NUM_OWN]]
    assert [pair.image for pair in found] == [Path(str(pair.image)).read_bytes() for pair in pairs[:NUM_OWN]]


def test_pairs_that_cannot_be_embedded_are_passed_over_and_told(
    pairs: list[Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs[0] = msgspec.structs.replace(pairs[0], image=b"no image")
    pairs[1] = msgspec.structs.replace(pairs[1], image=tmp_path / "gone.png")
    pairs[2] = msgspec.structs.replace(pairs[2], captions=("long " * 100,))
    found = usable_pairs(pairs, ImageSpec(), TextSpec(max_characters=400))
    assert [pair.captions for pair in found] == [pair.captions for pair in pairs[3:7]]
    assert len(caplog.messages) == 3
    assert all(message.startswith("not taken as a golden case: ") for message in caplog.messages)


def test_pairs_over_the_limits_are_passed_over(pairs: list[Pair]) -> None:
    assert usable_pairs(pairs, ImageSpec(limits=ImageLimits(max_side=10)), TextSpec()) == ()


def test_a_run_without_them_has_none(tmp_path: Path) -> None:
    assert read_own_pairs(tmp_path / "own") is None


@pytest.mark.parametrize("contents", [b"", b"garbage", msgspec.msgpack.encode([{"image": 1}])])
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "own").write_bytes(contents)
    with pytest.raises(CheckpointError, match=r"own cannot be read: .*remove it: the data is read then"):
        read_own_pairs(tmp_path / "own")
