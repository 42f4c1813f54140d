"""How a bundle is run: every option that a user has, declared, described and checked here and nowhere else.

`Embedder.load` takes the fields as arguments, the command line makes its options of them, a profile and the manifest of
a bulk embedding record them, `bench` compares them, and `Embedder.info` shows what became of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict, get_args

import msgspec
import numpy as np

from mmalign_runtime.arguments import as_count
from mmalign_runtime.errors import ProviderError
from mmalign_runtime.spec import Modality, Precision

Provider: TypeAlias = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
ResolvedProvider: TypeAlias = Literal["cpu", "cuda", "tensorrt", "openvino"]

# "bf16" is not a file of a bundle but a way to compute the fp32 one, on engines and processors that have it.
BFLOAT16: Final = "bf16"
ComputePrecision: TypeAlias = Precision | Literal["bf16"]

DEFAULT_ENGINE: Final = "onnxruntime"
DEFAULT_BATCH_SIZE: Final = 32
# More than any machine has: engines end in errors of their own, or use up the memory.
MOST_THREADS: Final = 4096

# The words that a field may be, of fields that are words. Engines are known by `find_engine`.
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "provider": get_args(Provider),
    "precision": (*get_args(Precision), BFLOAT16),
}
# Counts, and what None means for those that may be left open.
_COUNTS = {
    "num_threads": ", or None for what is available",
    "dim": ", or None for whole vectors",
    "image_batch_size": None,
    "text_batch_size": None,
}
_FLAGS = ("allow_spinning", "allow_tf32", "cache")
# What profiles and manifests of earlier versions have beside these.
GONE_FIELDS: Final = ("cuda_graphs",)


def _says(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a bundle is run. Raises ValueError for a number or a flag that is none, ProviderError for an unknown word.

    Whether this machine and a bundle can do what is asked is found out when the bundle is loaded.
    """

    engine: Annotated[str, _says("What runs the towers: onnxruntime, openvino or aotinductor, as installed.")] = (
        DEFAULT_ENGINE
    )
    provider: Annotated[
        Provider, _says("Where onnxruntime runs: auto (CUDA where it is), cpu, cuda, tensorrt or openvino.")
    ] = "auto"
    precision: Annotated[
        ComputePrecision,
        _says("fp32, fp16 or int8, as the bundle offers; bf16 computes the fp32 files so, with engine openvino."),
    ] = "fp32"
    num_threads: Annotated[int | None, _says("Threads of a run; none named: what the container allows.")] = None
    dim: Annotated[
        int | None, _says("Vectors of that many first components, of those that the bundle declares as prefixes.")
    ] = None
    allow_spinning: Annotated[
        bool, _says("Threads wait busily between runs: for a machine that does nothing else. Only onnxruntime.")
    ] = False
    allow_tf32: Annotated[
        bool, _says("CUDA keeps 10 of 23 bits of mantissa: quicker, and other vectors than other machines'.")
    ] = False
    cache: Annotated[
        bool, _says("Keep graphs as onnxruntime optimised them in the user's cache, for quicker starts. CPU only.")
    ] = False
    image_batch_size: Annotated[int, _says("Images that go through the tower at once, in calls that do not say.")] = (
        DEFAULT_BATCH_SIZE
    )
    text_batch_size: Annotated[int, _says("Texts that go through the tower at once, in calls that do not say.")] = (
        DEFAULT_BATCH_SIZE
    )

    def __post_init__(self) -> None:
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                raise ProviderError(f"{name} {getattr(self, name)!r} is not known; choose one of {', '.join(words)}.")
        for name, or_none in _COUNTS.items():
            value = getattr(self, name)
            if value is not None or or_none is None:
                msgspec.structs.force_setattr(self, name, as_count(value, name, otherwise=or_none or ""))
        if (self.num_threads or 1) > MOST_THREADS:
            raise ValueError(f"num_threads is {self.num_threads}, expected at most {MOST_THREADS}.")
        for name in _FLAGS:
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"{name} is {value!r}, expected True or False.")
            msgspec.structs.force_setattr(self, name, bool(value))

    def __str__(self) -> str:
        plural = "" if self.num_threads == 1 else "s"
        threads = "" if self.num_threads is None else f", {self.num_threads} thread{plural}"
        return f"{self.engine} {self.precision}{threads}{', spinning' if self.allow_spinning else ''}"

    def batch_size(self, kind: Modality) -> int:
        """Return how many items of a kind go through their tower at once."""
        return self.image_batch_size if kind == "image" else self.text_batch_size

    def fields(self) -> dict[str, Any]:
        """Return the fields of RuntimeConfig alone, where this is a record that has more."""
        return {name: getattr(self, name) for name in RuntimeConfig.__struct_fields__}


class RuntimeFields(TypedDict, total=False):
    """The fields of RuntimeConfig as arguments. None leaves one to the config or the profile, or to its default."""

    engine: str | None
    provider: Provider | None
    precision: ComputePrecision | None
    num_threads: int | None
    dim: int | None
    allow_spinning: bool | None
    allow_tf32: bool | None
    cache: bool | None
    image_batch_size: int | None
    text_batch_size: int | None


def configured(config: RuntimeConfig | None, fields: RuntimeFields) -> RuntimeConfig:
    """Return a config in which the fields given take the place of its own; None is the defaults.

    Raises as RuntimeConfig does, TypeError for a field that it does not have, ValueError for what is not a config.
    """
    if config is not None and not isinstance(config, RuntimeConfig):
        raise ValueError(f"config is a {type(config).__name__}, expected a RuntimeConfig.")
    base = RuntimeConfig() if config is None else RuntimeConfig(**config.fields())
    return msgspec.structs.replace(base, **{name: value for name, value in fields.items() if value is not None})
