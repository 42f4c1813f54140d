"""CLIP ViT-B/32 from file to vector: the imported bundle, sentence-transformers and fastembed, in turns, in one run.

    python -m benchmarks.imports.clip_peers WORK [--seconds 30] [--int8 BUNDLE]

One set of random weights of the real size and CLIP's own vocabulary, in the three shapes that the tools take: the
folder that transformers saves (sentence-transformers), and its towers as ONNX files that take any number of tokens, as
the published ones do (fastembed, in the environment of `make against-setup`). Each tool works as it does without
options, with the same number of threads, on the same JPEG files and captions; parity is checked before anything is
timed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import open_clip
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from benchmarks.against.entries import Entry
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Measure, ModelFiles, Setting
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import FASTEMBED_PYTHON
from benchmarks.imports.clip_speed import Kind, Vectors, Way, captions, compare, jpegs
from mmalign_export import import_model
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads
from tests.export.sources.tiny import spread_out

SIZES: dict[Kind, tuple[int, ...]] = {"images": (1, 32), "captions": (1, 32)}
_KINDS: dict[Kind, Literal["image", "text"]] = {"images": "image", "captions": "text"}
_FASTEMBED = Entry(name="fastembed", label="fastembed", peer="fastembed", settings={})
INT8 = "mmalign int8"
_START, _END = "<|startoftext|>", "<|endoftext|>"


def save_clip(folder: Path) -> Path:
    """Write ViT-B/32 as transformers saves it, and the file that tells sentence-transformers what it is."""
    model_folder = folder / "0_CLIPModel"
    if (folder / "modules.json").exists():
        return folder
    torch.manual_seed(0)
    words = open_clip.tokenizer.SimpleTokenizer()
    pieces = [*list(words.encoder)[:-2], _START, _END]
    tokenizer = transformers.CLIPTokenizer(
        vocab={piece: at for at, piece in enumerate(pieces)}, merges=list(words.bpe_ranks), model_max_length=77
    )
    config = transformers.CLIPConfig()
    config.text_config.eos_token_id = tokenizer.eos_token_id
    model = transformers.CLIPModel(config)
    spread_out(model)
    for part in (model, tokenizer, transformers.CLIPImageProcessor()):
        part.save_pretrained(model_folder)
    modules = [{"idx": 0, "name": "0", "path": model_folder.name, "type": "sentence_transformers.models.CLIPModel"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


class _ImageTower(nn.Module):
    def __init__(self, model: transformers.CLIPModel) -> None:
        super().__init__()
        self.tower, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.projection(self.tower(pixel_values=pixel_values).pooler_output)


class _TextTower(nn.Module):
    def __init__(self, model: transformers.CLIPModel) -> None:
        super().__init__()
        self.tower, self.projection = model.text_model, model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.projection(self.tower(input_ids=input_ids, attention_mask=attention_mask).pooler_output)


def save_onnx(source: Path, folder: Path) -> ModelFiles:
    """Write the towers of a folder of transformers as fastembed reads them: an image folder and a text folder."""
    image, text = folder / "image", folder / "text"
    files = ModelFiles("", "", str(image.resolve()), str(text.resolve()), is_clip=True)
    if (text / "model.onnx").exists():
        return files
    model = transformers.CLIPModel.from_pretrained(source).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(source)
    tokens = tokenizer(["a dog", "a dog on the beach"], padding=True, return_tensors="pt")
    examples = {image: (torch.zeros(2, 3, 224, 224),), text: (tokens.input_ids, tokens.attention_mask)}
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=77)
    for place, tower, names, axes in (
        (image, _ImageTower(model), ["pixel_values"], {0: batch}),
        (text, _TextTower(model), ["input_ids", "attention_mask"], {0: batch, 1: length}),
    ):
        place.mkdir(parents=True, exist_ok=True)
        shapes = tuple(axes for _ in names)
        program = torch.onnx.export(
            tower.eval(), examples[place], dynamo=True, dynamic_shapes=shapes, input_names=names, opset_version=18
        )
        assert program is not None
        program.save(place / "model.onnx", external_data=False)
    transformers.CLIPImageProcessor.from_pretrained(source).save_pretrained(image)
    tokenizer.save_pretrained(text)
    model.config.text_config.save_pretrained(text)
    return files


def unit(vectors: Vectors) -> Vectors:
    """Return vectors (N, D) at length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Make what is not there yet, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each of the four comparisons")
    parser.add_argument("--int8", type=Path, help="the bundle quantized, so that its int8 takes part")
    options = parser.parse_args()
    folder, bundle = save_clip(options.work / "clip"), options.work / "clip.bundle"
    if not bundle.exists():
        import_model(folder, bundle)
    towers = save_onnx(folder / "0_CLIPModel", options.work / "onnx")
    threads = available_threads()
    torch.set_num_threads(threads)
    watch = Watch("python -m benchmarks.imports.clip_peers WORK", threads)
    ours = {"mmalign": Embedder.load(bundle, provider="cpu", num_threads=threads)}
    if options.int8:
        ours[INT8] = Embedder.load(options.int8, provider="cpu", num_threads=threads, precision="int8")
    sentences = SentenceTransformer(str(folder), device="cpu")
    paths = [options.work / f"{number}.jpg" for number in range(max(SIZES["images"]))]
    for path, file in zip(paths, jpegs(len(paths)), strict=True):
        path.write_bytes(file)

    def ways(kind: Kind, number: int) -> dict[str, Way]:
        """Return each tool's way from items to unit vectors."""
        is_image = kind == "images"
        items = [str(path) for path in paths[:number]] if is_image else captions(number)
        own = {
            name: partial(embedder.encode_image if is_image else embedder.encode_text, items)
            for name, embedder in ours.items()
        }
        return {
            "sentence-transformers": lambda: unit(np.asarray(sentences.encode(items, show_progress_bar=False))),
            "fastembed": lambda: unit(fastembed.vectors(Measure(_KINDS[kind], tuple(items), Setting()))),
            **own,
        }

    with PeerProcess(_FASTEMBED, FASTEMBED_PYTHON, towers, threads, options.work / "fastembed.log") as fastembed:
        found = compare(ways, SIZES, options.seconds, {INT8: 0.97})
    print(json.dumps({"environment": msgspec.to_builtins(watch.card()), "measured": found}))


if __name__ == "__main__":
    main()
