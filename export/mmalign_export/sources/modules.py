"""Two modules of one's own as a model: for code that no library has, and for code that is not run from a file.

Shapes: B batch, L tokens, H and W image sides, D embedding.
"""

from __future__ import annotations

import msgspec
from tokenizers import Tokenizer
from torch import nn

from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, TextModelTower
from mmalign.signature import ModuleInput, image_inputs, text_inputs
from mmalign_export.sources.protocol import Imported, Original
from mmalign_export.sources.refusals import check_finite
from mmalign_export.sources.trial import tried_width
from mmalign_runtime.spec import Choice, ImageSpec, Similarity, TextSpec


class OwnModules(msgspec.Struct, frozen=True, kw_only=True):
    """Two modules and what their inputs are; `import_modules` says what each field means."""

    image: nn.Module
    text: nn.Module
    image_spec: ImageSpec
    text_spec: TextSpec
    tokenizer: Tokenizer
    similarity: Similarity
    takes_mask: bool = True
    name: str = "modules"
    licence: str = "unknown"


def read_modules(given: OwnModules, reference: Original | None) -> Imported:
    """Return the modules as a model, in evaluation mode. Raises SourceError for ones that give no vectors."""
    given.image.eval()
    given.text.eval()
    pixels = image_inputs(given.image_spec)
    tokens = text_inputs(given.text_spec)[: 2 if given.takes_mask else 1]
    image = ImageModelTower(
        backbone=given.image,
        feature_dim=(image_dim := _width("image", given.image, pixels)),
        embed_dim=image_dim,
        inputs=pixels,
        architecture=type(given.image).__name__,
        definition=str(given.image),
        spec=given.image_spec,
    )
    text = TextModelTower(
        backbone=given.text,
        feature_dim=(text_dim := _width("text", given.text, tokens)),
        embed_dim=text_dim,
        inputs=tokens,
        architecture=type(given.text).__name__,
        definition=str(given.text),
        spec=given.text_spec,
        tokenizer=given.tokenizer,
    )
    origin = ModelOrigin(kind="modules", name=given.name, weights_licence=given.licence)
    model = DualModel(towers={"image": image, "text": text}, similarity=given.similarity, origin=origin)
    proven = "eager PyTorch on the modules" if reference is None else reference.library
    choices = (
        Choice(what="modules", value=f"{image.architecture} and {text.architecture}", origin="given"),
        Choice(what="inputs of the text module", value=", ".join(text.input_names), origin="takes_mask"),
        Choice(what="reference", value=proven, origin="reference"),
    )
    return Imported(model=model, original=reference, choices=choices)


def _width(name: str, module: nn.Module, inputs: tuple[ModuleInput, ...]) -> int:
    check_finite(f"the {name} module", module.state_dict())
    return tried_width(f"{name} module", inputs, module)[0]
