"""A model as exporter, golden cases, evaluation and quantization see it, wherever it came from.

A training run gives one (`run_model`), and so does every source of the exporter. It is not what learns: that is
`model.DualEncoder`. Its towers stand by name, so that a third tower is another entry.
Shapes: B batch, L text tokens, S image side, F features of a tower, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import TypeAlias, cast

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from mmalign.data import Pair
from mmalign.errors import ModelError
from mmalign.figures.scores import Evaluation
from mmalign.memory import memory_reason
from mmalign.pixels.preprocess import build_preprocess
from mmalign.signature import ModuleInput, TraceExample, trace_example
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.image import ImageItem, decode_image
from mmalign_runtime.image_encoder import Preprocessor
from mmalign_runtime.spec import REGIONS, SCORES, Attention, ImageSpec, Modality, Similarity, SourceFile, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer

TowerFunction: TypeAlias = Callable[..., Tensor]
Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
Vectors: TypeAlias = NDArray[np.float32]

# float32 rounding of a division; vectors that are zero or not finite are off by all of it.
_UNIT_LENGTH = 1e-3
# Rows of one run: on two cores one of eight takes half the time of eight.
_TOGETHER = 8


class EmbeddingModule(nn.Module):
    """What is traced: a backbone, a projection, and division by the length."""

    def __init__(self, backbone: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return unit vectors (B, D), float32."""
        return self.project(self.backbone(*inputs))

    def project(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, D), float32, for the backbone's features (B, F)."""
        return functional.normalize(self.projection(features).float(), dim=-1)


class ModelTower(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One tower: from named arrays to unit vectors.

    `backbone` takes `inputs`, in their order, and returns pooled features (B, `feature_dim`); `projection` takes those
    to (B, `embed_dim`). The vectors' length need not be one: `module` divides by it. `output_name` is that of the
    traced module's output, `architecture` what people call the tower. `definition` says what decides its vectors
    beside weights, spec and tokenizer (an activation, a pooling, the hash of a graph): it is part of the space id.
    `description` is the tower's configuration as transformers writes it, empty where transformers has none.
    """

    backbone: nn.Module
    feature_dim: int
    embed_dim: int
    inputs: tuple[ModuleInput, ...]
    output_name: str
    architecture: str
    definition: str
    projection: nn.Module = msgspec.field(default_factory=nn.Identity)
    description: dict[str, object] = {}

    @cached_property
    def module(self) -> EmbeddingModule:
        """Return backbone, projection and unit length as one module in evaluation mode: what is traced and compiled."""
        return EmbeddingModule(self.backbone, self.projection).eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the module's inputs, in order."""
        return tuple(each.name for each in self.inputs)

    def example(self) -> TraceExample:
        """Return inputs to trace the module with."""
        return trace_example(self.inputs)

    def tensors(self, arrays: Arrays) -> tuple[Tensor, ...]:
        """Return the module's inputs, in order, from named arrays, of which there may be more."""
        return tuple(torch.from_numpy(arrays[name]) for name in self.input_names)

    def run(self, arrays: Arrays) -> Vectors:
        """Return the vectors (B, D), of unit length, that eager PyTorch gives for named arrays.

        Raises ModelError when they are of another shape, not finite, or zero, and when the tower cannot take them.
        """
        vectors = self._vectors(arrays)
        shape = (len(arrays[self.input_names[0]]), self.embed_dim)
        lengths = vectors.norm(dim=-1)
        if vectors.shape != shape or not ((lengths - 1).abs() <= _UNIT_LENGTH).all():
            raise ModelError(
                f"the tower of {self.output_name} gives vectors of shape {tuple(vectors.shape)} and length "
                f"{lengths.min():g} to {lengths.max():g}; expected {shape} and 1. Let its backbone return pooled "
                "features, set embed_dim to their width after the projection, and look at its weights."
            )
        return cast("Vectors", vectors.numpy())

    def _vectors(self, arrays: Arrays) -> Tensor:
        try:
            with torch.inference_mode():
                return cast("Tensor", self.module(*self.tensors(arrays)))
        except (RuntimeError, IndexError) as error:  # torch raises either for an index that is not there
            if memory_reason(error) is not None:
                raise
            taken = ", ".join(f"{name} {arrays[name].shape}" for name in self.input_names)
            reason = next(iter(str(error).strip().splitlines()), "").rstrip(".")
            raise ModelError(
                f"the tower of {self.output_name} cannot take {taken}: {reason}. Its spec makes these: look whether it "
                "has as many positions as the context_length says, and a vector for each id of the tokenizer."
            ) from error

    def run_each(self, inputs: Sequence[Arrays]) -> Vectors:
        """Return the vectors (N, D) of N inputs of one row each, those of one shape beside each other run together.

        Raises ModelError as `run` does.
        """
        together = (list(same) for _, same in groupby(inputs, key=lambda arrays: [arrays[n].shape for n in arrays]))
        batches = (same[at : at + _TOGETHER] for same in together for at in range(0, len(same), _TOGETHER))
        found = [
            self.run({name: np.concatenate([each[name] for each in batch]) for name in batch[0]}) for batch in batches
        ]
        return np.concatenate(found)


class ImageModelTower(ModelTower, frozen=True, kw_only=True, dict=True):
    """The image side: its spec, which decides its preprocessing graph too."""

    spec: ImageSpec
    output_name: str = "image_embeds"

    @cached_property
    def graph(self) -> bytes:
        """Return the preprocessing graph, an ONNX file: pixels (H, W, 3) uint8 -> pixel_values (1, 3, H, W)."""
        return bytes(build_preprocess(self.spec).SerializeToString(deterministic=True))

    @cached_property
    def preprocess(self) -> Preprocessor:
        """Return the preprocessing graph, loaded."""
        return Preprocessor(self.graph, thread_pool(available_threads()))

    def prepare(self, items: Sequence[ImageItem]) -> dict[str, NDArray[np.generic]]:
        """Decode and preprocess images: the module's input, (B, 3, H, W) or patches. Raises ItemError."""
        decoded = (decode_image(item, self.spec, index=index) for index, item in enumerate(items))
        none = np.empty((0, *self.spec.values_shape), np.float32)  # so that no images give no vectors, as no texts do
        return {self.input_names[0]: np.concatenate([none, *(self.preprocess(pixels) for pixels in decoded)])}

    def embed(self, items: Sequence[ImageItem]) -> Vectors:
        """Return the reference vectors (B, D) of images, one batch. Raises ItemError and ModelError."""
        return self.run(self.prepare(items))


class TextModelTower(ModelTower, frozen=True, kw_only=True, dict=True):
    """The text side: its spec and its tokenizer."""

    spec: TextSpec
    tokenizer: Tokenizer
    output_name: str = "text_embeds"

    @cached_property
    def bound_tokenizer(self) -> TextTokenizer:
        """Return the tokenizer bound to the spec, a copy of its own."""
        return TextTokenizer(Tokenizer.from_str(self.tokenizer.to_str()), self.spec)

    def prepare(self, items: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Tokenize texts: input_ids and attention_mask (B, L), of which the module takes what it declares."""
        tokens = self.bound_tokenizer.encode(items)
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    def embed(self, items: Sequence[str]) -> Vectors:
        """Return the reference vectors (B, D) of texts, one batch. Raises ItemError and ModelError."""
        return self.run(self.prepare(items))


class ModelGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A module that is traced beside the towers: it takes `inputs`, in order, as `*inputs`, and gives one tensor."""

    module: nn.Module
    inputs: tuple[ModuleInput, ...]
    output_name: str

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the module's inputs, in order."""
        return tuple(each.name for each in self.inputs)

    def example(self) -> TraceExample:
        """Return inputs to trace the module with."""
        return trace_example(self.inputs)

    def run(self, *arrays: Vectors) -> Vectors:
        """Return what eager PyTorch gives for the inputs, in order."""
        with torch.inference_mode():
            output: Tensor = self.module(*(torch.from_numpy(each) for each in arrays))
        return cast("Vectors", output.numpy())


class ModelAttention(msgspec.Struct, frozen=True, kw_only=True):
    """The second stage of a model: how regions lie, and its graphs, as a bundle's `Attention` describes them."""

    spec: Attention
    regions: ModelGraph
    scores: ModelGraph


class ModelOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from. No field depends on the folder it was read from.

    `kind` is the source ("run"), `library` computes the reference's vectors, `versions` are those of the libraries that
    made the model, `files` what was read, by name, `data` the names of what it was trained on.
    """

    kind: str
    name: str
    library: str = "torch"
    versions: dict[str, str] = {}
    weights_licence: str = "unknown"
    files: dict[str, SourceFile] = {}
    data: tuple[str, ...] = ()


class DualModel(msgspec.Struct, frozen=True, kw_only=True):
    """Towers into one space of unit vectors, how their cosines are read, and where they come from.

    `own_pairs` are a few real inputs that the model did not learn from, of which golden cases are made; `evaluation` is
    what was measured of it, for its card. `prefix_dims` are the numbers of first components that it was trained to be
    compared by alone, `attention` a second stage of search.

    Example:
        A model of two modules of one's own::

            image = ImageModelTower(
                backbone=conv_net, feature_dim=64, embed_dim=64, inputs=image_inputs(image_spec),
                architecture="conv-net", definition="three convolutions, ReLU", spec=image_spec,
            )
            model = DualModel(
                towers={"image": image, "text": text},
                similarity=Similarity(kind="softmax", scale=100.0),
                origin=ModelOrigin(kind="modules", name="conv-net"),
            )
    """

    towers: dict[Modality, ModelTower]
    similarity: Similarity
    origin: ModelOrigin
    own_pairs: tuple[Pair, ...] = ()
    evaluation: Evaluation | None = None
    prefix_dims: tuple[int, ...] = ()
    attention: ModelAttention | None = None

    def __post_init__(self) -> None:
        """Raise ModelError without an image and a text tower of one width, or for a similarity that orders nothing."""
        wanted: dict[Modality, type[ModelTower]] = {"image": ImageModelTower, "text": TextModelTower}
        if wrong := [name for name, tower in wanted.items() if not isinstance(self.towers.get(name), tower)]:
            raise ModelError(
                f"the model has towers {sorted(self.towers)}, and {' and '.join(wrong)} is missing or of another kind. "
                "Give an ImageModelTower as 'image' and a TextModelTower as 'text'."
            )
        if not (math.isfinite(self.similarity.bias) and 0 < self.similarity.scale < math.inf):
            raise ModelError(
                f"the similarity has scale {self.similarity.scale:g} and bias {self.similarity.bias:g}; expected a "
                "finite scale above zero, and a finite bias. Look at the weights and at the configuration."
            )
        if self.similarity.kind == "softmax" and self.similarity.bias:
            raise ModelError(
                f"similarity 'softmax' with bias {self.similarity.bias}, which cancels out. Set kind='sigmoid', or "
                "bias to 0."
            )
        widths = {name: tower.embed_dim for name, tower in self.towers.items()}
        if len(set(widths.values())) > 1:
            raise ModelError(f"the towers' vectors have the widths {widths}; expected one. Project them to one space.")

    def traced(self) -> dict[str, ModelTower | ModelGraph]:
        """Return everything that is traced, by the name of its artifacts: the towers, and the attention's graphs."""
        found: dict[str, ModelTower | ModelGraph] = dict(self.towers.items())
        if self.attention is not None:
            found |= {REGIONS: self.attention.regions, SCORES: self.attention.scores}
        return found

    @property
    def image(self) -> ImageModelTower:
        """Return the image tower."""
        return cast("ImageModelTower", self.towers["image"])

    @property
    def text(self) -> TextModelTower:
        """Return the text tower."""
        return cast("TextModelTower", self.towers["text"])

    @property
    def embed_dim(self) -> int:
        """Return D."""
        return self.image.embed_dim
