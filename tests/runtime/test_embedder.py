from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import BundleError, Embedder, ItemError
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.errors import EngineError
from mmalign_runtime.spec import BundleSpec

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]

# Another batch size sums float32 in another order: a few units in the last place of numbers below 1.
ATOL = 1e-6

TEXTS = ["a dog", "", "a red house in the big tree " * 20, "café", "一只狗", "🐶"]


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    sizes = [(40, 60), (61, 33), (1, 1), (7, 90), (224, 224)]
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_vectors_are_unit_length_float32(embedder: Embedder, images: list[np.ndarray]) -> None:
    for vectors, count in ((embedder.encode_image(images), len(images)), (embedder.encode_text(TEXTS), len(TEXTS))):
        assert vectors.shape == (count, embedder.embed_dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=ATOL)


def test_an_empty_list_gives_no_rows(embedder: Embedder) -> None:
    assert embedder.encode_image([]).shape == embedder.encode_text([]).shape == (0, embedder.embed_dim)
    partial = embedder.encode_text([], on_error="skip")
    assert partial.vectors.shape == (0, embedder.embed_dim)
    assert partial.indices.shape == (0,)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_order_and_vectors_do_not_depend_on_the_batch(
    embedder: Embedder, images: list[np.ndarray], batch_size: int
) -> None:
    alone = np.concatenate([embedder.encode_image([image]) for image in images])
    np.testing.assert_allclose(embedder.encode_image(images, batch_size=batch_size), alone, atol=ATOL)
    alone = np.concatenate([embedder.encode_text([text]) for text in TEXTS])
    np.testing.assert_allclose(embedder.encode_text(TEXTS, batch_size=batch_size), alone, atol=ATOL)


def test_prepared_images_go_through_the_tower_as_many_at_once_as_suit_it(
    embedder: Embedder, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What verify and bench call: a batch of all golden pictures would take gigabytes in a large tower."""
    prepared = [embedder.image.preprocess(images[number % len(images)]) for number in range(20)]
    run, sizes = embedder.image.tower, []

    def watched(pixel_values: np.ndarray) -> np.ndarray:
        sizes.append(len(pixel_values))
        return run(pixel_values)

    monkeypatch.setattr(embedder.image, "tower", watched)
    found = embedder.image.vectors(prepared)
    assert sizes == [8, 8, 4]
    np.testing.assert_allclose(found, embedder.encode_image([images[n % len(images)] for n in range(20)]), atol=1e-6)


def test_different_items_get_different_vectors(embedder: Embedder, images: list[np.ndarray]) -> None:
    assert np.abs(np.diff(embedder.encode_image(images), axis=0)).max(axis=1).min() > 100 * ATOL


def test_one_bad_item_raises_and_is_named(embedder: Embedder, images: list[np.ndarray]) -> None:
    with pytest.raises(ItemError, match=r"item 2 \(missing\.png\), open"):
        embedder.encode_image([*images[:2], "missing.png"], batch_size=2)


def test_skip_costs_the_bad_items_and_nothing_else(embedder: Embedder, images: list[np.ndarray]) -> None:
    items = [images[0], "missing.png", images[1], b"", images[2]]
    partial = embedder.encode_image(items, batch_size=2, on_error="skip")
    assert partial.indices.tolist() == [0, 2, 4]
    assert [(error.index, error.stage) for error in partial.errors] == [(1, "open"), (3, "open")]
    np.testing.assert_allclose(partial.vectors, embedder.encode_image(images[:3]), atol=ATOL)


def test_skip_works_when_a_whole_batch_is_bad(embedder: Embedder) -> None:
    partial = embedder.encode_text(["\ud83d", "\ud83d", "a dog"], batch_size=2, on_error="skip")
    assert partial.indices.tolist() == [2]
    assert [error.index for error in partial.errors] == [0, 1]


@pytest.mark.parametrize("single", ["dog.jpg", Path("dog.jpg"), b"dog"])
def test_a_single_item_is_no_list(embedder: Embedder, single: object) -> None:
    with pytest.raises(TypeError, match=r"pass \[items\]"):
        embedder.encode_image(single)


def test_a_batch_size_below_one_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="batch_size is 0"):
        embedder.encode_text(["a dog"], batch_size=0)


def test_many_threads_get_the_same_vectors(embedder: Embedder, images: list[np.ndarray]) -> None:
    expected_images, expected_texts = embedder.encode_image(images), embedder.encode_text(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        image_runs = [pool.submit(embedder.encode_image, images) for _ in range(16)]
        text_runs = [pool.submit(embedder.encode_text, TEXTS) for _ in range(16)]
    for run in image_runs:
        np.testing.assert_array_equal(run.result(), expected_images)
    for run in text_runs:
        np.testing.assert_array_equal(run.result(), expected_texts)


def test_one_tower_can_be_loaded_alone(tiny_bundle: Path) -> None:
    text_only = Embedder.load(tiny_bundle, provider="cpu", towers=["text"])
    assert text_only.encode_text(["a dog"]).shape == (1, text_only.embed_dim)
    assert [tower.name for tower in text_only.info().towers] == ["text"]
    with pytest.raises(BundleError, match="the image tower was not loaded: add 'image'"):
        text_only.encode_image([])


def test_an_unknown_tower_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"towers is \['audio'\], expected a sequence with some of image, text"):
        Embedder.load(tiny_bundle, towers=["audio"])  # type: ignore[list-item]


def test_a_precision_that_a_tower_lacks_names_those_it_has(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="the text tower has no int8 file; it offers fp32"):
        Embedder.load(tiny_bundle, precision="int8", towers=["text"])


def test_a_tower_loads_in_a_precision_that_the_other_lacks(tiny_bundle: Path, edit_spec: SpecEdit) -> None:
    def image_only_fp16(spec: BundleSpec) -> BundleSpec:
        half = msgspec.structs.replace(spec.artifact("image"), precision="fp16")
        return msgspec.structs.replace(spec, artifacts=(half, spec.artifact("text")))

    edit_spec(image_only_fp16)
    loaded = Embedder.load(tiny_bundle, precision="fp16", towers=["image"])
    assert loaded.info().variant_id.startswith("fp16-")


def test_info_says_what_was_chosen(embedder: Embedder) -> None:
    info = embedder.info()
    assert (info.provider_asked, info.provider, info.precision, info.num_threads) == ("cpu", "cpu", "fp32", 2)
    assert (info.space_id, info.embed_dim) == (embedder.space_id, embedder.bundle.spec.embed_dim)
    assert [tower.name for tower in info.towers] == ["image", "text"]
    assert all(tower.nodes_by_provider()["CPUExecutionProvider"] > 0 for tower in info.towers)
    assert embedder.logit_scale == embedder.similarity.scale == pytest.approx(1 / 0.07)


def test_pil_images_and_arrays_agree(embedder: Embedder, images: list[np.ndarray]) -> None:
    from_pil = embedder.encode_image([Image.fromarray(image) for image in images])
    np.testing.assert_array_equal(from_pil, embedder.encode_image(images))


@pytest.mark.parametrize(
    "settings", [{"on_error": "ignore"}, {"on_error": None}, {"batch_size": 0}, {"batch_size": "8"}]
)
def test_a_misspelt_setting_is_refused_before_the_first_item(embedder: Embedder, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        embedder.stream_texts(["a dog"], **settings)  # type: ignore[arg-type]


def test_one_item_in_place_of_a_list_is_refused(embedder: Embedder) -> None:
    one = Image.new("RGB", (9, 9))
    for single in (one, np.asarray(one), "a.jpg", b"bytes", Path("a.jpg")):
        with pytest.raises(TypeError, match=r"expected a list: pass \[items\]"):
            embedder.encode_image(single)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [np.float32("nan"), np.float32(2)])
def test_a_tower_that_gives_no_unit_vectors_is_an_error(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, broken: np.float32
) -> None:
    whole = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda session, feeds: whole(session, feeds) * broken)
    with pytest.raises(EngineError, match="the text tower gave a vector whose length is off by"):
        embedder.encode_text(["a dog"])


def test_a_tower_of_another_width_is_an_error(tiny_bundle: Path, edit_spec: SpecEdit) -> None:
    edit_spec(lambda spec: msgspec.structs.replace(spec, embed_dim=999))
    with Embedder.load(tiny_bundle, provider="cpu") as wrong, pytest.raises(EngineError, match=r"expected \(B, 999\)"):
        wrong.encode_text(["a dog"])
