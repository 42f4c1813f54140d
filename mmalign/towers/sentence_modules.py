"""What a sentence-transformers model says beside its encoder: pooling, dense layers, maximal length, lower case.

modules.json lists the modules in order, each in a folder of its own; a model without it is a plain encoder. What would
change a vector and cannot be done here is refused, never left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

import msgspec

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.pooling import Pooling
from mmalign.towers.text_files import find_file

Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"]

_T = TypeVar("_T")
_POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "max": "max", "lasttoken": "last"}
# Before release 5.4 pooling was one flag a mode.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TRANSFORMER_CONFIG = "sentence_bert_config.json"
_OLD_TRANSFORMER_CONFIGS = "sentence_*_config.json"
# transformers writes int(1e30) where a tokenizer has no limit.
_NO_LENGTH = 1_000_000


class DenseLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer after pooling and the function after it."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: Activation = "Tanh"


class SentenceModules(msgspec.Struct, frozen=True, kw_only=True):
    """The modules of one model. `encoder_path` is the encoder's folder inside it, `dense_paths` those of the layers.

    `max_seq_length` is the number of tokens, special ones included, that it reads of a text; None where it says none.
    """

    encoder_path: str = ""
    pooling: Pooling
    dense: tuple[DenseLayer, ...] = ()
    dense_paths: tuple[str, ...] = ()
    max_seq_length: int | None = None
    do_lower_case: bool = False


class _Module(msgspec.Struct, frozen=True):
    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """Its class: releases moved the classes between packages and kept their names."""
        return self.type.rpartition(".")[2] if self.type.startswith("sentence_transformers.") else self.type


def read_sentence_modules(source: str) -> SentenceModules | None:
    """Return what the modules of a folder or hub id say; None for a plain encoder.

    Raises ConfigError for modules that mmalign cannot do, WeightsError for files that are missing or damaged.
    """
    listing = find_file(source, "modules.json")
    if listing is None:
        _check_whole(Path(source))
        return None
    modules = _read(listing, tuple[_Module, ...])
    kinds = [module.kind for module in modules]
    last = len(kinds) - 1
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise _refusal(source, f"its modules are {', '.join(kinds)}, expected Transformer and Pooling first")
    for at, kind in enumerate(kinds[2:], start=2):
        if kind not in ("Dense", "Dropout") and not (kind == "Normalize" and at == last):
            raise _refusal(
                source, f"its module {at} is {kind}; known there are Dense, Dropout and Normalize at the end"
            )
    check_prompts(source)
    dense_paths = tuple(module.path for module in modules if module.kind == "Dense")
    transformer = _transformer(source, modules[0].path)
    return SentenceModules(
        encoder_path=modules[0].path,
        pooling=_pooling(source, modules[1].path),
        dense=tuple(_dense(source, path) for path in dense_paths),
        dense_paths=dense_paths,
        max_seq_length=_max_seq_length(source, modules[0].path, transformer),
        do_lower_case=bool(transformer.get("do_lower_case")),
    )


def _pooling(source: str, path: str) -> Pooling:
    config = _config(source, path, "config.json")
    named = config.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean"
    modes = [named] if isinstance(named, str) else [str(mode) for mode in cast("list[object]", named)]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise _refusal(source, f"its pooling is {' and '.join(modes)}; known are {', '.join(_POOLINGS)}, one of them")
    if config.get("include_prompt") is False:
        raise _refusal(source, "its pooling leaves out the tokens of a prompt (include_prompt = false)")
    return _POOLINGS[modes[0]]


def _dense(source: str, path: str) -> DenseLayer:
    config = _config(source, path, "config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if config.get("use_residual") or config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise _refusal(source, f"its layer {path} is residual, or acts on tokens")
    if not name.startswith("torch.nn.") or (activation := name.rpartition(".")[2]) not in get_args(Activation):
        raise _refusal(source, f"its layer {path} has the function {name}; known are {', '.join(get_args(Activation))}")
    try:
        return msgspec.convert(config | {"activation": activation}, DenseLayer)
    except msgspec.ValidationError as error:
        raise WeightsError(
            f"{source}: {path}/config.json does not describe a dense layer: {error}. Fetch it again."
        ) from error


def _transformer(source: str, path: str) -> dict[str, object]:
    found = find_file(source, _join(path, _TRANSFORMER_CONFIG))
    if found is None and (Path(source) / path).is_dir():
        found = next(iter(sorted((Path(source) / path).glob(_OLD_TRANSFORMER_CONFIGS))), None)
    config = {} if found is None else _read(found, dict[str, object])
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction" or config.get("processing_kwargs"):
        raise _refusal(source, f"its encoder's task is {task!r}, or its processor has options of its own")
    return config


def _max_seq_length(source: str, path: str, transformer: dict[str, object]) -> int | None:
    """Return the maximal length; since release 5.4 the tokenizer's configuration holds it."""
    length = transformer.get("max_seq_length")
    if length is None and (found := find_file(source, _join(path, "tokenizer_config.json"))) is not None:
        length = _read(found, dict[str, object]).get("model_max_length")
    return int(length) if isinstance(length, int | float) and length <= _NO_LENGTH else None


def check_prompts(source: str) -> None:
    """Raise ConfigError for a prompt that sentence-transformers puts before every text unasked."""
    found = find_file(source, "config_sentence_transformers.json")
    config = {} if found is None else _read(found, dict[str, object])
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    if name is not None and isinstance(prompts, dict) and prompts.get(name):
        raise _refusal(source, f"it puts the prompt {prompts[name]!r} before every text (default_prompt_name)")


def _check_whole(folder: Path) -> None:
    if folder.is_dir() and (lost := next((p for p in sorted(folder.iterdir()) if _is_module(p)), None)) is not None:
        raise WeightsError(
            f"{folder} has {lost.name} of a sentence-transformers model and no modules.json: it was copied in part. "
            "Fetch the folder whole."
        )


def _is_module(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"\d+_[A-Z]\w*", path.name) is not None


def _config(source: str, path: str, file: str) -> dict[str, object]:
    found = find_file(source, _join(path, file))
    if found is None:
        raise WeightsError(f"{source} lacks {_join(path, file)}, which its modules.json names. Fetch the folder whole.")
    return _read(found, dict[str, object])


def _read(path: Path, as_type: type[_T]) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is damaged: {error}. Fetch it again.") from error


def _join(path: str, file: str) -> str:
    return f"{path}/{file}" if path else file


def _refusal(source: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{source} is a sentence-transformers model whose vectors mmalign cannot make: {reason}. Choose another model, "
        "or make a folder with its encoder alone (config.json, model.safetensors, tokenizer.json) and name that."
    )
