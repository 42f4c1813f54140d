"""The two towers together: the fastest candidates of each whose pair stays inside the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mmalign.figures.retrieval import Recall, Relevance
from mmalign_export.quantization.budget import Budget, lost_points
from mmalign_export.quantization.search import Found, Tower, pair_recalls
from mmalign_export.quantization.trial import open_model, run_all
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import Vectors


class PairOfTowers(msgspec.Struct):
    """Both towers' vectors in float32 and as chosen; `relevant` is None where no recall can be measured."""

    float32: dict[Modality, Vectors]
    relevant: Relevance | None
    vectors: dict[Modality, Vectors]
    chosen: dict[Modality, Found]

    def recalls(self) -> tuple[tuple[Recall, Recall], tuple[Recall, Recall]] | None:
        """Return recall of float32 and of the chosen pair, each (image to text, text to image)."""
        if self.relevant is None:
            return None
        before, after = (
            pair_recalls(each["image"], each["text"], self.relevant) for each in (self.float32, self.vectors)
        )
        return before, after


def choose_pair(
    towers: Mapping[Modality, Tower],
    offered: Mapping[Modality, Sequence[Found]],
    float32: dict[Modality, Vectors],
    relevant: Relevance | None,
    budget: Budget,
) -> PairOfTowers:
    """Take the fastest of each tower; while the pair loses too much, step back where the next one costs least."""
    pair = PairOfTowers(float32, relevant, dict(float32), {})
    left = {kind: list(candidates) for kind, candidates in offered.items() if candidates}
    while left:
        for kind, candidates in left.items():
            session = open_model(candidates[0].contents, towers[kind].input_names, towers[kind].options)
            pair.vectors[kind] = run_all(session, towers[kind].batches)
            session.close()
        recalls = pair.recalls()
        if recalls is None or budget.allows(lost_points(*recalls), 1.0):
            break
        slowest = min(left, key=lambda kind: _step(left[kind]))
        left[slowest].pop(0)
        if not left[slowest]:
            del left[slowest]
            pair.vectors[slowest] = float32[slowest]
    pair.chosen = {kind: candidates[0] for kind, candidates in left.items()}
    return pair


def _step(candidates: Sequence[Found]) -> float:
    """Return how many times slower the next candidate is."""
    following = candidates[1].trial.speedup() if len(candidates) > 1 else 1.0
    return candidates[0].trial.speedup() / following
