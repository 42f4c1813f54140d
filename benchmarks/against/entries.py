"""Who takes part: our precisions and engines, and the peers, each with the settings that are tried to find its best."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

import msgspec

from benchmarks.against.protocol import Kind, PeerName, Precision, Setting


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column of the comparison.

    `settings` are tried on each set of a kind, and the fastest is used there; one alone is used as it is. A kind that
    is not there is one that the entry does not take.
    """

    name: str
    label: str
    peer: PeerName
    settings: dict[Kind, tuple[Setting, ...]]
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


# Ours is what a user gets who sets nothing: it is not tuned.
DEFAULT_OURS = ("fp32", "int8")
PLAIN: dict[Kind, tuple[Setting, ...]] = {"image": (Setting(),), "text": (Setting(),)}


def _batches(*sizes: int, processes: int = 0) -> tuple[Setting, ...]:
    return tuple(Setting(batch_size=size, processes=processes) for size in sizes)


def ours(variants: Sequence[str]) -> list[Entry]:
    """Return an entry for each `PRECISION` or `PRECISION@ENGINE`."""
    entries = []
    for variant in variants:
        precision, _, engine = variant.partition("@")
        label = f"mmalign {precision}" + (f", {engine}" if engine else "")
        found = Entry(
            name=f"mmalign-{variant}",
            label=label,
            peer="mmalign",
            settings=PLAIN,
            precision=_precision(precision),
            engine=engine or "onnxruntime",
        )
        entries.append(found)
    return entries


def _precision(name: str) -> Precision:
    """Return a precision by its name. Raises ValueError for one that no bundle has."""
    if name not in get_args(Precision):
        raise ValueError(f"seen precision {name!r}, expected one of {', '.join(get_args(Precision))}")
    return cast("Precision", name)


def peers(num_threads: int) -> list[Entry]:
    """Return everyone else. What is tried is what each one's documentation offers to make it faster on a CPU."""
    channels_last = [Setting(batch_size=size, channels_last=True) for size in (8, 32)]
    loader = Setting(batch_size=8, processes=num_threads, channels_last=True)
    return [
        Entry(
            name="fastembed",
            label="fastembed, defaults",
            peer="fastembed",
            settings=PLAIN,
        ),
        Entry(
            name="fastembed-tuned",
            label="fastembed, tuned",
            peer="fastembed",
            settings={
                "image": (*_batches(1, 4, 32), *_batches(1, 4, processes=num_threads)),
                "text": (*_batches(1, 8, 32), *_batches(1, 8, processes=num_threads)),
            },
        ),
        Entry(
            name="sentence-transformers",
            label="sentence-transformers",
            peer="sentence-transformers",
            settings={"text": (*_batches(1, 8, 32), *_batches(8, processes=num_threads))},
        ),
        Entry(
            name="eager",
            label="PyTorch eager, as written first",
            peer="pytorch",
            settings=PLAIN,
        ),
        Entry(
            name="eager-tuned",
            label="PyTorch eager, tuned",
            peer="pytorch",
            settings={"image": (*channels_last, loader), "text": _batches(1, 8)},
        ),
        Entry(
            name="compile",
            label="torch.compile, frozen",
            peer="torch-compile",
            settings={"image": _batches(8), "text": _batches(1, 8)},
        ),
        Entry(
            name="onnxruntime",
            label="onnxruntime directly",
            peer="onnxruntime",
            settings={"image": _batches(1, 8, 32), "text": _batches(1, 32)},
        ),
    ]


def python_of(entry: Entry, fastembed_python: Path) -> Path:
    """Return an entry's interpreter: fastembed wants an older huggingface-hub than transformers, so has its own."""
    return fastembed_python if entry.peer == "fastembed" else Path(sys.executable)
