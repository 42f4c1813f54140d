from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mmalign_export import import_modules
from mmalign_export.errors import ProofError, SourceError
from mmalign_runtime.spec import ImageSpec, Similarity
from mmalign_runtime.verify import verify_bundle
from tests.export.own_modules import IMAGE, TEXT, own_model

_MODEL = own_model()
_SIMILARITY = Similarity(kind="softmax", scale=25.0)
# What a library would do: no EXIF, and sides and offsets as Pillow's users cut them.
_SPEC = ImageSpec(
    size=48,
    resize="shortest_edge",
    shortest_edge=56,
    interpolation="bicubic",
    side_rounding="floor",
    crop_rounding="floor",
    jpeg_oversampling=0,
)


class _ByHand:
    """The same model, with pixels and words by other code: Pillow's resize, and a dictionary."""

    library = "by hand 1.0"

    def __init__(self, *, wrong_word: bool = False) -> None:
        self.vocabulary = _MODEL.text.tokenizer.get_vocab()
        if wrong_word:
            self.vocabulary = self.vocabulary | {"a": self.vocabulary["dog"]}

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self._ids(text)) for text in texts]

    def pixel_values(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        return np.stack([self._pixels(image.convert("RGB")) for image in images])

    def image_vectors(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return 3 * _MODEL.image.backbone(torch.from_numpy(pixel_values)).numpy()  # of any length

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            rows = [torch.tensor([self._ids(text)]) for text in texts]
            return np.concatenate([_MODEL.text.backbone(row, torch.ones_like(row)).numpy() for row in rows])

    def _ids(self, text: str) -> list[int]:
        encoded = _MODEL.text.tokenizer.encode(text.replace("\u0130", "i"))
        words = [self.vocabulary[token] for token in encoded.tokens]
        return words[: TEXT.context_length] or [TEXT.pad_token_id]

    def _pixels(self, image: Image.Image) -> NDArray[np.float32]:
        width, height = image.size
        short = min(width, height)
        sides = (56 * width // short, 56 * height // short)
        resized = image.resize(sides, Image.Resampling.BICUBIC)
        left, top = (sides[0] - 48) // 2, (sides[1] - 48) // 2
        levels = np.asarray(resized.crop((left, top, left + 48, top + 48)), np.float32) / 255
        values = (levels - np.array(_SPEC.mean)) / np.array(_SPEC.std)
        return values.transpose(2, 0, 1).astype(np.float32)


def _import(out: Path, reference: _ByHand | None, image: nn.Module | None = None, spec: ImageSpec = _SPEC) -> None:
    import_modules(
        _MODEL.image.backbone if image is None else image,
        _MODEL.text.backbone,
        out,
        image_spec=spec,
        text_spec=TEXT,
        tokenizer=_MODEL.text.tokenizer,
        similarity=_SIMILARITY,
        reference=reference,
        name="two small modules",
    )


@pytest.mark.filterwarnings("ignore")  # of Pillow, on pictures of the format matrix
def test_own_modules_are_proven_against_a_reference_of_one_s_own(tmp_path: Path) -> None:
    _import(tmp_path / "bundle", _ByHand())
    report = verify_bundle(tmp_path / "bundle")
    assert [case.name for case in (*report.cases, *report.checks) if not case.passed] == []
    assert "Proof against by hand 1.0" in (tmp_path / "bundle" / "README.md").read_text()


def test_a_reference_that_reads_words_otherwise_is_not_what_is_imported(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"token ids: \d+ of \d+ texts have other ids than by hand 1\.0 gives"):
        _import(tmp_path / "bundle", _ByHand(wrong_word=True))
    assert list(tmp_path.iterdir()) == []


def test_a_spec_that_cuts_a_pixel_beside_is_found(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"pixels: '\d+ x \d+' comes out"):
        _import(tmp_path / "bundle", _ByHand(), spec=IMAGE)  # rounds offsets half to even


def test_a_module_that_gives_no_vectors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"the image module gives of shape \(3, 3, 48, 48\); expected a tensor \(B, D\)"
    ):
        _import(tmp_path / "bundle", None, image=nn.Identity())
    with pytest.raises(
        SourceError, match=r"the image module cannot take pixel_values as its configuration makes them: "
    ):
        _import(tmp_path / "bundle", None, image=nn.Linear(5, 5))
