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
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import open_clip
import torch
import transformers
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from benchmarks.against.entries import Entry
from benchmarks.against.processes import PeerProcess
from benchmarks.against.protocol import Measure, ModelFiles, Setting
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import FASTEMBED_PYTHON
from benchmarks.imports.clip_speed import captions, jpegs, timed_in_turns
from mmalign_export import import_model
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads
from tests.export.sources.tiny import spread_out

Vectors = NDArray[np.float32]
Way = Callable[[], Vectors]
SIZES = (1, 32)
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


def save_onnx(source: Path, folder: Path) -> tuple[Path, Path]:
    """Write the towers of a folder of transformers as fastembed reads them: an image folder and a text folder."""
    image, text = folder / "image", folder / "text"
    if (text / "model.onnx").exists():
        return image, text
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
    return image, text


class Fastembed:
    """fastembed's entries for this model, in a process of its own."""

    def __init__(self, image: Path, text: Path, threads: int, log: Path) -> None:
        entry = Entry(name="fastembed", label="fastembed", peer="fastembed", settings={})
        files = ModelFiles("", "", str(image.resolve()), str(text.resolve()), is_clip=True)
        self.process = PeerProcess(entry, FASTEMBED_PYTHON, files, threads, log)

    def images(self, paths: list[str]) -> Vectors:
        """Return its vectors of picture files."""
        return self.process.vectors(Measure("image", tuple(paths), Setting()))

    def texts(self, texts: list[str]) -> Vectors:
        """Return its vectors of texts."""
        return self.process.vectors(Measure("text", tuple(texts), Setting()))


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
    fastembed = Fastembed(*towers, threads, options.work / "fastembed.log")
    paths = []
    for number, file in enumerate(jpegs(max(SIZES))):
        paths.append(str(options.work / f"{number}.jpg"))
        Path(paths[-1]).write_bytes(file)
    found = {}
    for kind in ("images", "captions"):
        for size in SIZES:
            items = paths[:size] if kind == "images" else captions(size)
            laps = timed_in_turns(_ways(kind, items, ours, sentences, fastembed), options.seconds, {INT8: 0.97})
            p50 = {name: 1000 * float(np.median(each)) for name, each in laps.items()}
            times = {
                f"{peer} / {own}": round(p50[peer] / p50[own], 2) for peer in p50 if peer not in ours for own in ours
            }
            found[f"{kind} {size}"] = {"p50_ms": p50, "times": times, "calls": len(laps["mmalign"])}
            print(f"{kind:9}{size:3}: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in p50.items()) + f"; {times}")
    fastembed.process.close()
    print(json.dumps({"environment": msgspec.to_builtins(watch.card()), "measured": found}))


def _ways(
    kind: str, items: list[str], ours: dict[str, Embedder], sentences: SentenceTransformer, fastembed: Fastembed
) -> dict[str, Way]:
    """Return each tool's way from items to unit vectors; int8 is last, since it is compared at its own bound."""
    is_image = kind == "images"

    def encode(embedder: Embedder) -> Vectors:
        return np.asarray(embedder.encode_image(items) if is_image else embedder.encode_text(items))

    return {
        "sentence-transformers": lambda: unit(np.asarray(sentences.encode(items, show_progress_bar=False))),
        "fastembed": lambda: unit(fastembed.images(items) if is_image else fastembed.texts(items)),
        **{name: lambda embedder=embedder: encode(embedder) for name, embedder in ours.items()},
    }


if __name__ == "__main__":
    main()
