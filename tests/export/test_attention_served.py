"""The second stage as it is used: candidates in another order, from Python and the command line, and explained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import Embedder, InputError, SavedVectors, search
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.cli import main
from mmalign_runtime.explain import Explanation, explain
from mmalign_runtime.rerank import RegionReranker, images_in
from mmalign_runtime.saved import save_vectors

TEXT = "a photo of a dog running on the beach"


@pytest.fixture(scope="module")
def embedder(attention_bundle: Path) -> Embedder:
    return Embedder.load(attention_bundle, provider="cpu")


@pytest.fixture(scope="module")
def saved(embedder: Embedder) -> SavedVectors:
    """The vectors of the bundle's own golden images, by their paths in it."""
    names = tuple(case.file for case in load_golden(embedder.bundle).images)
    vectors = embedder.encode_image([embedder.bundle.path / name for name in names])
    return SavedVectors(names, vectors, embedder.space_id, embedder.info().variant_id)


def test_the_nearest_are_put_in_the_order_of_their_scores(embedder: Embedder, saved: SavedVectors) -> None:
    query = embedder.encode_text([TEXT, "fox"])
    stage = RegionReranker(embedder.attention, images_in(embedder.bundle.path))
    found = search(query, saved, top_k=3, space_id=embedder.space_id, rerank=6, second_stage=stage)
    for vector, hits in zip(query, found, strict=True):
        nearest = np.argsort(-(saved.vectors @ vector), kind="stable")[:6]
        tokens = embedder.attention.encode_regions([embedder.bundle.path / saved.ids[i] for i in nearest])
        scores = embedder.attention.attend(vector[None], tokens).scores[0]
        expected = [saved.ids[nearest[i]] for i in np.argsort(-scores, kind="stable")[:3]]
        assert [hit.id for hit in hits] == expected
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-5)


def test_an_image_is_read_once_while_it_is_kept(embedder: Embedder, saved: SavedVectors) -> None:
    read: list[str] = []

    def image_of(name: str) -> Path:
        read.append(name)
        return embedder.bundle.path / name

    query = embedder.encode_text([TEXT])[0]
    kept, few = (RegionReranker(embedder.attention, image_of, most_kept=most) for most in (10, 1))
    first = kept(query, saved.ids[:3])
    assert np.array_equal(kept(query, saved.ids[:3]), first)
    assert read == list(saved.ids[:3])
    assert np.allclose(few(query, saved.ids[:3]), first, atol=1e-6)
    assert np.allclose(few(query, saved.ids[:3]), first, atol=1e-6)
    assert read == [*saved.ids[:3], *saved.ids[:3], *saved.ids[:2]]  # the last of them was kept
    assert kept(query, ()).shape == (0,)


def test_rerank_without_a_stage_and_below_top_k_is_refused(embedder: Embedder, saved: SavedVectors) -> None:
    query = embedder.encode_text([TEXT])
    stage = RegionReranker(embedder.attention, images_in(embedder.bundle.path))
    with pytest.raises(ValueError, match="go together"):
        search(query, saved, top_k=3, space_id=embedder.space_id, rerank=6)
    with pytest.raises(ValueError, match="rerank is 2, below top_k, 3"):
        search(query, saved, top_k=3, space_id=embedder.space_id, rerank=2, second_stage=stage)


def test_an_id_without_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        images_in(tmp_path)("gone.png")


def run_cli(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    output = capsys.readouterr()
    return int(str(left.value.code or 0)), output.out, output.err


def test_the_command_line_reranks(
    attention_bundle: Path, saved: SavedVectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_vectors(tmp_path / "vectors.npz", saved)
    common = ("search", attention_bundle, tmp_path / "vectors.npz", TEXT, "--top-k", 2, "--provider", "cpu", "--json")
    code, out, _ = run_cli(capsys, *common, "--rerank", 5, "--images", attention_bundle)
    assert code == 0
    (row,) = json.loads(out)
    with Embedder.load(attention_bundle, provider="cpu") as embedder:
        stage = RegionReranker(embedder.attention, images_in(attention_bundle))
        vector = embedder.encode_text([TEXT])
        (hits,) = search(vector, saved, top_k=2, space_id=embedder.space_id, rerank=5, second_stage=stage)
    assert [hit["id"] for hit in row["hits"]] == [hit.id for hit in hits]
    for words, said in (
        (("--rerank", 5), "--rerank and --images go together"),
        (("--rerank", 1, "--images", attention_bundle), "--rerank is 1, below --top-k, 2"),
        (("--rerank", 5, "--images", attention_bundle, "--image"), "Leave one out"),
    ):
        code, _, err = run_cli(capsys, *common, *words)
        assert (code, said in err) == (2, True), err


def test_what_a_text_looks_at_is_what_the_graph_weighs(embedder: Embedder, saved: SavedVectors) -> None:
    path = embedder.bundle.path / saved.ids[0]
    found = explain(embedder, path, TEXT)
    tokens, vector = embedder.attention.encode_regions([path]), embedder.encode_text([TEXT])
    seen = embedder.attention.attend(vector, tokens)
    assert np.abs(found.weights - seen.weights[0, 0]).max() < 1e-6
    assert found.score == pytest.approx(float(seen.scores[0, 0]), abs=1e-6)
    assert found.cosine == pytest.approx(float(vector[0] @ saved.vectors[0]), abs=1e-5)
    assert found.picture.shape == (64, 64, 3)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR), np.int16)
    assert np.abs(found.picture.astype(np.int16) - expected).mean() < 3  # levels; another region is off by dozens


def test_the_heat_is_drawn_where_the_weight_is() -> None:
    weights = np.zeros((2, 4), np.float32)
    weights[1, 3] = 1.0  # lower right
    picture = Explanation(weights, 0.5, 0.5, np.full((32, 64, 3), 128, np.uint8)).draw()
    drawn = np.asarray(picture, np.int16)
    redness = drawn[..., 0] - drawn[..., 2]
    top, left = np.unravel_index(redness.argmax(), redness.shape)
    assert picture.size == (896, 448)
    assert top > 224
    assert left > 672
    assert redness[:100, :400].max() <= 2


def test_the_command_line_explains(
    attention_bundle: Path, saved: SavedVectors, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = attention_bundle / saved.ids[0]
    code, out, _ = run_cli(capsys, "explain", attention_bundle, image, TEXT, "--out", tmp_path / "map.png")
    assert (code, out.startswith("score ")) == (0, True)
    with Image.open(tmp_path / "map.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (448, 448))
    code, _, err = run_cli(capsys, "explain", attention_bundle, image, TEXT, "--out", tmp_path / "map.txt")
    assert (code, "expected .png, .jpg" in err) == (2, True)
