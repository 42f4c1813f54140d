import torch
from torch import nn

from mmalign_export.rewrite.attention import structural_copy


def test_a_copy_shares_tensors_and_not_structure() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    copy = structural_copy(module)
    assert {key: tensor.data_ptr() for key, tensor in copy.state_dict().items()} == {
        key: tensor.data_ptr() for key, tensor in module.state_dict().items()
    }
    copy[0] = nn.Identity()
    copy[1].weight = nn.Parameter(torch.zeros(3))
    assert isinstance(module[0], nn.Linear)
    assert module[1].weight.tolist() == [1, 1, 1]
