"""Two modules of one's own as a model: for code that no library has, and for code that is not run from a file.

Shapes: B batch, L tokens, H and W image sides, D embedding.
"""

from __future__ import annotations

import msgspec
from tokenizers import Tokenizer
from torch import nn

from mmalign.dual_model import Arrays, DualModel, ImageModelTower, ModelOrigin, TextModelTower
from mmalign.signature import ModuleInput, image_inputs, text_inputs
from mmalign_export.errors import SourceError
from mmalign_export.sources.protocol import Imported, Original
from mmalign_export.sources.reference import CheckedReference
from mmalign_export.sources.refusals import LIBRARY_ERRORS, check_finite, first_sentence
from mmalign_export.sources.trial import check_each_alone, tried_width
from mmalign_runtime.errors import EngineError
from mmalign_runtime.spec import Choice, ImageSpec, Similarity, TextSpec

# Of several lengths, and none like another.
_TEXTS = ["dog", "a photo of a dog running on the beach", "Café déjà-vu, 一只在雨中奔跑的狗"]


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
    original = None if reference is None else CheckedReference(reference)
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
    check_each_alone("image module", given.image, image.example().inputs)
    check_each_alone("text module", given.text, text.tensors(_tokenized(text)))
    origin = ModelOrigin(kind="modules", name=given.name, weights_licence=given.licence)
    model = DualModel(towers={"image": image, "text": text}, similarity=given.similarity, origin=origin)
    proven = "eager PyTorch on the modules" if original is None else original.library
    choices = (
        Choice(what="modules", value=f"{image.architecture} and {text.architecture}", origin="given"),
        Choice(what="inputs of the text module", value=", ".join(text.input_names), origin="takes_mask"),
        Choice(what="reference", value=proven, origin="reference"),
    )
    return Imported(model=model, original=original, choices=choices, must_differ=True)


def _width(name: str, module: nn.Module, inputs: tuple[ModuleInput, ...]) -> int:
    if not isinstance(module, nn.Module):
        raise SourceError(f"{name} is {type(module).__name__}, expected a torch.nn.Module. Give the loaded module.")
    module.eval()
    others = {str(each.dtype) for each in module.state_dict().values() if each.is_floating_point()} - {"torch.float32"}
    if others:
        raise SourceError(
            f"the {name} module has weights of {', '.join(sorted(others))}; expected torch.float32, in which a bundle "
            "computes. Call .float() on it."
        )
    check_finite(f"the {name} module", module.state_dict())
    return tried_width(f"{name} module", inputs, module)[0]


def _tokenized(tower: TextModelTower) -> Arrays:
    """Return a few texts as the text module gets them. Raises SourceError for a tokenizer that cannot read them."""
    try:
        return tower.prepare(_TEXTS)
    except (EngineError, *LIBRARY_ERRORS) as error:
        raise SourceError(
            f"the tokenizer cannot read {_TEXTS}: {first_sentence(error)}. Give the text module's own tokenizer, with "
            "a token for what it does not know."
        ) from error
