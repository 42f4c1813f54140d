"""Zero-shot classification: an image's class is the one whose name, put into prompts, lies nearest.

After CLIP (Radford et al. 2021, section 3.1.4), prompt ensembles included.
Shapes: C classes, T templates, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def class_prompts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return C x T prompts, class after class, each template's `{}` replaced by the name."""
    return [template.replace("{}", name) for name in classes for template in templates]


def class_vectors(prompt_embeds: Tensor, num_classes: int) -> Tensor:
    """Return one unit vector a class, (C, D): the mean of its prompts' vectors, (C x T, D)."""
    means = prompt_embeds.reshape(num_classes, -1, prompt_embeds.shape[-1]).mean(dim=1)  # (C, D)
    return functional.normalize(means, dim=-1)
