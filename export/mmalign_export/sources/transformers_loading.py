"""Loads a model of transformers and what makes its inputs, held to its configuration: nothing missing, nothing over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import transformers
from huggingface_hub.errors import StrictDataclassError

from mmalign._compat import quiet_loading
from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_finite, check_loaded, first_sentence
from mmalign_export.sources.transformers_families import Family
from mmalign_export.sources.weight_files import check_precision, dtypes_of, saved_weights
from mmalign_runtime.errors import MissingDependencyError

# Fields of another type, or that do not go together, are an error of the hub's library.
LOADING_ERRORS = (*LIBRARY_ERRORS, StrictDataclassError)
# No code is run, and nothing is fetched beside what is in the folder.
_CLOSED = {"trust_remote_code": False, "local_files_only": True}
# Without one of these, transformers makes a tokenizer of no words, and says nothing.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
# In transformers' own order of preference.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights that transformers reads, each of them whole and without code. Raises SourceError."""
    return saved_weights(folder, _WEIGHTS)


def load_model(folder: Path, family: Family, weights: Iterable[Path]) -> transformers.PreTrainedModel:
    """Load the weights as float32, held to the configuration: nothing missing, nothing over. Raises SourceError."""
    dtypes = dtypes_of(weights)
    load = cast("Callable[..., object]", getattr(transformers, family.model).from_pretrained)
    try:
        with quiet_loading():
            model, told = cast(
                "tuple[transformers.PreTrainedModel, dict[str, list[object]]]",
                load(folder, dtype="float32", output_loading_info=True, ignore_mismatched_sizes=True, **_CLOSED),
            )
    except LOADING_ERRORS as error:
        raise SourceError(
            f"{folder}: transformers cannot load the weights: {first_sentence(error)}. They are damaged, are not those "
            "of its config.json, or hold code. Fetch the model again, or save it as safetensors."
        ) from error
    check_loaded(
        str(folder),
        missing=map(str, told["missing_keys"]),
        surplus=map(str, told["unexpected_keys"]),
        mismatched=(" ".join(map(str, cast("tuple[object, ...]", each))) for each in told["mismatched_keys"]),
    )
    check_precision(str(folder), dtypes, model.state_dict())
    check_finite(str(folder), model.state_dict())
    model.train(False)
    return model


def check_config(folder: Path) -> None:
    """Raise SourceError for a config.json that transformers does not take."""
    _load(folder, "config.json", transformers.AutoConfig.from_pretrained)


def check_tokenizer_files(folder: Path) -> None:
    """Raise SourceError for a folder without a tokenizer, and where a library that reads it is not there."""
    if not any(found for pattern in _VOCABULARIES for found in folder.glob(pattern)):
        raise SourceError(f"{folder} holds no tokenizer ({', '.join(_VOCABULARIES)}). Fetch the model whole.")
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")) and find_spec("sentencepiece") is None:
        raise MissingDependencyError(
            f"the tokenizer in {folder} is a sentencepiece model, and sentencepiece is not installed. Run "
            "`pip install 'mmalign-export[sentencepiece]'`."
        )


def load_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerBase:
    """Return the tokenizer of a folder. Raises SourceError."""
    check_tokenizer_files(folder)
    found = _load(folder, "tokenizer", transformers.AutoTokenizer.from_pretrained)
    return cast("transformers.PreTrainedTokenizerBase", found)


def load_processor(folder: Path) -> transformers.BaseImageProcessor:
    """Return the image processor of a folder. Raises SourceError."""
    found = _load(folder, "image processor", transformers.AutoImageProcessor.from_pretrained)
    return cast("transformers.BaseImageProcessor", found)


def _load(folder: Path, what: str, load: Callable[..., object]) -> object:
    try:
        with quiet_loading():
            return load(folder, **_CLOSED)
    except Exception as error:  # there is no common class, and tokenizers raises Exception itself
        raise SourceError(
            f"{folder}: its {what} cannot be read: {first_sentence(error)}. Fetch the model whole: weights alone do "
            "not say what their inputs are."
        ) from error
