"""The part of the page about the machine: peaks, bandwidth, and the share of the peak that each tower reaches."""

from __future__ import annotations

from benchmarks.harness.markdown import number, table
from benchmarks.roofline.products import SHAPES, DType
from benchmarks.roofline.results import Product, Roofline, Tower, ceiling

_DTYPES: tuple[DType, ...] = ("float32", "bfloat16", "int8")
# What a precision of a bundle multiplies in. fp16 weights are computed as float32 on a CPU.
_DTYPE_OF: dict[str, DType] = {"fp32": "float32", "fp16": "float32", "bf16": "bfloat16", "int8": "int8"}


def peaks(roofline: Roofline) -> str:
    """Return the table of the fastest product of every engine and type, one line each."""
    threads = sorted({product.num_threads for product in roofline.products})
    kinds = dict.fromkeys((p.dtype, p.engine, p.operator) for p in _sorted(roofline.products))
    rows = []
    for dtype, engine, operator in kinds:
        found = [_fastest(roofline, dtype, engine, operator, count) for count in threads]
        cells = [f"{found_one.best_gops:,.0f} ({found_one.shape})" for found_one in found]
        rows.append([dtype, engine, operator, *cells])
    return table(("type", "engine", "operator", *(_threads(count) for count in threads)), rows)


def by_shape(roofline: Roofline) -> str:
    """Return the table of median speeds by shape, all threads."""
    threads = max(product.num_threads for product in roofline.products)
    found = {(p.dtype, p.engine, p.operator, p.shape): p for p in roofline.products if p.num_threads == threads}
    kinds = dict.fromkeys((p.dtype, p.engine, p.operator) for p in _sorted(roofline.products))
    rows = [
        [f"{shape.name}: ({shape.m}, {shape.k}) x ({shape.k}, {shape.n})"]
        + [f"{found[(*kind, shape.name)].median_gops:,.0f}" for kind in kinds]
        for shape in SHAPES
    ]
    return table(("", *(" ".join(kind) for kind in kinds)), rows)


def bandwidth(roofline: Roofline) -> str:
    """Return the table of memory bandwidth."""
    rows = [[_threads(one.num_threads), number(one.copy_gb_s), number(one.read_gb_s)] for one in roofline.bandwidth]
    return table(("", "copy, GB/s (read and written)", "read, GB/s"), rows)


def towers(roofline: Roofline) -> str:
    """Return the table of towers and their shares of the ceilings."""
    rows = [
        [
            tower.model,
            tower.tower,
            f"{tower.precision}, {tower.engine}",
            "x".join(str(side) for side in tower.input_shape),
            number(tower.p50_ms),
            number(tower.gop),
            number(tower.gops),
            f"{share(roofline, tower, tower.engine):.0%}",
            f"{share(roofline, tower, None):.0%}",
            number(memory_ms(roofline, tower)),
        ]
        for tower in roofline.towers
    ]
    head = (
        *("model", "tower", "precision", "input", "p50 ms", "Gop", "Gop/s"),
        *("of the peak through this engine", "of the peak through any", "weights read once, ms"),
    )
    return table(head, rows)


def share(roofline: Roofline, tower: Tower, engine: str | None) -> float:
    """Return which part of the ceiling of its type, with all threads, a tower reaches."""
    threads = max(product.num_threads for product in roofline.products)
    return tower.gops / ceiling(roofline, _DTYPE_OF[tower.precision], threads, engine).best_gops


def memory_ms(roofline: Roofline, tower: Tower) -> float:
    """Return how long it takes to read the tower's weights once from memory: a run cannot be faster, unless cached."""
    return tower.weight_mb / max(one.read_gb_s for one in roofline.bandwidth)


def _sorted(products: list[Product]) -> list[Product]:
    return sorted(products, key=lambda p: (_DTYPES.index(p.dtype), p.engine, p.operator))


def _fastest(roofline: Roofline, dtype: DType, engine: str, operator: str, threads: int) -> Product:
    key = (dtype, engine, operator, threads)
    found = [p for p in roofline.products if (p.dtype, p.engine, p.operator, p.num_threads) == key]
    return max(found, key=lambda product: product.best_gops)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"
