"""The options of `mmalign bench`, and what all that it does has in common: a bundle, how to load it, and items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar, cast, get_args

import msgspec
import typer

from mmalign_runtime.atomic import replacing
from mmalign_runtime.cli.loading import Loading
from mmalign_runtime.cli.options import as_modality, one_of
from mmalign_runtime.places import check_place
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import OnError

if TYPE_CHECKING:
    from mmalign_runtime.bundle import Bundle
    from mmalign_runtime.image import ImageItem

STDOUT = "-"

Report = TypeVar("Report")

_COMPARE = "Comparing engines"
# Enough different items for a fair mean; more would cost time before anything is measured.
_MAX_ITEMS = 128

ImagesOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Images to use, as INPUT of embed; default: the bundle's golden ones.")
]
TextsOption: TypeAlias = Annotated[
    str | None, typer.Option(help="Texts to use, as INPUT of embed; default: the bundle's golden ones.")
]
KindOption: TypeAlias = Annotated[str | None, typer.Option(help="image or text: that tower alone.", show_default=False)]
OnlyOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="A part: stages, bulk, closed-loop, cold-start; repeat for several.", show_default=False),
]
SecondsOption: TypeAlias = Annotated[
    float, typer.Option(min=1, max=86_400, help="About how long to measure, cold starts on top; 10 for a quick look.")
]
BatchSizeOption: TypeAlias = Annotated[
    list[int] | None, typer.Option(min=1, max=100_000, help="Items in a batch; repeat for several.")
]
RoundsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000, help="This many laps of each batch size and number of callers, not seconds."),
]
CallersOption: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        min=1, max=1000, help="Closed loop: how many callers; repeat for several. Default: 1, and one a thread."
    ),
]
StartsOption: TypeAlias = Annotated[int, typer.Option(min=1, max=1000, help="Cold starts of each tower.")]
OnErrorOption: TypeAlias = Annotated[
    str, typer.Option(help="An item that cannot be embedded: skip (left out and reported) or raise.")
]
GoalOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Compare precisions and threads, of all engines with `--engine all`, for latency (default) or throughput.",
        show_default=False,
        rich_help_panel=_COMPARE,
    ),
]
SaveProfileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write what is recommended, for `Embedder.load(profile=)`.",
        show_default=False,
        rich_help_panel=_COMPARE,
    ),
]
EvenIfNoisyOption: TypeAlias = Annotated[
    bool, typer.Option("--even-if-noisy", help="Recommend on a noisy machine too.", rich_help_panel=_COMPARE)
]
ClippingOption: TypeAlias = Annotated[
    bool, typer.Option("--clipping", help="Count instead how often the items leave the int8 towers' ranges.")
]
ReportOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="FILE|-", help="Write the report as JSON to a file, or to stdout alone.")
]


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is measured next: in one line that moves on a terminal, a line each elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what: console.print(what, highlight=False, soft_wrap=True)
        return
    with console.status("loading") as status:
        yield status.update


def write_report(report: Report, json: str | None, print_report: Callable[[Report], None]) -> None:
    """Print the report, write it as JSON to a file as well, or print nothing but JSON for "-"."""
    import msgspec

    line = msgspec.json.encode(report).decode()
    if json == STDOUT:
        typer.echo(line)
        return
    print_report(report)
    if json is not None:
        with replacing(Path(json)) as temporary:
            temporary.write_text(line + "\n", encoding="utf-8")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, how to load which of its towers, its items (None: the golden ones), and where the report goes."""

    bundle: Path
    asked: Loading
    towers: tuple[Modality, ...]
    images: str | None
    texts: str | None
    on_error: OnError
    json: str | None

    def items(self, bundle: Bundle) -> tuple[Sequence[ImageItem], Sequence[str]]:
        """Return the images and the texts to use."""
        from mmalign_runtime.bench.workload import golden_images, golden_texts

        images = _items(self.images, "image") if self.images else golden_images(bundle)
        texts = cast("list[str]", _items(self.texts, "text")) if self.texts else golden_texts(bundle)
        return images, texts


def request(
    bundle: Path,
    asked: Loading,
    images: str | None,
    texts: str | None,
    kind: str | None,
    on_error: str,
    json: str | None,
) -> Request:
    """Return what the words ask for. Raises InputError for one that is not known, and where JSON cannot be written."""
    if json is not None and json != STDOUT:
        check_place(Path(json))
    return Request(
        bundle=bundle,
        asked=asked,
        towers=("image", "text") if kind is None else (as_modality(kind),),
        images=images,
        texts=texts,
        on_error=cast("OnError", one_of(on_error, get_args(OnError), "--on-error")),
        json=json,
    )


def _items(source: str, kind: Modality) -> list[str | Path | bytes]:
    from mmalign_runtime.bulk.sources import open_source

    return [entry.item for entry in islice(open_source(source, kind), _MAX_ITEMS)]
