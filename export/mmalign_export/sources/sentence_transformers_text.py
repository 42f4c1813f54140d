"""The text tower of a sentence-transformers model: its encoder, pooling and dense layers, held to what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from mmalign.dual_model import TextModelTower
from mmalign.signature import text_inputs
from mmalign.towers.sentence_modules import SentenceModules
from mmalign.towers.text import TextTower, TextTowerConfig, load_text_tower, sentence_modules
from mmalign.towers.tokenizer import load_tokenizer
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import source_files
from mmalign_export.sources.refusals import check_finite, check_loaded, read_json, refuse_remote_code
from mmalign_export.sources.transformers_loading import check_tokenizer_files, weight_files
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_export.sources.weight_files import check_precision, dtypes_of
from mmalign_runtime.spec import SourceFile, TextSpec

# What encoders are saved with and computed without: the pooler and the heads of pretraining, and counted positions.
_UNREAD = ("pooler.", "embeddings.position_ids", "cls.", "lm_head.", "vocab_")


def text_tower(folder: Path, options: SourceOptions) -> TextModelTower:
    """Return the text tower of a folder: its encoder, pooling and dense layers. Raises SourceError."""
    config = TextTowerConfig(name=str(folder))
    modules = sentence_modules(config)
    weights, dense = _weights(folder, modules)
    tower, tokenizer = load_text_tower(config), load_tokenizer(config)
    assert isinstance(tower, TextTower), "a folder is no import"
    _check_read(tower, weights, dense)
    encoder = tower.encoder.config
    limits = [modules.max_seq_length if modules else None, getattr(encoder, "max_position_embeddings", None)]
    length = min((int(each) for each in limits if each), default=0)
    pad_id = getattr(encoder, "pad_token_id", None)
    pad_token = None if pad_id is None else tokenizer.id_to_token(pad_id)
    if pad_token is None or length < 2:
        raise SourceError(f"{folder.name} does not say its padding token or how many tokens it reads.")
    tokenizer = fitted_tokenizer(tokenizer, int(encoder.vocab_size))
    spec = TextSpec(
        context_length=length,
        truncation_side=_truncation_side(folder / (modules.encoder_path if modules else "")),
        padding="fixed" if options.length == "fixed" else "longest",
        pad_token_id=int(cast("int", pad_id)),
        pad_token=pad_token,
    )
    return TextModelTower(
        backbone=tower.eval().requires_grad_(False),
        feature_dim=tower.feature_dim,
        embed_dim=tower.feature_dim,
        inputs=text_inputs(spec),
        architecture=str(encoder.model_type),
        definition=f"{encoder.model_type} {tower.definition()}",
        spec=spec,
        tokenizer=tokenizer,
    )


def _truncation_side(encoder: Path) -> Literal["left", "right"]:
    config = encoder / "tokenizer_config.json"
    is_left = config.is_file() and read_json(config).get("truncation_side") == "left"
    return "left" if is_left else "right"


def text_files(folder: Path) -> dict[str, SourceFile]:
    """Return hash and size of what is read of a text tower's folder, by its path below "text"."""
    weights = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    return {f"text/{name}": file for name, file in source_files(folder, weights).items()}


def _weights(folder: Path, modules: SentenceModules | None) -> tuple[list[Path], list[Path]]:
    """Return the files of the encoder's weights, and those of the dense layers, each whole. Raises SourceError."""
    encoder = folder if modules is None else folder / modules.encoder_path
    refuse_remote_code(encoder)
    check_tokenizer_files(encoder)
    paths = () if modules is None else modules.dense_paths
    return weight_files(encoder), [file for path in paths for file in weight_files(folder / path)]


def _check_read(tower: TextTower, weights: list[Path], dense: list[Path]) -> None:
    """Raise SourceError for weights that are of no float, not finite, or not of the encoder."""
    name, own = str(weights[0].parent), tower.encoder.state_dict()
    prefix = f"{tower.encoder.base_model_prefix}."
    found = {key.removeprefix(prefix): dtype for key, dtype in dtypes_of(weights).items()}
    check_loaded(name, surplus=[key for key in found.keys() - own.keys() if not key.startswith(_UNREAD)])
    check_precision(name, found, own)
    check_precision(name, dtypes_of(dense), {})
    check_finite(name, tower.state_dict())
