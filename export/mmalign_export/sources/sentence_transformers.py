"""sentence-transformers: its CLIP models, also with a text tower of another model (`--text`), and fewer components.

The CLIP inside is read as transformers saved it, and proven against sentence-transformers' own `encode`, whose vectors
are not of unit length. A multilingual text tower was trained to the vectors of a CLIP that is named beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
from torch import Tensor, nn

from mmalign.dual_model import DualModel, ModelTower
from mmalign.towers.sentence_modules import check_prompts
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.folders import model_folder
from mmalign_export.sources.protocol import Imported
from mmalign_export.sources.refusals import refuse_options
from mmalign_export.sources.sentence_transformers_text import text_files, text_tower
from mmalign_export.sources.transformers import read as read_transformers
from mmalign_runtime.errors import MissingDependencyError
from mmalign_runtime.spec import Choice

_KIND = "sentence_transformers"
_LIBRARY = "sentence-transformers"
_OF_TRANSFORMERS = ("orientation", "alpha", "length", "jpeg_oversampling", "licence")
_CLIP, _NORMALIZE = "CLIPModel", "Normalize"


class FirstComponents(nn.Module):
    """Keeps the first components (B, K) of vectors (B, D): of a model trained so that they suffice (Matryoshka)."""

    def __init__(self, before: nn.Module, count: int) -> None:
        super().__init__()
        self.before, self.count = before, count

    def forward(self, features: Tensor) -> Tensor:
        """Return the components that are kept."""
        return cast("Tensor", self.before(features))[:, : self.count]


class _Module(msgspec.Struct, frozen=True):
    type: str
    path: str = ""


def read(location: str | Path, options: SourceOptions) -> Imported:
    """Return the model of a folder or of a name on the hub ("clip-ViT-B-32").

    Raises SourceError, and MissingDependencyError where sentence-transformers is not installed.
    """
    refuse_options(_KIND, options, (*_OF_TRANSFORMERS, "text", "dim"))
    try:
        from mmalign_export.sources.sentence_transformers_original import SentenceTransformersOriginal
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
