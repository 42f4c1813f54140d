"""Every family of transformers, tiny, as transformers saves it, with weights spread out so that vectors differ."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

from mmalign_export.sources.proof_texts import PROOF_TEXTS

_WIDTH, _HEADS, _LAYERS, _DIM = 32, 4, 1, 24
_SIZES = {
    "hidden_size": _WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
}
_VISION = {**_SIZES, "image_size": 32, "patch_size": 8}
_VOCABULARY = 600
_SMALL_PICTURE = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
_SQUARE = {"size": {"height": 32, "width": 32}}
CONTEXT = 24

Tokens = transformers.PreTrainedTokenizerBase


def save_tiny(family: str, folder: Path, *, edit: Callable[[nn.Module], None] | None = None) -> Path:
    """Write a tiny model of a family, its tokenizer and its image processor. `edit` may change the weights."""
    torch.manual_seed(len(family))
    tokenizer = TOKENIZERS[family](folder)
    processor = _PROCESSORS.get(family, lambda: transformers.CLIPImageProcessor(**_SMALL_PICTURE))()
    model = _MODELS[family](tokenizer)
    spread_out(model)
    if edit is not None:
        edit(model)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def spread_out(model: nn.Module) -> None:
    """Draw weights so that every layer passes on what it gets, and no two inputs give nearly the same vector."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                fan_in = 1 if "embed" in name else math.prod(parameter.shape[1:])
                parameter.copy_(noise * (1.2 / math.sqrt(fan_in)))
            elif parameter.ndim == 1:
                parameter.copy_(noise * 0.1 + (1.0 if name.endswith(("weight", "lambda1")) else 0.0))


def _clip_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 1}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=_DIM))


def _old_clip_model(tokenizer: Tokens) -> nn.Module:
    """The first checkpoints say eos_token_id 2, and mean the highest id."""
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "eos_token_id": 2}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=_DIM))


def _siglip_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "projection_size": _WIDTH}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_VISION))


def _naflex_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "projection_size": _WIDTH}
    vision = {**_SIZES, "patch_size": 8, "num_patches": 25}
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))


def _altclip_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT + 2, "project_dim": _DIM}
    text |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": 2, "bos_token_id": 0}
    return transformers.AltCLIPModel(
        transformers.AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=_DIM)
    )


def _bert(tokenizer: Tokens) -> dict[str, object]:
    return {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}


def _chinese_clip_model(tokenizer: Tokens) -> nn.Module:
    config = transformers.ChineseCLIPConfig(text_config=_bert(tokenizer), vision_config=_VISION, projection_dim=_DIM)
    return transformers.ChineseCLIPModel(config)


def _metaclip_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "eos_token_id": 2}
    return transformers.MetaClip2Model(
        transformers.MetaClip2Config(text_config=text, vision_config=_VISION, projection_dim=_DIM)
    )


def _align_model(tokenizer: Tokens) -> nn.Module:
    vision = {"image_size": 32, "hidden_dim": _WIDTH, "width_coefficient": 1.0, "depth_coefficient": 0.2}
    vision |= {"in_channels": [32, 16], "out_channels": [16, 24], "kernel_sizes": [3, 3], "strides": [1, 2]}
    vision |= {"expand_ratios": [1, 4], "num_block_repeats": [1, 1], "depthwise_padding": []}
    config = transformers.AlignConfig(text_config=_bert(tokenizer), vision_config=vision, projection_dim=_DIM)
    return transformers.AlignModel(config)


def _groupvit_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    vision = {**_VISION, "depths": [1, 1], "num_group_tokens": [8, 0], "num_output_groups": [4, 2]}
    config = transformers.GroupViTConfig(
        text_config=text, vision_config=vision, projection_dim=_DIM, projection_intermediate_dim=40
    )
    return transformers.GroupViTModel(config)


def _blip_model(tokenizer: Tokens) -> nn.Module:
    text = {**_bert(tokenizer), "encoder_hidden_size": _WIDTH}
    config = transformers.BlipConfig(
        text_config=text, vision_config=_VISION, projection_dim=_DIM, image_text_hidden_size=_DIM
    )
    return transformers.BlipForImageTextRetrieval(config)


def _tipsv2_model(tokenizer: Tokens) -> nn.Module:
    text = {**_SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    vision = {**_VISION, "num_register_tokens": 1, "mlp_ratio": 2}
    return transformers.Tipsv2Model(transformers.Tipsv2Config(text_config=text, vision_config=vision))


def _dual_model(tokenizer: Tokens) -> nn.Module:
    vision = transformers.Dinov2Config(**_VISION, mlp_ratio=2)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, transformers.BertConfig(**_bert(tokenizer)), projection_dim=_DIM
    )
    return transformers.VisionTextDualEncoderModel(config)


def _clip_tokenizer(folder: Path) -> Tokens:
    """A byte-level BPE as CLIP's, trained on the proof's texts."""
    del folder
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(PROOF_TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    vocab = dict(model["vocab"])
    for letter in alphabet:
        vocab.setdefault(f"{letter}</w>", len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    merges = [tuple(merge) for merge in model["merges"]]
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)


def _bert_tokenizer(folder: Path) -> Tokens:
    del folder
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=special, show_progress=False)
    trained.train_from_iterator(PROOF_TEXTS, trainer)
    return transformers.BertTokenizer(vocab=trained.get_vocab(), model_max_length=CONTEXT)


def spm_file(folder: Path) -> Path:
    """A sentencepiece model trained on the proof's texts, with T5's special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    # A text of one sign alone would be cut in many ways that are equally likely.
    texts = [text.replace("\n", " ") for text in PROOF_TEXTS if len(set(text)) > 1]
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=_VOCABULARY,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=0.98,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (folder / "texts.txt").unlink()
    (folder / "spiece.vocab").unlink()
    return folder / "spiece.model"


def _siglip_tokenizer(folder: Path) -> Tokens:
    return transformers.SiglipTokenizer(str(spm_file(folder)), model_max_length=CONTEXT)


def _unigram(folder: Path) -> list[tuple[str, float]]:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm_file(folder)))
    (folder / "spiece.model").unlink()
    return [(processor.id_to_piece(at), processor.get_score(at)) for at in range(3, processor.get_piece_size())]


def _xlm_tokenizer(folder: Path) -> Tokens:
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab = [*special, *_unigram(folder), ("<mask>", 0.0)]
    return transformers.XLMRobertaTokenizer(vocab=vocab, model_max_length=CONTEXT)


def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE over words that begin with a mark, with a piece for every byte."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "\u2581")])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=special, limit_alphabet=120, show_progress=False
    )
    trained.train_from_iterator(PROOF_TEXTS, trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _siglip2_tokenizer(folder: Path) -> Tokens:
    del folder
    vocab, merges = _bpe()
    return transformers.Siglip2Tokenizer(
        vocab=vocab, merges=merges, model_max_length=CONTEXT, padding_side="right", add_bos_token=False
    )


def _tipsv2_tokenizer(folder: Path) -> Tokens:
    del folder
    vocab, merges = _bpe()
    return transformers.Tipsv2Tokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT)


_MODELS: dict[str, Callable[[Tokens], nn.Module]] = {
    "clip": _clip_model,
    "clip, old": _old_clip_model,
    "siglip": _siglip_model,
    "siglip2": _siglip_model,
    "siglip2, naflex": _naflex_model,
    "altclip": _altclip_model,
    "chinese_clip": _chinese_clip_model,
    "metaclip_2": _metaclip_model,
    "align": _align_model,
    "groupvit": _groupvit_model,
    "blip": _blip_model,
    "tipsv2": _tipsv2_model,
    "vision-text-dual-encoder": _dual_model,
}
TOKENIZERS: dict[str, Callable[[Path], Tokens]] = {
    "clip": _clip_tokenizer,
    "clip, old": _clip_tokenizer,
    "siglip": _siglip_tokenizer,
    "siglip2": _siglip2_tokenizer,
    "siglip2, naflex": _siglip2_tokenizer,
    "altclip": _xlm_tokenizer,
    "chinese_clip": _bert_tokenizer,
    "metaclip_2": _xlm_tokenizer,
    "align": _bert_tokenizer,
    "groupvit": _clip_tokenizer,
    "blip": _bert_tokenizer,
    "tipsv2": _tipsv2_tokenizer,
    "vision-text-dual-encoder": _bert_tokenizer,
}
_PROCESSORS: dict[str, Callable[[], transformers.BaseImageProcessor]] = {
    "siglip": lambda: transformers.SiglipImageProcessor(**_SQUARE),
    "siglip2": lambda: transformers.SiglipImageProcessor(**_SQUARE, resample=2),
    "siglip2, naflex": lambda: transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=23),
    "align": lambda: transformers.EfficientNetImageProcessor(
        size={"height": 38, "width": 38},
        crop_size={"height": 33, "width": 33},
        do_center_crop=True,
        include_top=False,
        do_convert_rgb=True,
    ),
    "blip": lambda: transformers.BlipImageProcessor(**_SQUARE),
    "tipsv2": lambda: transformers.Tipsv2ImageProcessor(**_SQUARE),
    "vision-text-dual-encoder": lambda: transformers.BitImageProcessor(**_SMALL_PICTURE),
}
FAMILIES = tuple(_MODELS)
