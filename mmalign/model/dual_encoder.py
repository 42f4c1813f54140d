"""The dual encoder: two towers, two projections, one space of unit vectors, and the loss that shapes it.

Shapes: B batch, L text tokens, S image side, F features of a tower, D embedding.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.heads import AnyHead
from mmalign.heads.identity import IdentityHead
from mmalign.heads.linear import LinearHead
from mmalign.heads.members import LARGEST_JOINT, JointSpace, Members
from mmalign.heads.residual import ResidualHead
from mmalign.imported import ImportedImageTower, ImportedTextTower
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.protocol import Loss, LossConfig
from mmalign.model.attention import AttentionConfig, RegionAttention
from mmalign.towers.regions import channels_of, image_tower_with_regions
from mmalign.towers.text import TextTower
from mmalign.towers.vision import ImageTower


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shared space.

    Attributes:
        embed_dim: Dimensions of the vectors, D.
        image_head: What projects image features into the space.
        text_head: What projects text features into the space.
        num_members: Heads of each side that learn apart, each by a loss of its own, and are served as one: an ensemble,
            of which vectors keep the `embed_dim` directions that vary most. Heads take so many times as long. With
            `embed_dim` they make at most 4,096 components.
        start: How heads begin. "random", or "linear_map": as the closed-form linear map from image features to text
            features of the training pairs, for heads of kind "linear" or "residual" with `standardize_features`.
        attention: Texts look at regions of images, for a second stage of search.
    """

    embed_dim: Annotated[int, msgspec.Meta(ge=1)] = 256
    image_head: AnyHead = LinearHead()
    text_head: AnyHead = LinearHead()
    num_members: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    start: Literal["random", "linear_map"] = "random"
    attention: AttentionConfig = AttentionConfig(weight=0.0)

    def __post_init__(self) -> None:
        """Raise ValueError for heads that cannot begin as a linear map, and for what there is only one of."""
        if self.num_members > 1:
            self._check_members()
        if self.start == "random":
            return
        for name, head in (("image_head", self.image_head), ("text_head", self.text_head)):
            if not (isinstance(head, LinearHead | ResidualHead) and head.standardize_features):
                raise ValueError(
                    f'start "linear_map" needs heads of kind "linear" or "residual" with standardize_features = true; '
                    f"change {name}"
                )

    def _check_members(self) -> None:
        """Raise ValueError for what several heads of a side cannot have, and for more than can be joined."""
        if (side_by_side := self.num_members * self.embed_dim) > LARGEST_JOINT:
            raise ValueError(
                f"num_members = {self.num_members} of embed_dim = {self.embed_dim} are {side_by_side} components side "
                f"by side, and at most {LARGEST_JOINT} are joined; set fewer members, or a smaller embed_dim"
            )
        heads = (self.image_head, self.text_head)
        unfit = {
            'a head of kind "identity", which learns nothing': any(isinstance(head, IdentityHead) for head in heads),
            'start = "linear_map", which all would begin as': self.start == "linear_map",
            "attention, which looks with the vectors of one head": bool(self.attention.weight),
        }
        for what, is_there in unfit.items():
            if is_there:
                raise ValueError(f"num_members = {self.num_members} does not go with {what}; set num_members = 1")


class DualEncoder(nn.Module):
    """Two towers whose projections end in one space of unit vectors."""

    loss: Loss

    def __init__(
        self,
        image_tower: ImageTower | ImportedImageTower,
        text_tower: TextTower | ImportedTextTower,
        config: ModelConfig,
        loss: LossConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.image_projection = _heads(config.image_head, image_tower.feature_dim, config)
        self.text_projection = _heads(config.text_head, text_tower.feature_dim, config)
        self.joint_space = JointSpace(config.num_members, config.embed_dim) if config.num_members > 1 else None
        self.loss = (loss or InfoNCEConfig()).build()
        self.attention: RegionAttention | None = None
        if config.attention.weight:
            channels = channels_of(image_tower_with_regions(image_tower))
            self.attention = RegionAttention(config.attention, channels, config.embed_dim)

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return self.loss.logit_scale.device

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Return image_embeds, (B, D) float32 of unit length, for pixel_values (B, 3, S, S)."""
        return self.project_image(self.image_tower(pixel_values))

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return text_embeds, (B, D) float32 of unit length, for ids and mask (B, L)."""
        return self.project_text(self.text_tower(input_ids, attention_mask))

    def project_image(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, D) for image features (B, F)."""
        return functional.normalize(self.image_projection(features).float(), dim=-1)

    def project_text(self, features: Tensor) -> Tensor:
        """Return unit vectors (B, D) for text features (B, F)."""
        return functional.normalize(self.text_projection(features).float(), dim=-1)

    def image_members(self, features: Tensor) -> list[Tensor]:
        """Return each member's unit vectors, M of (B, D) float32, for image features (B, F)."""
        heads = self.image_projection
        return heads.apart(features) if isinstance(heads, Members) else [self.project_image(features)]

    def text_members(self, features: Tensor) -> list[Tensor]:
        """Return each member's unit vectors, M of (B, D) float32, for text features (B, F)."""
        heads = self.text_projection
        return heads.apart(features) if isinstance(heads, Members) else [self.project_text(features)]

    def join_members(self) -> None:
        """Let vectors be what the members stand for now, where there are several."""
        if self.joint_space is not None:
            sides = (self.image_projection, self.text_projection)
            self.joint_space.join(*(side for side in sides if isinstance(side, Members)))


def _heads(head: AnyHead, feature_dim: int, config: ModelConfig) -> nn.Sequential | Members:
    """Return one side's projection (B, F) -> (B, D)."""
    heads = [head.build(feature_dim, config.embed_dim) for _ in range(config.num_members)]
    return heads[0] if len(heads) == 1 else Members(heads, config.embed_dim)


def freeze(module: nn.Module) -> None:
    """Stop a tower from learning: no gradients, no dropout, no batch statistics."""
    module.requires_grad_(False)
    module.eval()


def is_frozen(module: nn.Module) -> bool:
    """Say whether no parameter of a tower learns."""
    return not any(parameter.requires_grad for parameter in module.parameters())
