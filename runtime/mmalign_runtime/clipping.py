"""How often a tower in eight bits clips what flows through it: on calibration, and on any items since.

`mmalign quantize` keeps in the bundle what counts it, apart from the models: a few kilobytes that, behind a model's
bytes, make it one more output. Items unlike those that it was calibrated on show as shares above calibration's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.engine.providers import import_onnxruntime
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.errors import BundleError, BundleFormatError
from mmalign_runtime.spec import Modality
from mmalign_runtime.strict_json import JsonError, read_json

CLIPPING_NAME = "clipping_int8.json"
# onnxruntime's level for errors alone.
_ERRORS_ONLY = 3


class ClippedTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One rounded activation: its range, and the shares (0..1) of values outside on calibration, on evaluation, and on
    what has been `seen` since."""

    name: str
    low: float
    high: float
    calibration: float = 0.0
    evaluation: float = 0.0
    seen: float | None = None


class TowerClipping(msgspec.Struct, frozen=True, kw_only=True):
    """What counts a tower's clipping: bytes that follow the model's, the output that they add, and its entries."""

    addition: bytes
    output: str
    tensors: tuple[ClippedTensor, ...]


Clipping = dict[Modality, TowerClipping]


def load_clipping(bundle: Bundle) -> Clipping:
    """Read what a bundle keeps, by tower; towers whose ranges cannot be clipped are not in it.

    Raises BundleError when it keeps nothing, BundleFormatError, naming the field, for anything else.
    """
    chosen = (each.quantization for each in bundle.spec.offered() if each.precision == "int8")
    name = next((each.clipping for each in chosen if each is not None and each.clipping), None)
    if name is None:
        raise BundleError(f"{bundle.path} has no {CLIPPING_NAME}: nothing counts what is clipped. Quantize it again.")
    try:
        return read_json(bundle.read(name), Clipping)
    except JsonError as error:
        raise BundleFormatError(f"{bundle.path}: {name}: {error}. Quantize the bundle again.") from error


def clipped_shares(contents: bytes, clipping: TowerClipping, items: Iterable[Feeds]) -> NDArray[np.float64]:
    """Return the share (0..1) of each tensor's values that is outside its range, the mean over items fed one by one.

    onnxruntime runs it on the CPU whatever engine serves: the file and its ranges are the same.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    session = ort.InferenceSession(contents + clipping.addition, options, providers=["CPUExecutionProvider"])
    total, count = np.zeros(len(clipping.tensors)), 0
    for feeds in items:
        total += session.run([clipping.output], dict(feeds))[0]
        count += 1
    return total / max(count, 1)


def count_clipping(bundle: Bundle, tower: Modality, items: Iterable[Feeds]) -> tuple[ClippedTensor, ...]:
    """Return a tower's ranges with the shares that these items clip. `Embedder.clipping` is the usual way in."""
    kept = load_clipping(bundle)
    if tower not in kept:
        raise BundleError(
            f"{bundle.path}: the {tower} tower has no int8 file, or none whose ranges were fixed beforehand: nothing "
            "is clipped. Leave the tower out."
        )
    clipping = kept[tower]
    shares = clipped_shares(bundle.read(bundle.spec.artifact(tower, "int8").file), clipping, items)
    tensors = zip(clipping.tensors, shares, strict=True)
    return tuple(msgspec.structs.replace(tensor, seen=float(share)) for tensor, share in tensors)
