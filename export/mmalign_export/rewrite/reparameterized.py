"""Branches that were parallel in training, folded into the one convolution that they are in inference.

MobileCLIP's FastViT trains convolutions of several sizes, and a BatchNorm beside them; timm knows how each of its
modules folds. The numbers are the same but for rounding.
"""

from __future__ import annotations

from torch import nn

# What timm's modules offer, in the order in which its own `reparameterize_model` looks for them.
_FOLDS = ("fuse", "reparameterize", "switch_to_deploy")


def fold_branches(module: nn.Module) -> int:
    """Fold, in place, every module below one that can be folded, and return how many can.

    Call it on a `structural_copy`, in evaluation mode. A network without such branches needs no timm.
    """
    count = sum(any(hasattr(each, name) for name in _FOLDS) for each in module.modules())
    if count:
        from timm.models import reparameterize_model

        assert not module.training, "BatchNorm is folded with its running statistics"
        reparameterize_model(module, inplace=True)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    return count
