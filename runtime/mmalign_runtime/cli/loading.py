"""The options of every verb that loads a bundle's towers, and the embedder that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec
import typer

from mmalign_runtime.cli.options import as_precision, as_provider
from mmalign_runtime.engine.providers import Provider
from mmalign_runtime.engine.session import ComputePrecision
from mmalign_runtime.spec import Modality

if TYPE_CHECKING:
    from mmalign_runtime.embedder import Embedder

EngineOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="onnxruntime (default), openvino or aotinductor, as installed.", show_default=False),
]
ProviderOption: TypeAlias = Annotated[
    str | None, typer.Option(help="auto (default), cpu, cuda, tensorrt or openvino.", show_default=False)
]
PrecisionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="fp32 (default), fp16 or int8, as the bundle offers; bf16 with engine openvino.", show_default=False
    ),
]
ThreadsOption: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Threads; default: what the container allows.", show_default=False)
]
ProfileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What `bench --save-profile` wrote: it stands in for the defaults of these options.",
        show_default=False,
    ),
]
CacheOption: TypeAlias = Annotated[
    bool, typer.Option("--cache", help="Keep optimised graphs between starts, as Embedder.load(cache=True) does.")
]


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; None leaves it to the profile, or to the default."""

    engine: str | None
    provider: Provider | None
    precision: ComputePrecision | None
    threads: int | None
    profile: Path | None
    cache: bool

    def load(self, bundle: Path, towers: Sequence[Modality] = ("image", "text")) -> Embedder:
        """Return the embedder. Raises as `Embedder.load` does."""
        from mmalign_runtime.embedder import Embedder

        return Embedder.load(
            bundle,
            profile=self.profile,
            engine=self.engine,
            provider=self.provider,
            precision=self.precision,
            num_threads=self.threads,
            towers=towers,
            cache=self.cache,
        )

    def batch_size(self, kind: Modality) -> int:
        """Return the batch size of calls that name none. Raises ProfileError when the profile cannot be read."""
        from mmalign_runtime.choices import Choices
        from mmalign_runtime.profile import load_profile

        choices = Choices() if self.profile is None else load_profile(self.profile).choices()
        return choices.batch_sizes.image if kind == "image" else choices.batch_sizes.text


def loading(
    engine: str | None,
    provider: str | None,
    precision: str | None,
    threads: int | None,
    profile: Path | None,
    cache: bool,
) -> Loading:
    """Return what the words ask for. Raises InputError for one that is not known."""
    return Loading(
        engine=engine,
        provider=None if provider is None else as_provider(provider),
        precision=None if precision is None else as_precision(precision),
        threads=threads,
        profile=profile,
        cache=cache,
    )
