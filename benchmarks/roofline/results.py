"""What a roofline run leaves, and the ceilings that towers are held to."""

from __future__ import annotations

import msgspec

from benchmarks.harness.environment import Environment
from benchmarks.roofline.products import DType


class Product(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Speed of one product: Gop/s (a multiplication and an addition are two) of its fastest and of its median call."""

    engine: str
    operator: str
    dtype: DType
    shape: str
    num_threads: int
    best_gops: float
    median_gops: float


class Bandwidth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Memory bandwidth in GB/s."""

    num_threads: int
    copy_gb_s: float
    read_gb_s: float


class Tower(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tower of one model at one input shape, through the runtime: median milliseconds, Gop a run, Gop/s.

    The operations are those of the float32 file, whatever a precision makes of them.
    """

    model: str
    tower: str
    precision: str
    input_shape: tuple[int, ...]
    p50_ms: float
    gop: float
    weight_mb: float
    gops: float
    engine: str = "onnxruntime"


class Roofline(msgspec.Struct, forbid_unknown_fields=True):
    """One measurement."""

    environment: Environment
    products: list[Product]
    bandwidth: list[Bandwidth]
    towers: list[Tower]


def ceiling(roofline: Roofline, dtype: DType, num_threads: int, engine: str | None = None) -> Product:
    """Return the fastest product of a type with so many threads, through one engine or, for None, through any.

    That of "int8" is what is meant by the int8 ceiling. Raises ValueError when none was measured.
    """
    found = [
        product
        for product in roofline.products
        if product.dtype == dtype and product.num_threads == num_threads and engine in (None, product.engine)
    ]
    if not found:
        raise ValueError(f"no {dtype} product with {num_threads} threads through {engine or 'any engine'} was measured")
    return max(found, key=lambda product: product.best_gops)
