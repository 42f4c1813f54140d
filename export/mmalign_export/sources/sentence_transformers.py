"""sentence-transformers: its CLIP models, also with another model's text tower (`--text`), and fewer components.

The CLIP inside is read as transformers saved it, and proven against sentence-transformers' own `encode`, whose vectors
are not of unit length. A multilingual text tower (an encoder, pooling and dense layers, held to what was saved) was
trained to the vectors of a CLIP that is named beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmalign._compat import quiet_loading
from mmalign.dual_model import DualModel, ModelTower, TextModelTower, Vectors
from mmalign.signature import text_inputs
from mmalign.towers.sentence_modules import SentenceModules, check_prompts
from mmalign.towers.text import TextTower, TextTowerConfig, load_text_tower, sentence_modules
from mmalign.towers.tokenizer import load_tokenizer
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import model_folder, source_files
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import (
    check_finite,
    check_loaded,
    first_sentence,
    read_json,
    refuse_options,
    refuse_remote_code,
)
from mmalign_export.sources.transformers import LOADING_ERRORS, check_tokenizer_files, weight_files
from mmalign_export.sources.transformers import read as read_transformers
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_export.sources.weight_files import check_precision, dtypes_of
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Choice, SourceFile, TextSpec

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_KIND = "sentence_transformers"
_LIBRARY = "sentence-transformers"
_OF_TRANSFORMERS = ("orientation", "alpha", "length", "jpeg_oversampling", "licence")
_CLIP, _NORMALIZE = "CLIPModel", "Normalize"
# What encoders are saved with and computed without: the pooler and the heads of pretraining, and counted positions.
_UNREAD = ("pooler.", "embeddings.position_ids", "cls.", "lm_head.", "vocab_")


class FirstComponents(nn.Module):
    """Keeps the first components (B, K) of vectors (B, D): of a model trained so that they suffice (Matryoshka)."""

    def __init__(self, before: nn.Module, count: int) -> None:
        super().__init__()
        self.before, self.count = before, count

    def forward(self, features: Tensor) -> Tensor:
        """Return the components that are kept."""
        return cast("Tensor", self.before(features))[:, : self.count]


class SentenceTransformersOriginal:
    """An `Original`: a CLIP for images and texts, or for images alone beside a text model.

    `dim` is how many components are kept: as asked for, or else as a model's own configuration says. None: all.
    """

    def __init__(self, folder: Path, text_folder: Path | None, dim: int | None) -> None:
        self.version = version(_LIBRARY)
        self.library = f"sentence-transformers {self.version}"
        self._images = _load(folder)
        self._texts = self._images if text_folder is None else _load(text_folder)
        stated = (model.truncate_dim for model in (self._images, self._texts) if model.truncate_dim)
        self.dim = dim or min(stated, default=None)
        self._images.truncate_dim = self._texts.truncate_dim = self.dim

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's ids, by itself."""
        rows = (cast("Tensor", self._texts.preprocess([text])["input_ids"])[0] for text in texts)
        return [cast("list[int]", row.tolist()) for row in rows]

    def pixel_values(self, images: Sequence[Image.Image]) -> Vectors:
        """Return (B, 3, H, W) as its image processor makes them."""
        return cast("Vectors", cast("Tensor", self._images.preprocess(list(images))["pixel_values"]).numpy())

    def image_vectors(self, pixel_values: Vectors) -> Vectors:
        """Return (B, D), of any length."""
        with torch.inference_mode():
            found = self._images({"pixel_values": torch.from_numpy(pixel_values), "modality": "image"})
        return cast("Vectors", found["sentence_embedding"].numpy()[:, : self.dim])

    def text_vectors(self, texts: Sequence[str]) -> Vectors:
        """Return (B, D), of any length, each text by itself."""
        rows = [self._texts.encode([text], show_progress_bar=False, convert_to_numpy=True) for text in texts]
        return cast("Vectors", np.concatenate(rows)[:, : self.dim])


def _load(folder: Path) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    try:
        with quiet_loading():
            return SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": "float32"},  # not that of the file: weights of 16 bits are computed in 32 here
            ).eval()
    except LOADING_ERRORS as error:
        raise SourceError(
            f"{folder}: sentence-transformers cannot load it: {first_sentence(error)}. Fetch the model whole."
        ) from error


class _Module(msgspec.Struct, frozen=True):
    type: str
    path: str = ""


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model of a folder or of a name on the hub ("clip-ViT-B-32").

    Raises SourceError, and MissingDependencyError where sentence-transformers is not installed.
    """
    refuse_options(_KIND, options, (*_OF_TRANSFORMERS, "text", "dim"))
    try:
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{location} is a model of sentence-transformers, which is not installed: {error}. Run "
            "`pip install 'mmalign-export[sentence-transformers]'`."
        ) from error
    folder = _folder(str(location))
    clip = _clip_folder(folder)
    if not options.text:
        check_prompts(str(folder))
    inner = read_transformers(clip, msgspec.structs.replace(options, text="", dim=None))
    if inner.model.image.spec.resize == "naflex":
        raise SourceError(
            f"{folder.name} reads patches at a picture's own ratio (NaFlex), which are read of transformers' folders "
            f"alone. Import {clip} with --kind transformers."
        )
    towers, files, choices = dict(inner.model.towers), inner.model.origin.files, list(inner.choices)
    text_folder = _folder(options.text) if options.text else None
    if text_folder is not None:
        towers["text"] = text_tower(text_folder, options)
        files = files | text_files(text_folder)
        choices.append(Choice(what="text tower", value=text_folder.name, origin="--text"))
    original = SentenceTransformersOriginal(folder, text_folder, options.dim)
    if original.dim is not None:
        towers = {name: _shortened(tower, original.dim) for name, tower in towers.items()}
        stated = "--dim" if options.dim else "truncate_dim of config_sentence_transformers.json"
        choices.append(Choice(what="components", value=str(original.dim), origin=stated))
    origin = msgspec.structs.replace(
        inner.model.origin,
        kind=_KIND,
        name=Path(str(location)).name,
        library=_LIBRARY,
        versions=inner.model.origin.versions | {_LIBRARY: original.version},
        files=files,
    )
    model = DualModel(towers=towers, similarity=inner.model.similarity, origin=origin)
    return Imported(model=model, original=original, choices=tuple(choices))


def _folder(location: str) -> Path:
    """Return a folder; names without an owner are of sentence-transformers itself, as its own loader has it."""
    if Path(location).is_dir() or "/" in location:
        return model_folder(location)
    return model_folder(f"{_LIBRARY}/{location}")


def _clip_folder(folder: Path) -> Path:
    """Return where the CLIP lies, after which nothing may follow but what changes no unit vector."""
    try:
        listed = msgspec.json.decode((folder / "modules.json").read_bytes(), type=tuple[_Module, ...])
    except (OSError, msgspec.DecodeError) as error:
        raise SourceError(f"{folder} has no modules.json that can be read: {error}. Fetch the model whole.") from error
    kinds = [module.type.rpartition(".")[2] for module in listed]
    if kinds[:1] == [_CLIP] and (more := sorted(set(kinds[1:]) - {_NORMALIZE})):
        raise SourceError(
            f"{folder.name} has {', '.join(more)} behind its {_CLIP}, which changes vectors and is not read. Load it "
            "yourself, and give its towers as modules to mmalign_export.import_modules."
        )
    if not kinds or kinds[0] not in (_CLIP, "Transformer") or set(kinds[1:]) - {_NORMALIZE}:
        raise SourceError(
            f"{folder.name} consists of {', '.join(kinds) or 'nothing'}; expected a {_CLIP}. A text model alone is no "
            "dual encoder: import the CLIP that it was trained to, and give this one with --text."
        )
    return folder / listed[0].path


def _shortened(tower: ModelTower, dim: int) -> ModelTower:
    if dim > tower.embed_dim:
        raise SourceError(
            f"{dim} components are to be kept (--dim, or truncate_dim of config_sentence_transformers.json), and there "
            f"are {tower.embed_dim}. Give --dim 1 to {tower.embed_dim}."
        )
    return msgspec.structs.replace(
        tower,
        projection=FirstComponents(tower.projection, dim),
        embed_dim=dim,
        definition=f"{tower.definition}, {dim} components",  # the weights are the same, the space is another
    )


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
