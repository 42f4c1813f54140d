"""`mmalign bench --clipping`: the ranges that items leave most often, beside what calibration left."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mmalign_runtime.cli.bench_options import Request
from mmalign_runtime.cli.bench_output import write_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmalign_runtime.clipping import ClippedTensor
    from mmalign_runtime.spec import Modality

_NUM_SHOWN = 10


def bench_clipping(request: Request, *, is_named: bool) -> None:
    """Count what the items clip, and print it. A tower that was named is held to having ranges, others are left out."""
    from mmalign_runtime.bundle import open_bundle
    from mmalign_runtime.clipping import load_clipping
    from mmalign_runtime.embedder import Embedder

    towers = request.towers if is_named else tuple(load_clipping(open_bundle(request.bundle)))
    with Embedder.load(request.bundle, precision="int8", provider="cpu", towers=towers, lazy=True) as embedder:
        images, texts = request.items(embedder.bundle)
        found = embedder.clipping(images=images if "image" in towers else (), texts=texts if "text" in towers else ())
    write_report(found, request.json, print_clipping)


def print_clipping(found: dict[Modality, tuple[ClippedTensor, ...]]) -> None:
    """Print each tower's shares, and whether they are above calibration's and evaluation's."""
    console = Console(highlight=False)
    for tower, tensors in found.items():
        console.print(_verdict(tower, tensors), soft_wrap=True)
        table = Table("activation", "range", title=f"{tower}, share of values clipped", title_justify="left")
        for column in ("seen", "calibration", "evaluation"):
            table.add_column(column, justify="right")
        for tensor in sorted(tensors, key=lambda tensor: -_seen(tensor))[:_NUM_SHOWN]:
            shares = (f"{share:.4%}" for share in (_seen(tensor), tensor.calibration, tensor.evaluation))
            table.add_row(tensor.name, f"{tensor.low:.3g} .. {tensor.high:.3g}", *shares)
        console.print(table)


def _verdict(tower: Modality, tensors: Sequence[ClippedTensor]) -> str:
    seen = mean(_seen(tensor) for tensor in tensors)
    known = max(mean(tensor.calibration for tensor in tensors), mean(tensor.evaluation for tensor in tensors))
    if seen <= known:
        return f"{tower}: {seen:.4%} of rounded values are clipped, no more than when it was quantized ({known:.4%})."
    return (
        f"{tower}: {seen:.4%} of rounded values are clipped, more than when it was quantized ({known:.4%}). These "
        "items are unlike those of its calibration: compare their vectors with float32, and quantize again with such."
    )


def _seen(tensor: ClippedTensor) -> float:
    return tensor.seen or 0.0
