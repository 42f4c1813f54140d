"""A convolutional tower that stands still: each BatchNorm2d is folded into the convolution before it.

In evaluation mode such a layer is a factor and an offset for each channel, which a convolution can apply itself. As it
stands it reads and writes every activation once more.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Of the largest feature: folding rounds each weight once, which moves features of EfficientNet-Lite0 by 1e-6.
LARGEST_DIFFERENCE = 1e-5


def folded(tower: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module | None:
    """Return a copy of a tower, in evaluation mode, without BatchNorm2d layers, or None where none can be folded.

    The copy is proven before it is given: for `inputs` its features differ from the tower's by rounding alone. They
    differ by more where a convolution's output goes elsewhere too, or where its weights are made anew in every pass.

    Args:
        tower: Any module; it is not changed.
        inputs: What it takes, of any values.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in tower.modules()):
        return None
    quick = copy.deepcopy(tower).cpu().eval()
    with torch.inference_mode():
        expected, pairs = _watched(quick, inputs)
        for name, (convolution, norm) in pairs.items():
            mean, variance = norm.running_mean, norm.running_var
            assert mean is not None
            assert variance is not None
            fused = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            convolution.weight, convolution.bias = fused
            quick.set_submodule(name, _behind(norm))
        difference = (quick(*inputs) - expected).abs().max()
    return quick if pairs and difference <= LARGEST_DIFFERENCE * expected.abs().max() else None


def _behind(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what a layer does after the normalization."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()


def _watched(
    tower: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Return what a tower gives, and by a BatchNorm2d's name the convolution that it runs on; both run once."""
    given: list[tuple[nn.Conv2d, Tensor]] = []
    taken: list[tuple[str, nn.BatchNorm2d, Tensor]] = []
    hooks = []
    for name, layer in tower.named_modules():
        if isinstance(layer, nn.Conv2d):
            hooks.append(layer.register_forward_hook(lambda conv, _, output: given.append((conv, output))))
        elif type(layer) in (nn.BatchNorm2d, BatchNormAct2d) and layer.track_running_stats:
            hooks.append(
                layer.register_forward_pre_hook(lambda norm, args, name=name: taken.append((name, norm, args[0])))
            )
    features: Tensor = tower(*inputs)
    for hook in hooks:
        hook.remove()
    runs = Counter([conv for conv, _ in given]) + Counter([norm for _, norm, _ in taken])
    by_output = {id(output): conv for conv, output in given}
    found = [(name, by_output.get(id(tensor)), norm) for name, norm, tensor in taken]
    return features, {name: (conv, norm) for name, conv, norm in found if conv and runs[conv] == runs[norm] == 1}
