"""Towers that begin where another library's model stands: `image_tower.name = "import:PLACE"`.

A tower is the model's own part with its projection, so that its features are the vectors of that model, before they
are divided by their length: a head "identity" keeps them. What reads such models is declared by mmalign-export, as an
entry point; nothing of it is imported before a configuration asks.
Shapes: B batch, L text tokens, H and W image sides, F features.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol, cast

from tokenizers import Tokenizer
from torch import Tensor, nn

from mmalign.dual_model import DualModel, ModelTower
from mmalign.errors import ConfigError, WeightsError
from mmalign_runtime.errors import MmalignError
from mmalign_runtime.spec import ImageSpec, TextSpec

IMPORT_PREFIX = "import:"
ENTRY_POINT_GROUP = "mmalign.sources"


class ReadModel(Protocol):
    """What the entry point names. Raises an MmalignError that says what is wrong with the place."""

    def __call__(self, place: str) -> DualModel:
        """Read the model at a place."""


class ImportedTower(nn.Module):
    """One tower of an imported model: its inputs -> (B, F), where F is the dimension of the model's space."""

    def __init__(self, tower: ModelTower) -> None:
        super().__init__()
        self.backbone = tower.backbone
        self.projection = tower.projection
        self.feature_dim = tower.embed_dim
        self.inputs = tower.inputs
        self.source_definition = tower.definition
        self.requires_grad_(requires_grad=True)

    def definition(self) -> str:
        """Return what decides the features beside the weights: part of the space id and of every id of features."""
        return f"{IMPORT_PREFIX}{self.source_definition}"


class ImportedImageTower(ImportedTower):
    """pixel_values (B, 3, H, W) -> (B, F)."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the features of a batch of images."""
        return cast("Tensor", self.projection(self.backbone(pixel_values)))


class ImportedTextTower(ImportedTower):
    """input_ids (B, L), and the mask where the model reads one, -> (B, F)."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the features of a batch of texts. A mask is left out where the model has none."""
        has_mask = len(self.inputs) > 1
        arguments = (input_ids, attention_mask) if has_mask else (input_ids,)
        return cast("Tensor", self.projection(self.backbone(*arguments)))


def is_imported(name: str) -> bool:
    """Say whether the name of a tower is that of an import."""
    return name.startswith(IMPORT_PREFIX)


def read_imported(name: str) -> DualModel:
    """Return the model that "import:PLACE" names.

    Raises ConfigError when mmalign-export is not installed, WeightsError when the model cannot be read.
    """
    place = name.removeprefix(IMPORT_PREFIX)
    found = tuple(entry_points(group=ENTRY_POINT_GROUP))
    if not found:
        raise ConfigError(
            f"{name!r} is read by mmalign-export, which is not installed. Run `pip install mmalign-export`."
        )
    read = cast("ReadModel", found[0].load())
    try:
        return read(place)
    except MmalignError as error:
        raise WeightsError(f"{name!r} cannot be read: {error}") from error


def imported_image_tower(name: str) -> tuple[ImportedImageTower, ImageSpec]:
    """Return the image tower of an import and the way its pictures take. Errors as `read_imported`."""
    tower = read_imported(name).image
    return ImportedImageTower(tower), tower.spec


def imported_text_tower(name: str) -> tuple[ImportedTextTower, TextSpec, Tokenizer]:
    """Return the text tower of an import, the way its texts take and its tokenizer. Errors as `read_imported`."""
    tower = read_imported(name).text
    return ImportedTextTower(tower), tower.spec, tower.tokenizer
