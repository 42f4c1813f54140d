"""Tiny models of open_clip, with weights so spread out that vectors differ, saved as open_clip saves them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import open_clip
import safetensors.torch
import timm
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn

from mmalign_export.sources.proof_texts import PROOF_TEXTS

# Tiny models of timm: its own architectures, so narrow and shallow that a test takes a second.
_NARROW: dict[str, tuple[str, dict[str, object]]] = {
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}),
    "eva02": ("eva02_tiny_patch14_224", {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 56}),
    "vitamin": ("vitamin_small_224", {"depth": 1, "img_size": 64}),
    "pe": ("vit_pe_core_tiny_patch16_384", {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}),
    "fastvit": ("fastvit_mci0", {"embed_dims": (8, 16, 16, 32), "layers": (1, 1, 1, 1)}),
    "siglip": ("vit_base_patch16_siglip_224", {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}),
    "mobileclip_b": ("vit_base_mci_224", {"depth": 1, "img_size": 64}),
}


def _register(name: str, base: str, options: dict[str, object]) -> None:
    def create(pretrained: bool = False, **more: object) -> nn.Module:
        return timm.models.model_entrypoint(base)(pretrained=pretrained, **options, **more)

    create.__name__, create.__module__ = f"narrow_{name}", "timm.models.vision_transformer"
    timm.models.register_model(create)


for _name, (_base, _options) in _NARROW.items():
    _register(_name, _base, _options)


def narrow(name: str, image_size: int, pool: str, proj: str | None) -> dict:
    """Return the vision_cfg of a tiny model of timm."""
    return {"timm_model_name": f"narrow_{name}", "timm_pool": pool, "timm_proj": proj, "image_size": image_size}


VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
COCA_TEXT = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
SEEN_PADS = {**TEXT, "no_causal_mask": True}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
PREPROCESSING = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
FAMILIES: dict[str, dict] = {
    "vit": CLIP,
    "vit, quick": {**CLIP, "quick_gelu": True},
    "resnet": {
        **CLIP,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    },
    "convnext": {**CLIP, "vision_cfg": narrow("convnext", 64, "", "linear")},
    "eva02": {**CLIP, "custom_text": True, "vision_cfg": narrow("eva02", 56, "token", None)},
    "vitamin": {**CLIP, "custom_text": True, "vision_cfg": narrow("vitamin", 64, "", "linear")},
    "pe": {
        **CLIP,
        "custom_text": True,
        "vision_cfg": narrow("pe", 64, "map", None),
        "text_cfg": {**TEXT, "context_length": 32},
    },
    "mobileclip": {
        **CLIP,
        "custom_text": True,
        "vision_cfg": narrow("fastvit", 64, "avg", None),
        "text_cfg": SEEN_PADS,
    },
    "mobileclip, b": {**CLIP, "custom_text": True, "vision_cfg": narrow("mobileclip_b", 64, "token", None)},
    "coca": {
        **CLIP,
        "custom_text": True,
        "vision_cfg": {**VISION, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        "text_cfg": COCA_TEXT,
        "multimodal_cfg": {**TEXT, "context_length": 76, "layers": 1, "attn_pooler_heads": 2},
    },
    "clipa": {
        **CLIP,
        "vision_cfg": {**VISION, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {
            **SEEN_PADS,
            "context_length": 32,
            "hf_tokenizer_name": "beside",
            "tokenizer_kwargs": {"strip_sep_token": True},
            "pool_type": "last",
        },
    },
    "metaclip 2": {
        **CLIP,
        "text_cfg": {**TEXT, "hf_tokenizer_name": "beside", "pool_type": "eos", "eos_id": 3},
    },
    "siglip": {
        **CLIP,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": narrow("siglip", 64, "map", "none"),
        "embed_dim": 48,
        "text_cfg": {
            **SEEN_PADS,
            "context_length": 64,
            "hf_tokenizer_name": "beside",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
    },
    "xlm-roberta": {
        **CLIP,
        "text_cfg": {"hf_model_name": "xlm-roberta", "hf_tokenizer_name": "beside", "hf_pooler_type": "mean_pooler"},
    },
    "mt5": {
        **CLIP,
        "text_cfg": {"hf_model_name": "mt5", "hf_tokenizer_name": "beside", "hf_pooler_type": "mean_pooler"},
    },
    "roberta, first token": {
        **CLIP,
        "text_cfg": {"hf_model_name": "xlm-roberta", "hf_tokenizer_name": "beside", "hf_pooler_type": "cls_pooler"},
    },
}
_SMALL = {"vocab_size": 700, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_ENCODERS: dict[str, transformers.PretrainedConfig] = {
    "xlm-roberta": transformers.XLMRobertaConfig(
        **_SMALL, num_attention_heads=2, max_position_embeddings=90, pad_token_id=1
    ),
    "mt5": transformers.MT5Config(vocab_size=700, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2),
}


def write(folder: Path, family: str) -> Path:
    """Write a family's tiny model as open_clip saves one: configuration, weights, tokenizer."""
    folder.mkdir()
    config = copy.deepcopy(FAMILIES[family])
    text = config["text_cfg"]
    if encoder := text.get("hf_model_name"):
        _ENCODERS[encoder].save_pretrained(folder / "encoder")
        text["hf_model_name"] = str(folder / "encoder")
    if "hf_tokenizer_name" in text:
        _tokenizer(pad_first=encoder == "mt5" or family in ("clipa", "siglip")).save_pretrained(folder)
        text["vocab_size"] = 700
    return save(folder, config, build(config))


def _tokenizer(pad_first: bool) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer trained on the proof's texts, whose pad token is 0 or, as XLM's, 1."""
    special = ["<pad>", "<s>", "</s>", "<unk>"] if pad_first else ["<s>", "<pad>", "<unk>", "</s>"]
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    found.train_from_iterator(PROOF_TEXTS, trainer)
    ends = [("<s>", found.token_to_id("<s>")), ("</s>", found.token_to_id("</s>"))]
    found.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=found, **named)


def build(config: dict) -> nn.Module:
    """Return open_clip's module of a configuration, spread out: drawn so that no two inputs have similar vectors."""
    config = copy.deepcopy(config)
    has_own_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CLIP if not has_own_text else open_clip.CustomTextCLIP
    kind = open_clip.CoCa if "multimodal_cfg" in config else kind
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    torch.manual_seed(0)
    return spread(kind(**config)).eval()


def spread(module: nn.Module) -> nn.Module:
    """Give every parameter of a module a value of its own, large enough to matter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        if name.endswith(("logit_scale", "logit_bias")):
            continue
        fan_in = parameter.shape[1:].numel() if parameter.ndim > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator)
        is_scale = parameter.ndim == 1 and name.endswith(("weight", "gamma"))
        std = 0.2 if parameter.ndim < 2 else 0.7 if "embedding" in name or "pos_embed" in name else 1.3 * fan_in**-0.5
        parameter.data = noise * std + (1.0 if is_scale else 0.0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.copy_(torch.randn(each.running_mean.shape, generator=generator) * 0.1)
            each.running_var.copy_(torch.rand(each.running_var.shape, generator=generator) + 0.5)
    return module


def save(folder: Path, config: dict, module: nn.Module, preprocessing: dict | None = None) -> Path:
    """Write open_clip_config.json and open_clip_model.safetensors."""
    folder.mkdir(exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESSING if preprocessing is None else preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return folder


def save_torchscript(module: nn.Module, path: Path) -> Path:
    """Save as OpenAI did: a traced copy of a module, with three numbers beside the weights and no mask."""
    module = copy.deepcopy(module)
    for name in ("input_resolution", "context_length", "vocab_size"):
        module.__dict__.pop(name, None)
        module.register_buffer(name, torch.tensor(77))
    module.attn_mask = module._buffers.pop("attn_mask")  # a constant of the trace
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int64))
    torch.jit.trace(module, inputs, check_trace=False).save(str(path))
    return path
