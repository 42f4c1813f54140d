"""The pooled row of a tower's last block, taken before the block: the same numbers, fewer rows, or nothing changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from mmalign_export.rewrite.attention import write_out_attention
from mmalign_export.rewrite.pooled_row import take_pooled_row_early
from mmalign_export.to_onnx import write_onnx
from tests.tolerances import POOLED_EARLY

WIDTH, LENGTH = 32, 7
# Of one block that is read at one row: the output projection and the two products of the MLP; and with queries of
# their own, those too.
PRODUCTS, WITH_QUERIES = 3, 4


class Block(nn.Module):
    """One pre-norm block by nn.MultiheadAttention, or by separate layers as transformers has it."""

    def __init__(self, *, is_separate: bool, num_heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.num_heads, self.is_separate = num_heads, is_separate
        if is_separate:
            self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        else:
            self.attention = nn.MultiheadAttention(WIDTH, num_heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = x + self._attend(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if not self.is_separate:
            return self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]
        heads = (each(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for each in (self.q, self.k, self.v))
        return self.out(nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2))


def causal(x: torch.Tensor) -> torch.Tensor:
    return torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)


def of_ones_and_length(x: torch.Tensor) -> torch.Tensor:
    return causal(x)[None, None]


def of_items(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, L, L): causal, and another bias of each item."""
    return causal(x)[None, None] + x[:, None, :, :1] * 0.1


def of_keys(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, 1, L), as padding is kept out."""
    return torch.where(x[:, None, None, :, 0] > 1.5, -3.0e38, 0.0)


def first(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0]


def last(x: torch.Tensor) -> torch.Tensor:
    return x[:, -1]


def highest(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x[torch.arange(x.shape[0]), rows]


class Tower(nn.Module):
    """Two blocks, a pooling, a projection."""

    def __init__(
        self,
        pool: Callable[..., torch.Tensor],
        mask: Callable[[torch.Tensor], torch.Tensor] | None = None,
        *,
        is_separate: bool = False,
        norm: str = "before",
        num_blocks: int = 2,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block(is_separate=is_separate) for _ in range(num_blocks))
        self.norm, self.projection = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 8, bias=False)
        self.pool, self.mask, self.place = pool, mask, norm
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=WIDTH**-0.5)
        write_out_attention(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask, rows = None if self.mask is None else self.mask(x), x[:, :, 0].argmax(-1)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) if self.place == "before" else x
        pooled = self.pool(x, rows) if self.pool is highest else self.pool(x)
        return self.projection(self.norm(pooled) if self.place == "after" else pooled)


def traced(tower: nn.Module) -> onnx_ir.Model:
    with torch.inference_mode():
        program = torch.onnx.export(
            tower.eval(),
            (torch.randn(2, LENGTH, WIDTH),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2)},),
            verbose=False,
        )
    assert program is not None
    return program.model


def outputs(model: onnx_ir.Model, path: Path) -> list[np.ndarray]:
    """What the written file gives for batches of one and three, and two lengths."""
    write_onnx(model, path)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    drawn = np.random.default_rng(1)
    shapes = ((1, LENGTH, WIDTH), (3, LENGTH, WIDTH), (3, 11, WIDTH))
    name = session.get_inputs()[0].name
    return [session.run(None, {name: drawn.standard_normal(shape).astype(np.float32)})[0] for shape in shapes]


def rows_of_products(model: onnx_ir.Model) -> Counter[object]:
    """How many products with weights there are by their number of rows."""
    found = [node.outputs[0].shape for node in model.graph if node.op_type == "MatMul" and node.inputs[1].const_value]
    return Counter(str(shape[1]) if len(shape) == 3 else "" for shape in found)


def check_equal(model: onnx_ir.Model, tmp_path: Path, num_products: int) -> None:
    before, counted = outputs(model, tmp_path / "before.onnx"), rows_of_products(model)
    assert take_pooled_row_early(model) == num_products
    after = outputs(model, tmp_path / "after.onnx")
    assert rows_of_products(model)["1"] == num_products
    assert sum(rows_of_products(model).values()) == sum(counted.values())
    for mine, theirs in zip(after, before, strict=True):
        assert np.abs(theirs).max() > 0.5
        assert np.abs(mine - theirs).max() <= POOLED_EARLY.bound


MASKS = (None, causal, of_ones_and_length, of_items, of_keys)
POOLS = (first, last, highest)
# Every mask with the first row; every row with the mask that CLIP has and with one of keys; both places of the norm.
CASES = [
    pytest.param(pool, mask, ("before", "after")[(i + j) % 2], id=f"{pool.__name__}-{getattr(mask, '__name__', mask)}")
    for i, pool in enumerate(POOLS)
    for j, mask in enumerate(MASKS)
    if pool is first or mask in (causal, of_keys)
]


@pytest.mark.parametrize(("pool", "mask", "norm"), CASES)
def test_the_numbers_are_those_of_the_whole_block(
    pool: Callable[..., torch.Tensor], mask: Callable[[torch.Tensor], torch.Tensor] | None, norm: str, tmp_path: Path
) -> None:
    is_separate = mask not in (None, causal)  # nn.MultiheadAttention takes no such masks
    tower = Tower(pool, mask, is_separate=is_separate, norm=norm)
    check_equal(traced(tower), tmp_path, WITH_QUERIES if is_separate else PRODUCTS)


def test_a_row_that_is_not_the_pooled_one_would_be_seen(tmp_path: Path) -> None:
    """The check of equality fails for its neighbour."""
    model = traced(Tower(first, num_blocks=1))
    before = outputs(model, tmp_path / "before.onnx")
    take_pooled_row_early(model)
    (index,) = (value for name, value in model.graph.initializers.items() if name.endswith("_early_0"))
    index.const_value = onnx_ir.tensor(np.array([1], np.int64))
    after = outputs(model, tmp_path / "after.onnx")
    assert np.abs(after[0] - before[0]).max() > 1e-2


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(1)


def first_and_mean(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0] + x.mean(1)


class Probe(nn.Module):
    """A head that attends with one query: its output has one row already."""

    def __init__(self) -> None:
        super().__init__()
        self.probe, self.attention = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.MultiheadAttention(WIDTH, 4)
        self.attention.batch_first = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.probe.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0][:, 0]


class Shuffled(nn.Module):
    """Takes rows of other items than their own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[torch.arange(x.shape[0] - 1, -1, -1), x[:, :, 0].argmax(-1)]


@pytest.mark.parametrize("pool", [mean, first_and_mean, Probe(), Shuffled()])
def test_a_tower_that_reads_other_rows_stays_as_it_is(pool: Callable[..., torch.Tensor]) -> None:
    model = traced(Tower(pool, num_blocks=1))
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    assert take_pooled_row_early(model) == 0
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_row_that_is_taken_of_the_embeddings_alone_stays_where_it_is() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.projection = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.projection(self.norm(x)[:, 0])

    assert take_pooled_row_early(traced(Plain())) == 0


def test_all_tokens_that_are_an_output_besides_are_kept(tmp_path: Path) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Tower(first, num_blocks=1).blocks[0]

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = self.block(x)
            return x[:, 0], x

    assert take_pooled_row_early(traced(Both())) == 0
