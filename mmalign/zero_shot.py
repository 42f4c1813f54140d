"""Zero-shot classification: an image's class is the one whose name, put into prompts, lies nearest.

After CLIP (Radford et al. 2021, section 3.1.4), prompt ensembles included.
Shapes: N images, C classes, T templates, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from mmalign.retrieval import Relevance, best_ranks


def class_prompts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return C x T prompts, class after class, each template's `{}` replaced by the name."""
    return [template.replace("{}", name) for name in classes for template in templates]


def class_vectors(prompt_embeds: Tensor, num_classes: int) -> Tensor:
    """Return one unit vector a class, (C, D): the mean of its prompts' vectors, (C x T, D)."""
    means = prompt_embeds.reshape(num_classes, -1, prompt_embeds.shape[-1]).mean(dim=1)  # (C, D)
    return functional.normalize(means, dim=-1)


def zero_shot_accuracy(
    images: Tensor, weights: Tensor, groups: Sequence[frozenset[str]], classes: Sequence[str]
) -> float:
    """Return the share of labelled images (N, D), 0..1, whose nearest class vector (C, D) is one of their own.

    Images without a class are left out; a class that ties with a wrong one does not count as nearest.
    """
    position = {name: at for at, name in enumerate(classes)}
    rows = [row for row, own in enumerate(groups) if own]
    labels = [tuple(position[name] for name in groups[row]) for row in rows]
    ranks = best_ranks(images[rows], weights, Relevance(labels, [(at,) for at in range(len(classes))]))  # (N,)
    return float((ranks == 1).double().mean())
