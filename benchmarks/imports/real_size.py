"""One model at its real size, with random weights spread out, imported, proven and verified.

    python -m benchmarks.imports.real_size clip [--folder FOLDER]

A family of transformers: its default configurations are those of the published base models. Their vocabularies are on
the hub, so that the tokenizers are the tests' small ones, and tables of tokens have as many rows: all other sizes of
the towers, the pictures' sizes and the context are the real ones. Or a model of open_clip by its name
(`open_clip:ViT-B-32-quickgelu`). Or CLIP as a pair of ONNX files, exported as their publishers export (torch's older
exporter, opset 14): a folder with a dynamic batch (`transformers.js`), or a graph for one item (`immich`). Or a CLIP
past 2 GB (`clip, 2.4 GB`).

The last line is JSON: seconds of the import and of the processor in it, the peak memory of the process after saving,
after the import and after verify, each stage of the proof, and what verify found. results/real_size.json keeps them.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import transformers
from torch import nn
from typer import Argument, Option

from benchmarks.harness.command import run
from benchmarks.imports.random_weights import STEP, save_random, settle, settling_pictures
from mmalign_export import import_model
from mmalign_runtime.spec import BundleSpec
from mmalign_runtime.verify import verify_bundle
from tests.export.sources.onnx_pairs import save_immich, save_transformers_js
from tests.export.sources.tiny import TOKENIZERS, spread_out

Tokens = transformers.PreTrainedTokenizerBase
LARGE = "clip, 2.4 GB"  # past the 2 GB that one .onnx file may have


def _model(family: str, tokenizer: Tokens) -> nn.Module:
    """Return the published architecture, reading the end token of this tokenizer where it reads one."""
    if family == "vision-text-dual-encoder":
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            transformers.ViTConfig(), transformers.BertConfig(vocab_size=len(tokenizer))
        )
        return transformers.VisionTextDualEncoderModel(config)
    make_config, make_model = _FAMILIES[family]
    whole = make_config()
    whole.text_config.vocab_size = len(tokenizer)
    if getattr(whole.text_config, "eos_token_id", None) is not None and tokenizer.eos_token_id is not None:
        whole.text_config.eos_token_id = tokenizer.eos_token_id
    return make_model(whole)


def _large_config() -> transformers.CLIPConfig:
    """Return an image tower three layers deep and 4,096 wide: 2.4 GB of weights, and few operations for their size."""
    sizes = {"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 3, "num_attention_heads": 64}
    return transformers.CLIPConfig(vision_config=sizes | {"patch_size": 32})


# The configuration of the base model, and the model.
_FAMILIES: dict[str, tuple[Callable[[], transformers.PretrainedConfig], Callable[..., nn.Module]]] = {
    "clip": (transformers.CLIPConfig, transformers.CLIPModel),
    "siglip": (transformers.SiglipConfig, transformers.SiglipModel),
    "siglip2": (transformers.SiglipConfig, transformers.SiglipModel),
    "siglip2, naflex": (transformers.Siglip2Config, transformers.Siglip2Model),
    "altclip": (transformers.AltCLIPConfig, transformers.AltCLIPModel),
    "chinese_clip": (transformers.ChineseCLIPConfig, transformers.ChineseCLIPModel),
    "metaclip_2": (transformers.MetaClip2Config, transformers.MetaClip2Model),
    "align": (transformers.AlignConfig, transformers.AlignModel),
    "groupvit": (transformers.GroupViTConfig, transformers.GroupViTModel),
    "blip": (transformers.BlipConfig, transformers.BlipForImageTextRetrieval),
    "tipsv2": (transformers.Tipsv2Config, transformers.Tipsv2Model),
    LARGE: (_large_config, transformers.CLIPModel),
}
_PROCESSORS: dict[str, Callable[[], transformers.BaseImageProcessor]] = {
    "siglip": transformers.SiglipImageProcessor,
    "siglip2": transformers.SiglipImageProcessor,
    "siglip2, naflex": transformers.Siglip2ImageProcessor,
    "align": partial(
        transformers.EfficientNetImageProcessor, do_center_crop=True, include_top=False, do_convert_rgb=True
    ),
    "vision-text-dual-encoder": transformers.ViTImageProcessor,
}
_PAIRS = {"transformers.js": save_transformers_js, "immich": save_immich}
_OPEN_CLIP = "open_clip:"
_SOURCES = "; ".join(sorted([*TOKENIZERS, LARGE, *_PAIRS]))
# Where the processor's default is not the size of the default tower.
_SIDES = {"blip": transformers.BlipImageProcessor, "tipsv2": transformers.Tipsv2ImageProcessor}


def save_real_size(family: str, folder: Path) -> Path:
    """Write the model, its tokenizer and its image processor, as transformers does."""
    torch.manual_seed(0)
    tokenizer = TOKENIZERS["clip" if family == LARGE else family](folder)
    model = _model(family, tokenizer)
    spread_out(model)
    config = model.config.text_config
    tokenizer.model_max_length = min(int(getattr(config, "max_position_embeddings", 512)), 512)
    if family in _SIDES:
        side = model.config.vision_config.image_size
        processor = _SIDES[family](size={"height": side, "width": side})
    else:
        processor = _PROCESSORS.get(family, transformers.CLIPImageProcessor)()
    settle_norms(model, processor)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


@torch.no_grad()
def settle_norms(model: nn.Module, processor: transformers.BaseImageProcessor) -> None:
    """Make a tower of batch norms as training leaves one (`random_weights`)."""
    if not any(isinstance(each, nn.BatchNorm2d) for each in model.modules()):
        return
    for name, block in model.named_modules():
        if name.endswith("projection") and getattr(block, "apply_dropout", False):  # a block with a skip path
            block.project_bn.weight.mul_(STEP)
    pixels = processor(images=settling_pictures(), return_tensors="pt")["pixel_values"]
    settle(model, lambda: model.vision_model(pixel_values=pixels))


def import_and_verify(place: Path, bundle: Path) -> dict[str, object]:
    """Import a model and verify its bundle; return what the import took and what was proven."""
    started, cpu_started = time.perf_counter(), time.process_time()
    spec: BundleSpec = import_model(place, bundle, force=True)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    import_gb = _peak_gb()
    report = verify_bundle(bundle)
    record = spec.provenance.imported
    failed = [case.name for case in (*report.cases, *report.checks) if not case.passed]
    return {
        "import_s": round(seconds, 1),
        "import_cpu_s": round(cpu_s, 1),
        "peak_of_import_gb": import_gb,
        "peak_gb": _peak_gb(),
        "verify_failed": failed,
        "stages": [] if record is None else msgspec.to_builtins(record.stages),
    }


def _peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


def _save(source: str, folder: Path) -> Path:
    if source.startswith(_OPEN_CLIP):
        return save_random(source.removeprefix(_OPEN_CLIP), folder / "model")
    if source in _PAIRS:
        return _PAIRS[source](save_real_size("clip", folder / "source"), folder / "pair")
    return save_real_size(source, folder / "model")


def main(
    source: Annotated[str, Argument(help=f"one of {_SOURCES}, or {_OPEN_CLIP}MODEL")],
    folder: Annotated[Path | None, Option(help="where model and bundle are kept; default: nowhere")] = None,
) -> None:
    """Measure one model and print a line of JSON. The peak of the import counts that of the saving too."""
    with tempfile.TemporaryDirectory() as temporary:
        work = folder or Path(temporary)
        place = _save(source, work)
        found = {"source": source, "peak_of_saving_gb": _peak_gb()} | import_and_verify(place, work / "bundle")
        print(json.dumps(found))


if __name__ == "__main__":
    run(main)
