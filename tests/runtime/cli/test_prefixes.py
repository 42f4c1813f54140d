"""Vectors of their first components: asked for by number, kept apart by the id of their space, verified whole."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import Embedder, InputError, SpaceMismatchError, compat, load_vectors, search, verify_bundle
from mmalign_runtime.errors import BundleError, EngineError, PrefixError
from mmalign_runtime.prefixes import prefix_of

TEXTS = ["a dog", "a red house", "the big old tree"]


@pytest.fixture
def bundle(tiny_bundle: Path, edit_spec) -> Path:
    """The tiny bundle, of 16 components, as if its first 4 and 8 had been trained to be vectors."""
    edit_spec(lambda spec: msgspec.structs.replace(spec, prefix_dims=(8, 4)))
    return tiny_bundle


def test_a_prefix_is_the_first_components_divided_by_their_length(bundle: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with Embedder.load(bundle) as whole, Embedder.load(bundle, dim=8) as short:
        for kind, items in (("text", TEXTS), ("image", [pixels, Image.fromarray(pixels).resize((9, 12))])):
            expected = getattr(whole, f"encode_{kind}")(items).astype(np.float64)[:, :8]
            expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
            found = getattr(short, f"encode_{kind}")(items)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert [item.vector.shape for item in short.stream_texts(TEXTS)] == [(8,)] * 3
        assert (short.embed_dim, short.info().embed_dim, short.info().dim) == (8, 8, 8)
        assert short.space_id == short.info().space_id == f"{whole.space_id}-dim8"
        assert not compat(short, whole)


def test_all_components_are_the_whole_vector(bundle: Path) -> None:
    with Embedder.load(bundle, dim=16) as embedder, Embedder.load(bundle) as whole:
        assert (embedder.space_id, embedder.info().dim) == (whole.space_id, None)
        np.testing.assert_array_equal(embedder.encode_text(TEXTS), whole.encode_text(TEXTS))


@pytest.mark.parametrize("dim", [5, 17])
def test_a_prefix_that_is_not_declared_is_refused_by_name(bundle: Path, dim: int) -> None:
    with pytest.raises(PrefixError, match=f"dim is {dim}, and the bundle declares prefixes of 4, 8 components of its"):
        Embedder.load(bundle, dim=dim)


def test_a_bundle_without_prefixes_says_so(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="dim is 8, and the bundle declares no prefix of its vectors of 16"):
        Embedder.load(tiny_bundle, dim=8)


def test_an_embedder_of_prefixes_verifies_whole_vectors(bundle: Path) -> None:
    report = verify_bundle(bundle, dim=4, against=bundle)
    assert report.passed
    assert (report.runtime.embed_dim, report.against is not None and report.against.passed) == (16, True)
    with Embedder.load(bundle, dim=4, verify="golden") as embedder:
        assert embedder.encode_text(TEXTS).shape == (3, 4)


def test_the_attention_asks_for_whole_vectors(bundle: Path) -> None:
    with (
        Embedder.load(bundle, dim=4) as embedder,
        pytest.raises(PrefixError, match=r"gives their first 4 components\. Load it without dim"),
    ):
        _ = embedder.attention


def test_components_that_are_all_zero_are_no_vector() -> None:
    with pytest.raises(EngineError, match="the first 2 components of a vector are all 0"):
        prefix_of(np.array([[0, 0, 1]], np.float32), 2)


def test_saved_prefixes_are_searched_by_prefixes_alone(bundle: Path, tmp_path: Path, cli) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    words = ("embed", bundle, tmp_path / "texts.txt", "--kind", "text", "--out")
    assert cli(*words, tmp_path / "short.npz", "--dim", 8).code == 0
    assert cli(*words, tmp_path / "whole.npz").code == 0
    short, whole = load_vectors(tmp_path / "short.npz"), load_vectors(tmp_path / "whole.npz")
    assert (short.vectors.shape, short.space_id) == ((3, 8), f"{whole.space_id}-dim8")
    found = json.loads(cli("search", bundle, tmp_path / "short.npz", *TEXTS, "--dim", 8, "--json").out)
    assert [row["hits"][0]["score"] for row in found] == pytest.approx([1] * 3, abs=1e-5)
    refused = cli("search", bundle, tmp_path / "short.npz", "a dog")
    assert (refused.code, "ask for them with dim=8 (--dim 8)" in refused.err) == (2, True)
    refused = cli("search", bundle, tmp_path / "whole.npz", "a dog", "--dim", 4)
    assert (refused.code, "ask for whole vectors: leave dim out" in refused.err) == (2, True)
    with pytest.raises(SpaceMismatchError, match=r"ask for them with dim=8"):
        compat(whole, short).require()
    with pytest.raises(InputError, match=r"query has shape \(3, 16\), expected \(Q, 8\)"):
        search(whole.vectors, short, top_k=1, space_id=short.space_id)


def test_a_folder_of_prefixes_goes_on_with_the_same_number_only(bundle: Path, tmp_path: Path, cli) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    words = ("embed", bundle, tmp_path / "texts.txt", "--kind", "text", "--out", tmp_path / "out", "--dim")
    assert cli(*words, 8).code == 0
    manifest = json.loads((tmp_path / "out" / "_mmalign.json").read_text())
    assert (manifest["config"]["dim"], manifest["embed_dim"]) == (8, 8)
    assert load_vectors(tmp_path / "out").vectors.shape == (3, 8)
    assert cli(*words, 8, "--resume").code == 0
    other = cli(*words, 4, "--resume")
    assert (other.code, "--dim is 4, was 8" in other.err) == (2, True)
