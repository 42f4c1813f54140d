"""Pairs of ONNX files, as transformers.js, immich, fastembed and Qdrant publish them, with their own configurations.

The graphs stay as they are, but for what a bundle's towers have to be: named inputs, one vector of unit length, any
batch. What they are proven against is onnxruntime on the files as they came.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime
import transformers

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, ModelTower, TextModelTower
from mmalign.signature import image_inputs, text_inputs
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import licence_of, source_files
from mmalign_export.sources.onnx_choices import choices
from mmalign_export.sources.onnx_external import external_files
from mmalign_export.sources.onnx_graph import read_graph
from mmalign_export.sources.onnx_inputs import family_of, picture_inputs, text_inputs_of
from mmalign_export.sources.onnx_original import OnnxOriginal
from mmalign_export.sources.onnx_place import OnnxPlace, find_pair
from mmalign_export.sources.onnx_texts import OnnxTexts
from mmalign_export.sources.onnx_tower import OnnxTower, open_tower, to_backbone
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import check_widths, refuse_options
from mmalign_runtime.spec import ImageSpec, Modality, Similarity, SourceFile

_KIND = "onnx_pair"
_READS = ("text", "orientation", "alpha", "length", "jpeg_oversampling", "licence")
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
