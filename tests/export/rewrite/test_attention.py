import onnx
import pytest
import timm
import torch
from torch import nn

from mmalign_export.errors import ExportError
from mmalign_export.rewrite.attention import WrittenAttention, structural_copy, unfuse_attention, write_out_attention

# Of values around 5 in float64, summed in another order.
ROUNDING = 1e-13


class Block(nn.Module):
    def __init__(self, width: int = 48, heads: int = 3, **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, **options)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def written(block: nn.Module) -> nn.Module:
    copy = structural_copy(block)
    assert write_out_attention(copy) == 1
    return copy


@pytest.mark.parametrize(("width", "heads"), [(64, 4), (48, 3), (40, 1)])  # heads of 16, 16, and 40: no power of four
@pytest.mark.parametrize("masked", ["not", "causal", "by head"])
@torch.inference_mode()
def test_the_numbers_are_those_of_torch(width: int, heads: int, masked: str) -> None:
    torch.manual_seed(0)
    block, x = Block(width, heads).double(), noise(3, 5, width).double()
    causal = torch.full((5, 5), -torch.inf).triu(1)
    mask = {"not": None, "causal": causal, "by head": causal + noise(3 * heads, 5, 5)}[masked]
    mask = None if mask is None else mask.double()
    found, expected = written(block)(x, mask), block(x, mask)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= ROUNDING


@torch.inference_mode()
def test_other_keys_than_queries_are_attended_to_as_well() -> None:
    torch.manual_seed(0)
    attention = Block().double().attention
    x, y = noise(2, 3, 48).double(), noise(2, 7, 48).double() + 1
    found, expected = WrittenAttention(attention)(x, y, y)[0], attention(x, y, y, need_weights=False)[0]
    assert (found - expected).abs().max() <= ROUNDING


def test_the_original_stays_and_the_weights_are_not_copied() -> None:
    block = Block()
    copy = structural_copy(block)
    write_out_attention(copy)
    assert isinstance(block.attention, nn.MultiheadAttention)
    assert copy.attention.out_proj.weight.data_ptr() == block.attention.out_proj.weight.data_ptr()
    assert torch.equal(copy.attention.in_proj.weight[48:], block.attention.in_proj_weight[48:])


def test_what_cannot_be_written_out_stays() -> None:
    block = Block(kdim=32, vdim=32)
    assert write_out_attention(block) == 0
    assert isinstance(block.attention, nn.MultiheadAttention)
    with pytest.raises(ExportError, match="give the module that holds it"):
        write_out_attention(block.attention)


def test_every_product_with_weights_is_one_matmul_and_no_shape_is_computed() -> None:
    block = Block().eval()
    graphs = []
    for module in (block, written(block)):
        program = torch.onnx.export(
            module, (noise(2, 5, 48),), dynamo=True, dynamic_shapes=({0: "batch"},), opset_version=18, verbose=False
        )
        assert program is not None
        graphs.append(program.model_proto.graph)
    before, after = ([node.op_type for node in graph.node] for graph in graphs)
    assert len(after) < 0.6 * len(before)
    assert {"Squeeze", "Slice", "Sqrt"} & set(before)
    assert not {"Squeeze", "Slice", "Sqrt", "Shape"} & set(after)
    constants = {each.name for each in graphs[1].initializer}
    products = [node for node in graphs[1].node if node.op_type in ("MatMul", "Gemm")]
    assert sum(bool(constants & set(node.input)) for node in products) == 2
    assert isinstance(graphs[1], onnx.GraphProto)


@torch.inference_mode()
def test_attention_of_timm_is_taken_apart_with_the_same_numbers() -> None:
    torch.manual_seed(0)
    attention = timm.layers.Attention(48, num_heads=3, qkv_bias=True).double().eval()
    x, copy = noise(2, 5, 48).double(), structural_copy(attention)
    assert unfuse_attention(copy) == 1
    assert attention.fused_attn
    assert (copy(x) - attention(x)).abs().max() <= ROUNDING
    assert unfuse_attention(Block()) == 0
