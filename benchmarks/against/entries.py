"""Who takes part: our precisions and engines, and the peers, each with the settings that are tried to find its best."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import msgspec

from benchmarks.against.protocol import Kind, PeerName, Precision, Setting

Settings = dict[Kind, tuple[Setting, ...]]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of the comparison.

    `settings` are tried on each set of a kind, and the fastest is used there; one alone is used as it is. A kind that
    is not there is one that the entry does not take.
    """

    name: str
    label: str
    peer: PeerName
    settings: Settings
    precision: Precision = "fp32"
    engine: str = "onnxruntime"
    spin_us: int | None = 0

    @property
    def is_ours(self) -> bool:
        """Whether it is mmalign."""
        return self.peer == "mmalign"

    @property
    def compiles(self) -> bool:
        """Whether its first call of a shape compiles."""
        return self.peer == "torch-compile"


# What a user gets who sets nothing, as ours always is.
PLAIN: Settings = {"image": (Setting(),), "text": (Setting(),)}


def _batches(*sizes: int, processes: int = 0) -> tuple[Setting, ...]:
    return tuple(Setting(batch_size=size, processes=processes) for size in sizes)


def ours(variants: Sequence[str]) -> list[Entry]:
    """Return an entry for each `PRECISION` or `PRECISION@ENGINE`. Raises ValueError for an unknown precision."""
    entries = []
    for variant in variants:
        precision, _, engine = variant.partition("@")
        if precision not in get_args(Precision):
            raise ValueError(f"seen precision {precision!r}, expected one of {', '.join(get_args(Precision))}")
        label = f"mmalign {precision}" + (f", {engine}" if engine else "")
        how = cast("Precision", precision), engine or "onnxruntime"
        entries.append(Entry(f"mmalign-{variant}", label, "mmalign", PLAIN, *how))
    return entries


def peers(num_threads: int) -> list[Entry]:
    """Return everyone else. What is tried is what each one's documentation offers to make it faster on a CPU."""
    channels_last = [Setting(batch_size=size, channels_last=True) for size in (8, 32)]
    loader = Setting(batch_size=8, processes=num_threads, channels_last=True)
    tuned: Settings = {
        "image": (*_batches(1, 4, 32), *_batches(1, 4, processes=num_threads)),
        "text": (*_batches(1, 8, 32), *_batches(1, 8, processes=num_threads)),
    }
    sentences = (*_batches(1, 8, 32), *_batches(8, processes=num_threads))
    eager: Settings = {"image": (*channels_last, loader), "text": _batches(1, 8)}
    compiled: Settings = {"image": _batches(8), "text": _batches(1, 8)}
    directly: Settings = {"image": _batches(1, 8, 32), "text": _batches(1, 32)}
    return [
        Entry("fastembed", "fastembed, defaults", "fastembed", PLAIN),
        Entry("fastembed-tuned", "fastembed, tuned", "fastembed", tuned),
        Entry("sentence-transformers", "sentence-transformers", "sentence-transformers", {"text": sentences}),
        Entry("eager", "PyTorch eager, as written first", "pytorch", PLAIN),
        Entry("eager-tuned", "PyTorch eager, tuned", "pytorch", eager),
        Entry("compile", "torch.compile, frozen", "torch-compile", compiled),
        Entry("onnxruntime", "onnxruntime directly", "onnxruntime", directly),
    ]


def python_of(entry: Entry, fastembed_python: Path) -> Path:
    """Return an entry's interpreter: fastembed wants an older huggingface-hub than transformers, so has its own."""
    return fastembed_python if entry.peer == "fastembed" else Path(sys.executable)
