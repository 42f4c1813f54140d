import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder, SavedVectors, load_vectors
from mmalign_runtime.bench.workload import golden_images
from mmalign_runtime.saved import save_vectors

TEXTS = ("a dog", "a red house", "the big old tree")  # lengths differ: no vocabulary makes two of them one


@pytest.fixture
def vectors(embedder: Embedder, tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npz"
    saved = SavedVectors(TEXTS, embedder.encode_text(TEXTS), embedder.space_id, embedder.info().variant_id)
    save_vectors(path, saved)
    return path


def test_a_text_finds_itself_first(cli, tiny_bundle: Path, vectors: Path) -> None:
    result = cli("search", tiny_bundle, vectors, *TEXTS, "--top-k", 2, "--json")
    found = json.loads(result.out)
    assert [row["query"] for row in found] == list(TEXTS)
    for row in found:
        assert [hit["rank"] for hit in row["hits"]] == [1, 2]
        assert row["hits"][0]["id"] == row["query"]
        assert row["hits"][0]["score"] == pytest.approx(1, abs=1e-5)


def test_an_image_is_searched_by_its_vector(cli, embedder: Embedder, tiny_bundle: Path, vectors: Path) -> None:
    image = golden_images(embedder.bundle)[0]
    (row,) = json.loads(cli("search", tiny_bundle, vectors, image, "--image", "--json").out)
    scores = embedder.encode_image([image])[0] @ load_vectors(vectors).vectors.T
    assert [hit["id"] for hit in row["hits"]] == [TEXTS[i] for i in np.argsort(-scores)]


def test_a_table_is_printed_for_each_query(cli, tiny_bundle: Path, vectors: Path) -> None:
    result = cli("search", tiny_bundle, vectors, "a dog", "[red]")
    assert result.code == 0
    assert result.out.count("rank") == 2
    assert "[red]" in result.out


def test_vectors_of_another_space_are_refused(cli, tiny_bundle: Path, vectors: Path) -> None:
    save_vectors(vectors, msgspec.structs.replace(load_vectors(vectors), space_id="elsewhere"))
    result = cli("search", tiny_bundle, vectors, "a dog")
    assert result.code == 2
    assert "elsewhere, and cannot be compared: run `mmalign embed` again" in result.err


def test_a_damaged_file_of_vectors_is_one_line_of_error(cli, tiny_bundle: Path, vectors: Path) -> None:
    vectors.write_bytes(vectors.read_bytes()[:50])
    result = cli("search", tiny_bundle, vectors, "a dog")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "damaged" in result.err


def test_a_query_that_loses_its_end_is_named(cli, tiny_bundle: Path, vectors: Path) -> None:
    result = cli("search", tiny_bundle, vectors, "a dog", "dog " * 50, "--json")
    assert [row["truncated"] for row in json.loads(result.out)] == [False, True]
    assert result.err.count("has more than 16 tokens and lost its end") == 1
    assert "lost its end" not in cli("search", tiny_bundle, vectors, "a dog").err


def test_the_name_of_an_image_is_searched_for_as_words_and_said_to_be(cli, tiny_bundle: Path, vectors: Path) -> None:
    image = sorted((tiny_bundle / "golden").glob("*.jpg"))[0]
    result = cli("search", tiny_bundle, vectors, image, "no-such-file.jpg", "--json")
    assert [row["query"] for row in json.loads(result.out)] == [str(image), "no-such-file.jpg"]
    assert result.err.count("to search with that image add --image") == 1


def test_a_long_text_that_ends_as_an_image_s_name_is_a_text(cli, tiny_bundle: Path, vectors: Path) -> None:
    assert cli("search", tiny_bundle, vectors, "a dog " * 100 + "in photo.jpg").code == 0
