from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional

from mmalign_export import import_modules
from mmalign_export.errors import ProofError, SourceError
from mmalign_export.sources.protocol import Original
from mmalign_export.sources.reference import CheckedReference
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


def _import(
    out: Path,
    reference: Original | None,
    image: nn.Module = _MODEL.image.backbone,
    text: nn.Module = _MODEL.text.backbone,
    tokenizer: Tokenizer = _MODEL.text.tokenizer,
    spec: ImageSpec = _SPEC,
) -> None:
    import_modules(
        image,
        text,
        out,
        image_spec=spec,
        text_spec=TEXT,
        tokenizer=tokenizer,
        similarity=_SIMILARITY,
        reference=reference,
        name="two small modules",
    )


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
        SourceError, match=r"the image module gives a tensor \(3, 3, 48, 48\) of float32; expected a tensor \(B, D\)"
    ):
        _import(tmp_path / "bundle", None, image=nn.Identity())
    with pytest.raises(
        SourceError, match=r"the image module cannot take pixel_values as its configuration makes them: "
    ):
        _import(tmp_path / "bundle", None, image=nn.Linear(5, 5))


class _Changed(nn.Module):
    """A module whose vectors (B, D) another function changes."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *inputs: Tensor) -> object:
        return self.change(self.inner(*inputs))


OTHER_OUTPUTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "a tuple": (lambda found: (found,), r"gives tuple; expected a tensor \(B, D\) of floats"),
    "a dictionary": (lambda found: {"embeds": found}, r"gives dict; expected a tensor \(B, D\) of floats"),
    "one axis more": (lambda found: found[:, None], r"gives a tensor \(3, 1, 12\) of float32; expected"),
    "whole numbers": (lambda found: (100 * found).long(), r"gives a tensor \(3, 12\) of int64; expected"),
    "complex numbers": (lambda found: found.to(torch.complex64), r"gives a tensor \(3, 12\) of complex64; expected"),
    "batch-mates": (
        lambda found: found + 0.3 * found.mean(0),
        r"gives .* beside others than alone .* depend on the batch",
    ),
    "statistics of the batch": (
        lambda found: functional.batch_norm(found, None, None, training=True),
        r"cannot take its inputs, several items or one: .*more than 1 value per channel",
    ),
    "dropout": (
        lambda found: functional.dropout(found, training=True),
        r"gives .* the second time .* Turn dropout and noise off",
    ),
}


@pytest.mark.parametrize("name", OTHER_OUTPUTS)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_what_a_module_gives_is_tried(tower: str, name: str, tmp_path: Path) -> None:
    change, seen = OTHER_OUTPUTS[name]
    towers = {"image": _MODEL.image.backbone, "text": _MODEL.text.backbone}
    towers[tower] = _Changed(towers[tower], change)
    with pytest.raises(SourceError, match=f"the {tower} module {seen}"):
        _import(tmp_path / "bundle", None, **towers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_other_numbers_are_not_imported(dtype: torch.dtype, tmp_path: Path) -> None:
    image = copy.deepcopy(_MODEL.image.backbone).to(dtype)
    with pytest.raises(SourceError, match=rf"the image module has weights of {dtype}; .* Call \.float\(\) on it"):
        _import(tmp_path / "bundle", None, image=image)


def test_vectors_that_are_all_alike_prove_nothing(tmp_path: Path) -> None:
    text = _Changed(_MODEL.text.backbone, lambda found: 1 + 0 * found)
    with pytest.raises(SourceError, match="the text vectors of all golden cases are alike"):
        _import(tmp_path / "bundle", None, text=text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ({}, r"the tokenizer cannot read .* with a token for what it does not know"),
        ({"dog": 5}, r"the tokenizer cannot read .* with a token for what it does not know"),
        (
            {"dog": 900_000, "<unk>": 900_001},
            r"the text module cannot take its inputs, several items or one: IndexError",
        ),
    ],
)
def test_a_tokenizer_that_is_not_the_module_s_is_named(words: dict[str, int], seen: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=seen):
        _import(tmp_path / "bundle", None, tokenizer=Tokenizer(models.WordLevel(words, unk_token="<unk>")))
    assert list(tmp_path.iterdir()) == []


def _raise(found: object) -> object:
    raise KeyError("pixels")


WRONG_ANSWERS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "an error in its tokens": ("token_ids", _raise, r"token_ids raised KeyError: 'pixels'\. Correct it"),
    "an error in its pixels": ("pixel_values", _raise, r"pixel_values raised KeyError: 'pixels'"),
    "few ids": ("token_ids", lambda found: found[:3], r"token_ids gives 3 rows; expected \d+, one a text"),
    "words for ids": ("token_ids", lambda found: [["a"]], r"token_ids raised ValueError: invalid literal"),
    "nothing": ("image_vectors", lambda found: None, r"image_vectors raised TypeError|gives an array of shape \(\)"),
    "a row too few": ("text_vectors", lambda found: found[1:], r"text_vectors gives an array of shape \(10, 12\)"),
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_a_reference_that_answers_otherwise_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, change, seen = WRONG_ANSWERS[name]
    answer = getattr(_ByHand, method)
    monkeypatch.setattr(_ByHand, method, lambda self, asked: change(answer(self, asked)))
    with pytest.raises(SourceError, match=f"the reference's {seen}"):
        _import(tmp_path / "bundle", _ByHand())
    assert list(tmp_path.iterdir()) == []


def test_a_reference_that_is_none_and_tensors_of_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the reference is str and has no library, token_ids, .*Leave it out"):
        _import(tmp_path / "bundle", cast("Original", "transformers"))
    reference = _ByHand()
    texts = ["a dog", "a photo"]
    vectors = reference.text_vectors(texts)
    reference.text_vectors = lambda texts: torch.from_numpy(vectors)  # type: ignore[method-assign]
    np.testing.assert_array_equal(CheckedReference(reference).text_vectors(texts), vectors)
