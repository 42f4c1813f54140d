from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.data import Origin, Pair
from mmalign.dual_model import Arrays, DualModel, TextModelTower, Vectors
from mmalign_export.golden import GoldenFile, golden_files, golden_texts
from mmalign_runtime.image import decode_image
from mmalign_runtime.spec import ImageSpec
from tests.tolerances import FEATURES


def test_the_format_matrix_covers_the_design() -> None:
    opened = {file.name: Image.open(io.BytesIO(file.data)) for file in golden_files(())}
    assert opened["landscape 3x2"].width * 2 == opened["landscape 3x2"].height * 3
    assert opened["portrait 9x16"].width * 16 == opened["portrait 9x16"].height * 9
    assert opened["very large"].size == (5496, 3672)
    modes = {name: image.mode for name, image in opened.items()}
    assert (modes["grey"], modes["RGBA"], modes["LA"], modes["CMYK"]) == ("L", "RGBA", "LA", "CMYK")
    assert (modes["palette"], modes["16-bit"], modes["one bit"]) == ("P", "I;16", "1")
    assert opened["progressive"].info["progressive"]
    assert modes["float TIFF"] == "F"
    assert opened["wide gamut"].info["icc_profile"]
    assert opened["animated GIF"].n_frames == opened["animated WebP"].n_frames == 2
    assert opened["WebP"].format == "WEBP"
    assert [opened[f"EXIF orientation {value}"].getexif()[0x0112] for value in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize("file", golden_files(()), ids=lambda file: file.name)
def test_every_golden_file_decodes(file: GoldenFile) -> None:
    pixels = decode_image(file.data, ImageSpec())
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *(("AVIF", ".avif"), ("BMP", ".bmp"), ("GIF", ".gif"), ("HEIF", ".heic"), ("JPEG", ".jpg")),
        *(("JPEG2000", ".jp2"), ("PNG", ".png"), ("PPM", ".ppm"), ("QOI", ".qoi"), ("TIFF", ".tif"), ("WEBP", ".webp")),
    ],
)
def test_a_run_s_own_image_of_every_format_is_named_by_its_bytes(kind: str, suffix: str, tmp_path: Path) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="pillow-heif writes the HEIC file").register_heif_opener()
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(buffer, kind)
    pair = Pair(buffer.getvalue(), ("red",), "red", Origin(tmp_path / "a.parquet", row=0))
    own = golden_files((pair,))[-1]
    assert (own.name, own.suffix, own.data) == ("own image 1", suffix, buffer.getvalue())
    assert decode_image(own.data, ImageSpec()).shape == (16, 24, 3)


def test_golden_files_are_the_same_bytes_each_time() -> None:
    assert golden_files(()) == golden_files(())


def test_texts_cover_the_design() -> None:
    texts = dict(golden_texts((), context_length=16))
    assert texts["empty"] == ""
    assert len(texts["longer than the context"].split()) > 16
    assert {"accents", "Chinese", "emoji", "one word"} <= texts.keys()


def test_inputs_that_run_together_keep_their_order_and_their_vectors(
    model: DualModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["dog", "cat", "a photo of a dog", "a", *["cat dog"] * 20, "dog"]
    inputs = [model.text.prepare([text]) for text in texts]
    alone = np.concatenate([model.text.run(each) for each in inputs])
    sizes: list[int] = []
    run = TextModelTower.run

    def counted(tower: TextModelTower, arrays: Arrays) -> Vectors:
        sizes.append(len(arrays["input_ids"]))
        return run(tower, arrays)

    monkeypatch.setattr(TextModelTower, "run", counted)
    np.testing.assert_allclose(model.text.run_each(inputs), alone, rtol=0, atol=FEATURES.bound)
    assert sum(sizes) == len(texts)
    assert max(sizes) == 8
