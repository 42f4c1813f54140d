"""Pairs of ONNX files, as transformers.js, immich, fastembed and Qdrant publish them, with their configurations.

The graphs stay as they are, but for what a bundle's towers have to be: named inputs, one vector of unit length, any
batch. What they are proven against is onnxruntime on the files as they came, with their own preprocessing: pixels are
those of the library that the configuration is written for, tokens those of tokenizers on the tokenizer.json beside the
model.
Shapes: B batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import transformers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, ModelTower, TextModelTower, Vectors
from mmalign.signature import image_inputs, text_inputs
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import licence_of, source_files
from mmalign_export.sources.onnx_graph import external_files, read_graph
from mmalign_export.sources.onnx_inputs import OnnxTexts, family_of, picture_inputs, text_inputs_of
from mmalign_export.sources.onnx_place import OnnxPlace, find_pair
from mmalign_export.sources.onnx_tower import OnnxTower, open_tower, to_backbone
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import check_widths, refuse_options
from mmalign_runtime.spec import Choice, ImageSpec, Modality, Similarity, SourceFile, TextSpec

_KIND = "onnx_pair"
_READS = ("text", "orientation", "alpha", "length", "jpeg_oversampling", "licence")
_ALONE = "one item at a time, in a loop of the graph: the file takes no more"
# No file of a pair holds the scale; CLIP's is 100 when its training ends, and no vector depends on it.
_SIMILARITY = Similarity(kind="softmax", scale=100.0)


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the pair at a place, the text tower at `options.text` where it lies apart.

    Raises SourceError for files that are damaged, not float32, no towers, or not of one model.
    """
    refuse_options(_KIND, options, _READS)
    place = find_pair(str(location), options.text)
    graphs = read_graph(place.image), read_graph(place.text)
    spec, pixels = picture_inputs(place, options)
    texts, original_texts = text_inputs_of(place, graphs[1], options)
    has_pooler = family_of(place.image_folder).startswith("siglip")
    sides: tuple[tuple[int, ...], tuple[int, ...]] = (3, *spec.shape), (texts.spec.context_length,)
    image = open_tower(place.image, graphs[0], "image", sides[0], has_pooler=has_pooler)
    text = open_tower(place.text, graphs[1], "text", sides[1], has_pooler=has_pooler)
    check_widths(str(location), {"image": image.embed_dim, "text": text.embed_dim})
    original = OnnxOriginal(
        image=image,
        text=text,
        pixels=pixels,
        tokens=original_texts,
        outputs=(_library_output(place, graphs[0], image), _library_output(place, graphs[1], text)),
    )
    said = choices(place, spec, texts.spec, (image, text), graphs, options)
    towers: dict[Modality, ModelTower] = {
        "image": _image_tower(image, graphs[0], spec),
        "text": _text_tower(text, graphs[1], texts),
    }
    model = DualModel(towers=towers, similarity=_SIMILARITY, origin=_origin(location, place, options))
    return Imported(model=model, original=original, choices=said)


def _library_output(place: OnnxPlace, graph: ir.Model, tower: OnnxTower) -> str:
    """Return the output that the library takes: transformers.js by its name, immich and fastembed the first one."""
    return tower.output if place.layout == "transformers.js" else str(graph.graph.outputs[0].name)


def _image_tower(tower: OnnxTower, graph: ir.Model, spec: ImageSpec) -> ImageModelTower:
    backbone = to_backbone(tower, graph, "image_embeds", (3, *spec.shape))
    return ImageModelTower(
        backbone=backbone,
        feature_dim=tower.embed_dim,
        embed_dim=tower.embed_dim,
        inputs=image_inputs(spec),
        architecture="onnx",
        definition=f"onnx {backbone.digest}",
        spec=spec,
    )


def _text_tower(tower: OnnxTower, graph: ir.Model, texts: OnnxTexts) -> TextModelTower:
    spec = texts.spec
    length = "sequence_length" if spec.padding == "longest" else spec.context_length
    backbone = to_backbone(tower, graph, "text_embeds", (length,))
    has_mask = "attention_mask" in tower.names.values()
    return TextModelTower(
        backbone=backbone,
        feature_dim=tower.embed_dim,
        embed_dim=tower.embed_dim,
        inputs=text_inputs(texts.spec)[: 2 if has_mask else 1],
        architecture="onnx",
        definition=f"onnx {backbone.digest}",
        spec=texts.spec,
        tokenizer=texts.tokenizer,
    )


def _origin(location: str | Path, place: OnnxPlace, options: SourceOptions) -> ModelOrigin:
    folder = place.image_folder.parent if place.layout == "immich" else place.image_folder
    return ModelOrigin(
        kind=_KIND,
        name=Path(str(location)).name,
        library="onnxruntime",
        versions={"onnxruntime": onnxruntime.__version__, "transformers": transformers.__version__},
        weights_licence=options.licence or licence_of(folder),
        files=_files(place),
    )


def _files(place: OnnxPlace) -> dict[str, SourceFile]:
    """Return hash and size of the graphs, their weights, and what lies beside them, by folder and name."""
    found: dict[str, SourceFile] = {}
    for side, folder, path in (("image", place.image_folder, place.image), ("text", place.text_folder, place.text)):
        prefix = f"{side}/" if place.image_folder != place.text_folder else ""
        weights = [path, *(path.parent / name for name in external_files(onnx.load(path, load_external_data=False)))]
        found |= {f"{prefix}{name}": file for name, file in source_files(folder, weights).items()}
    return found


class OnnxOriginal(msgspec.Struct, frozen=True, kw_only=True):
    """The two files, how a picture becomes pixels (1, 3, H, W), and a text tokens.

    `outputs` are the outputs that the library takes for the vectors of images and of texts.
    """

    image: OnnxTower
    text: OnnxTower
    pixels: Callable[[Image.Image], NDArray[np.float32]]
    tokens: Callable[[str], Encoding]
    outputs: tuple[str, str]

    @property
    def library(self) -> str:
        """onnxruntime and its version: the files run there as they came."""
        return f"onnxruntime {onnxruntime.__version__}"

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, by itself."""
        return [list(self.tokens(text).ids) for text in texts]

    def pixel_values(self, images: Sequence[Image.Image]) -> Vectors:
        """Return (B, 3, H, W)."""
        return np.concatenate([self.pixels(image) for image in images])

    def image_vectors(self, pixel_values: Vectors) -> Vectors:
        """Return (B, D), of any length."""
        return self.image.run({"pixel_values": pixel_values}, self.outputs[0])

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D), of any length, each text by itself."""
        rows = []
        for text in texts:
            found = self.tokens(text)
            arrays = {"input_ids": np.array([found.ids], np.int64), "attention_mask": np.array([found.attention_mask])}
            rows.append(self.text.run(arrays, self.outputs[1]))
        return np.concatenate(rows)


def choices(
    place: OnnxPlace,
    image: ImageSpec,
    text: TextSpec,
    towers: tuple[OnnxTower, OnnxTower],
    graphs: tuple[ir.Model, ir.Model],
    options: SourceOptions,
) -> tuple[Choice, ...]:
    """Return the choices of a pair."""
    is_immich = place.layout == "immich"
    pictures = "preprocess_cfg.json, as immich reads it" if is_immich else "preprocessor_config.json, by transformers"
    crop = f"{image.resize}, {image.interpolation}, from {image.resized_shape} to {image.shape}"
    found = {
        ("layout", place.layout): "the files' names" if not options.text else "--text",
        **{
            (f"{side} tower", f"{tower.path.name}, float32, {_opsets(graph)}, output {tower.output}"): "the file"
            for side, tower, graph in zip(("image", "text"), towers, graphs, strict=True)
        },
        **{
            (f"batch of the {side} tower", "any" if tower.is_batched else _ALONE): "tried with onnxruntime"
            for side, tower in zip(("image", "text"), towers, strict=True)
        },
        ("picture", crop): f"{pictures}; sides and offsets rounded down",
        ("orientation", image.orientation): f"--orientation {options.orientation}",
        ("transparency", image.alpha): f"--alpha {options.alpha}",
        ("JPEG", f"oversampling {image.jpeg_oversampling}"): f"--jpeg-oversampling {options.jpeg_oversampling}",
        ("texts", f"{text.padding}, up to {text.context_length} tokens"): "the graph and tokenizer_config.json",
        ("padding", "kept out by a mask" if "attention_mask" in towers[1].names.values() else "no mask"): "the graph",
        ("similarity", "softmax, scale 100"): "CLIP's at the end of its training: the files hold none",
        ("vectors", "divided by their length"): "every bundle's are",
    }
    return tuple(Choice(what=what, value=value, origin=origin) for (what, value), origin in found.items())


def _opsets(graph: ir.Model) -> str:
    return ", ".join(
        f"opset {version}{f' of {domain}' if domain else ''}" for domain, version in graph.opset_imports.items()
    )
