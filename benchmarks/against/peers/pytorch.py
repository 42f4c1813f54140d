"""PyTorch, eager or compiled: PIL and torchvision for pixels, transformers for tokens, the run's own modules as towers.

This is the loop that torchvision's and transformers' documentation teach: open, transform, stack, run under `no_grad`.
A DataLoader with workers, channels last and other batch sizes are settings.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import PreTrainedTokenizerFast

from benchmarks.against.protocol import Kind, Load, Setting
from mmalign.config import Config, load_config
from mmalign.dual_model import EmbeddingModule, TowerFunction
from mmalign.model import DualEncoder
from mmalign.run import initial_model, load_run
from mmalign_runtime.spec import ImageSpec

# What people take when they take no other.
DEFAULT_BATCH_SIZE = 32
_PACKAGES = ("torch", "torchvision", "transformers", "pillow")


class PyTorchPeer:
    """Both towers, eager, or compiled with the weights frozen into the code."""

    def __init__(self, request: Load) -> None:
        torch.set_num_threads(request.num_threads)
        run = Path(request.model.run)
        model, config = load_model(run)
        self._transform = image_transform(config.image)
        self._tokenizer = load_transformers_tokenizer(run)
        self._context_length = config.text.context_length
        self._tower = EmbeddingModule(model.image_tower, model.image_projection).eval()
        self._image: TowerFunction = self._tower
        self._text: TowerFunction = EmbeddingModule(model.text_tower, model.text_projection).eval()
        self._memory_format = torch.contiguous_format
        if request.peer == "torch-compile":
            torch._inductor.config.freezing = True
            # Shapes are left to torch: it compiles for the first, and from the second on for any. Asking for any at
            # once (dynamic=True) gives BERT nothing: 179 ms for 8 x 40 tokens, eager 183, this 153.
            self._image, self._text = torch.compile(self._image), torch.compile(self._text)
        self.versions = {name: version(name) for name in _PACKAGES}

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items batch by batch."""
        encode = self._encode_images if kind == "image" else self._encode_texts
        with torch.no_grad():
            return torch.cat(list(encode(items, setting))).numpy()

    def _encode_images(self, paths: Sequence[str], setting: Setting) -> Iterator[Tensor]:
        memory_format = torch.channels_last if setting.channels_last else torch.contiguous_format
        if memory_format is not self._memory_format:
            self._tower.to(memory_format=memory_format)
            self._memory_format = memory_format
        loader = DataLoader(
            _Images(paths, self._transform), setting.batch_size or DEFAULT_BATCH_SIZE, num_workers=setting.processes
        )
        for pixel_values in loader:  # (B, 3, S, S)
            yield self._image(pixel_values.contiguous(memory_format=memory_format))

    def _encode_texts(self, texts: Sequence[str], setting: Setting) -> Iterator[Tensor]:
        batch_size = setting.batch_size or DEFAULT_BATCH_SIZE
        for start in range(0, len(texts), batch_size):
            tokens = self._tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=self._context_length,
                return_tensors="pt",
            )
            yield self._text(tokens["input_ids"], tokens["attention_mask"])


class _Images(Dataset[Tensor]):
    def __init__(self, paths: Sequence[str], transform: Callable[[Image.Image], Tensor]) -> None:
        self._paths = paths
        self._transform = transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self._paths[number]) as image:
            return self._transform(image.convert("RGB"))  # (3, S, S)


def load_model(run: Path) -> tuple[DualEncoder, Config]:
    """Return a run's model: that of its best checkpoint, or, where none was written, the seeded one it starts with."""
    if (run / "best.safetensors").is_file():
        loaded = load_run(run)
        return loaded.model, loaded.config
    config = load_config(run / "config.toml")
    return initial_model(config).eval(), config


def image_transform(spec: ImageSpec) -> Callable[[Image.Image], Tensor]:
    """Return torchvision's words for an image spec: resize, crop, to tensor, normalise. (H, W, 3) -> (3, S, S)."""
    modes = {
        "bilinear": transforms.InterpolationMode.BILINEAR,
        "bicubic": transforms.InterpolationMode.BICUBIC,
    }
    size = spec.shape if spec.resize == "squash" else spec.shortest_edge
    crop = [] if spec.resize == "squash" else [transforms.CenterCrop(spec.shape)]
    steps = [transforms.Resize(size, modes[spec.interpolation]), *crop, transforms.ToTensor()]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose([*steps, transforms.Normalize(spec.mean, spec.std)])
    return composed


def load_transformers_tokenizer(run: Path) -> PreTrainedTokenizerFast:
    """Return the run's tokenizer as transformers loads a tokenizer.json."""
    return PreTrainedTokenizerFast(tokenizer_file=str(run / "tokenizer.json"), pad_token="[PAD]")
