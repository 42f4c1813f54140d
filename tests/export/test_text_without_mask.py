"""A bundle whose text tower takes ids alone, as SigLIP's does: padding is seen as tokens are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mmalign_runtime import Embedder, open_bundle, verify_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.engine.engines import installed_engines
from mmalign_runtime.spec import SPEC_NAME, TextInputs, TextTower, encode_spec
from tests.export.canaries import reseal

BUNDLE = Path(__file__).parents[1] / "runtime" / "fixtures" / "tiny_bundle"
LENGTH, DIM = 16, 16
TABLE = np.random.default_rng(0).standard_normal((400, DIM)).astype(np.float32)


def text_model() -> onnx.ModelProto:
    """ids (B, L) -> text_embeds (B, D): the mean of the tokens' rows, of unit length."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["mean"], keepdims=0),
        helper.make_node("ReduceL2", ["mean", "axis"], ["length"], keepdims=1),
        helper.make_node("Div", ["mean", "length"], ["text_embeds"]),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("text_embeds", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def expected(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    mean = TABLE[ids].mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = shutil.copytree(BUNDLE, tmp_path / "bundle")
    spec = open_bundle(folder).spec
    onnx.save(text_model(), folder / spec.artifact("text").file)
    text = spec.tower("text", TextTower)
    text = msgspec.structs.replace(
        text, inputs=TextInputs(input_ids="ids"), spec=msgspec.structs.replace(text.spec, padding="fixed")
    )
    changed = msgspec.structs.replace(spec, towers={**spec.towers, "text": text})
    golden = load_golden(open_bundle(BUNDLE))
    cases = tuple(
        msgspec.structs.replace(
            case, embedding=tuple(expected(np.array([[*case.input_ids, *[0] * LENGTH][:LENGTH]]))[0].tolist())
        )
        for case in golden.texts
    )
    (folder / spec.golden).write_bytes(msgspec.json.encode(msgspec.structs.replace(golden, texts=cases)))
    (folder / SPEC_NAME).write_bytes(encode_spec(changed))
    reseal(folder)
    return folder


@pytest.mark.parametrize("engine", [name for name in installed_engines() if name != "aotinductor"])
def test_it_is_fed_ids_alone_and_verifies(bundle: Path, engine: str) -> None:
    assert verify_bundle(bundle, engine=engine).passed
    with Embedder.load(bundle, engine=engine, towers=("text",)) as embedder:
        found = embedder.encode_text(["a photo of a dog", "dog"])
        tokens = embedder.text.tokenizer.encode(["a photo of a dog", "dog"])
    assert tokens.input_ids.shape == (2, LENGTH)
    np.testing.assert_allclose(found, expected(tokens.input_ids), atol=1e-6)


def test_bundle_json_says_that_there_is_no_mask(bundle: Path) -> None:
    told = json.loads((bundle / SPEC_NAME).read_bytes())
    assert told["towers"]["text"]["inputs"] == {"input_ids": "ids", "attention_mask": None}
