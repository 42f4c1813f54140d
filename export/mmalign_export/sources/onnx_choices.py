"""What was decided of a pair of ONNX files, and where it was read: what `--explain` prints."""

from __future__ import annotations

import onnx_ir as ir

from mmalign_export.sources import SourceOptions
from mmalign_export.sources.onnx_place import OnnxPlace
from mmalign_export.sources.onnx_tower import OnnxTower
from mmalign_runtime.spec import Choice, ImageSpec, TextSpec


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
            (f"batch of the {side} tower", _batch(tower)): "tried with onnxruntime"
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


def _batch(tower: OnnxTower) -> str:
    return "any" if tower.is_batched else "one item at a time, in a loop of the graph: the file takes no more"
