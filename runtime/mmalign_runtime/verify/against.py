"""Two bundles, the same items: is the one that is about to serve the one that made the index?"""

from __future__ import annotations

from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.names import as_text
from mmalign_runtime.verify.difference import difference
from mmalign_runtime.verify.golden_cases import GoldenRun
from mmalign_runtime.verify.report import Against


def compare(other: BaseEmbedder, bundle: Bundle, golden: GoldenRun) -> Against:
    """Embed the golden items of `bundle` with another one's embedder.

    It passes when it says that it is of the same space, and is: every vector inside the bounds.
    """
    images = {
        outcome.case.name: difference(other.encode_image([bundle.source(outcome.case.file)]), outcome.vector)
        for outcome in golden.images
    }
    texts = {
        outcome.case.name: difference(other.encode_text([outcome.case.text]), outcome.vector)
        for outcome in golden.texts
    }
    is_within = all(row.within(golden.bounds["image"]) for row in images.values())
    is_within = is_within and all(row.within(golden.bounds["text"]) for row in texts.values())
    rows = images | texts
    farthest = min(rows, key=lambda name: rows[name].cosine)
    is_same_space = other.space_id == bundle.space_id
    return Against(
        bundle=as_text(other.bundle.path),
        space_id=other.space_id,
        is_same_space=is_same_space,
        passed=is_same_space and is_within,
        min_cosine=rows[farthest].cosine,
        max_abs_difference=max(row.max_abs for row in rows.values()),
        farthest=farthest,
    )
