"""Where parity's bounds lie: what is just inside passes and what is just outside fails, by numbers written here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign_export.errors import ParityError
from mmalign_export.parity import Artifact, CaseDifference, check_parity, measure_parity, onnx_artifact
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import Golden, ImageCase, TextCase, load_golden
from mmalign_runtime.spec import Modality
from mmalign_runtime.verify import verify_bundle
from tests.export.canaries import largest_difference, moved_bundle, step_for

BUNDLE = Path(__file__).parents[1] / "runtime/fixtures/tiny_bundle"
TOWERS: tuple[Modality, ...] = ("image", "text")
# Wide enough that a cosine leaves its bound while every component stays inside its own: 4096 times the square of
# 0.99e-4, over two, is 2.0e-5.
WIDE = 4096

Vector = NDArray[np.float64]


def unit(width: int, seed: int = 0) -> Vector:
    """Return a unit vector whose components are all as large: plus or minus 1 / sqrt(width)."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], width)
    return signs / np.sqrt(width)


def turned(vector: Vector, cosine: float) -> Vector:
    """Return a vector of the same length at a given cosine, every component moved by about as much."""
    across = vector * np.where(np.arange(len(vector)) % 2, 1.0, -1.0)  # orthogonal: the signs cancel in pairs
    return cosine * vector + np.sqrt(1 - cosine**2) * across


def shifted(vector: Vector, by: float) -> Vector:
    """Return a vector with one component moved."""
    moved = vector.copy()
    moved[len(vector) // 2] += by
    return moved


def golden_of(vectors: Sequence[Vector], texts: Sequence[Vector]) -> Golden:
    """Return golden cases with these vectors, named by their place."""
    images = tuple(
        ImageCase(
            name=f"image {number}",
            file=f"{number}.png",
            height=1,
            width=1,
            pixels_sha256="",
            pixels_sample=(),
            pixel_values_sample=(),
            embedding=tuple(vector.tolist()),
        )
        for number, vector in enumerate(vectors)
    )
    cases = tuple(
        TextCase(name=f"text {number}", text=str(number), input_ids=(), embedding=tuple(vector.tolist()))
        for number, vector in enumerate(texts)
    )
    return Golden(images=images, texts=cases)


def giving(images: Sequence[Vector], texts: Sequence[Vector]) -> Artifact:
    """Return an artifact that answers with these vectors, each for the item of its place."""

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        return np.array([images[int(path.stem)] for path in paths], np.float32)

    def embed_texts(asked: Sequence[str]) -> NDArray[np.float32]:
        return np.array([texts[int(text)] for text in asked], np.float32)

    return Artifact("given", embed_images, embed_texts)


@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("kind", TOWERS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_one_component_may_move_by_a_ten_thousandth(kind: Modality, at: int, sign: int) -> None:
    right = [unit(16, seed) for seed in range(5)]

    def check(moved_by: float) -> None:
        wrong = [shifted(vector, sign * moved_by * (number == at)) for number, vector in enumerate(right)]
        images, texts = (wrong, right) if kind == "image" else (right, wrong)
        check_parity(giving(images, texts), golden_of(right, right), Path())

    check(0.99e-4)
    with pytest.raises(ParityError, match=rf"{kind} case '{kind} {at}'.* max abs 1\.01e-04 \(at most 0\.0001\)"):
        check(1.01e-4)


@pytest.mark.parametrize("kind", TOWERS)
def test_a_cosine_may_be_lower_by_a_hundred_thousandth(kind: Modality) -> None:
    right = [unit(WIDE, seed) for seed in range(3)]

    def check(cosine: float) -> None:
        wrong = [turned(right[0], cosine), *right[1:]]
        images, texts = (wrong, right) if kind == "image" else (right, wrong)
        differences = measure_parity(giving(images, texts), golden_of(right, right), Path())
        assert max(difference.max_abs for difference in differences) < 0.99e-4
        check_parity(giving(images, texts), golden_of(right, right), Path())

    check(0.999991)
    with pytest.raises(ParityError, match=rf"{kind} case '{kind} 0'.*: cosine 0\.9999890 \(at least 0\.99999\)"):
        check(0.999989)


def test_a_tower_that_rounds_more_has_the_bound_that_is_said_of_it() -> None:
    """Asked for with the case that moved most, for a tower beyond the usual bound alone, and recorded."""
    right = [unit(16, seed) for seed in range(3)]
    images = [shifted(right[0], 2e-4), shifted(right[1], 3e-4), right[2]]
    asked: list[tuple[Modality, str]] = []

    def bound(tower: Modality, case: str) -> float:
        asked.append((tower, case))
        return 3.5e-4

    found = check_parity(giving(images, right), golden_of(right, right), Path(), bound)
    assert asked == [("image", "image 1")]
    assert (found["image"].abs_bound, found["text"].abs_bound) == (3.5e-4, 1e-4)
    with pytest.raises(ParityError, match=r"image case 'image 1'.* max abs 3\.00e-04 \(at most 0\.00025\)"):
        check_parity(giving(images, right), golden_of(right, right), Path(), lambda tower, case: 2.5e-4)


def test_what_is_recorded_is_the_worst_of_all_comparisons() -> None:
    right = [unit(16, seed) for seed in range(4)]
    images = [right[0], shifted(right[1], 0.5e-4), *right[2:]]
    texts = [*right[:3], shifted(right[3], -0.7e-4)]
    found = check_parity(giving(images, texts), golden_of(right, right), Path())
    for tower, moved in (("image", 0.5e-4), ("text", 0.7e-4)):
        parity = found[tower]
        assert parity.num_cases == 4
        assert (parity.cosine_bound, parity.abs_bound) == (0.99999, 1e-4)
        assert parity.max_abs_difference == pytest.approx(moved, rel=1e-3)
        # One component of 1/4 grows or shrinks by e: 1 - cosine is e squared times 15/16, over two.
        assert 1 - parity.min_cosine == pytest.approx(moved**2 * 15 / 32, rel=1e-2)


def test_vectors_of_another_length_have_the_cosine_of_their_direction() -> None:
    right = [unit(16)]
    doubled = [2 * right[0]]
    (difference, *_) = measure_parity(giving(doubled, doubled), golden_of(right, right), Path())
    assert difference.cosine == pytest.approx(1.0, abs=1e-7)
    assert difference.max_abs == pytest.approx(0.25, abs=1e-7)
    longer = golden_of(doubled, doubled)
    (difference, *_) = measure_parity(giving(right, right), longer, Path())
    assert difference.cosine == pytest.approx(1.0, abs=1e-7)


def test_every_case_is_compared_in_batches_of_1_3_and_17() -> None:
    right = [unit(16, seed) for seed in range(4)]
    sizes: list[tuple[str, int]] = []
    plain = giving(right, right)

    def embed_images(paths: Sequence[Path]) -> NDArray[np.float32]:
        sizes.append(("image", len(paths)))
        return plain.embed_images(paths)

    def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        sizes.append(("text", len(texts)))
        return plain.embed_texts(texts)

    artifact = Artifact("counted", embed_images, embed_texts)
    differences = measure_parity(artifact, golden_of(right, right[:3]), Path())
    assert sizes == [
        *[("image", 1)] * 4, *[("text", 1)] * 3, *[("image", 3)] * 2, ("text", 3), ("image", 17), ("text", 17)
    ]  # fmt: skip
    by_batch = {size: {d.case for d in differences if d.batch_size == size} for size in (1, 3, 17)}
    everything = {*(f"image {number}" for number in range(4)), *(f"text {number}" for number in range(3))}
    assert by_batch == {1: everything, 3: everything, 17: everything}
    assert {difference.kind for difference in differences} == {"image", "text"}


def test_the_worst_comparison_is_named_with_how_many_failed() -> None:
    right = [unit(16, seed) for seed in range(2)]
    wrong = [shifted(right[0], 2e-4), shifted(right[1], 3e-4)]
    # Batches of 1, 3 and 17 hold 2, 3 and 17 images, and as many texts.
    with pytest.raises(ParityError, match=r"in 22 of 44 .* the worst is image case 'image 1' in a batch of 1:"):
        check_parity(giving(wrong, right), golden_of(right, right), Path())


@pytest.mark.parametrize("wrong", ["shape", "nan", "infinity"])
@pytest.mark.parametrize("kind", TOWERS)
def test_what_cannot_be_compared_is_named_with_its_first_cases(kind: Modality, wrong: str) -> None:
    right = [unit(16, seed) for seed in range(5)]

    def broken(items: Sequence[object]) -> NDArray[np.float32]:
        if wrong == "shape":
            return np.ones((len(items), 15), np.float32)
        found = np.ones((len(items), 16), np.float32)
        found[-1, -1] = np.nan if wrong == "nan" else np.inf
        return found

    plain = giving(right, right)
    artifact = (
        Artifact("b", broken, plain.embed_texts) if kind == "image" else Artifact("b", plain.embed_images, broken)
    )
    finite = wrong == "shape"
    reason = rf"{kind} cases {kind} 0\.\.\.: seen vectors of shape \(1, {15 if finite else 16}\), finite: {finite}"
    with pytest.raises(ParityError, match=reason + r"; expected \(1, 16\), all finite\."):
        measure_parity(artifact, golden_of(right, right), Path())


@pytest.mark.parametrize("kind", TOWERS)
def test_canary_one_weight_moved_a_little_fails_parity_and_verify(tmp_path: Path, kind: Modality) -> None:
    step = step_for(BUNDLE, kind, 1e-4, tmp_path)
    inside = moved_bundle(BUNDLE, kind, 0.9 * step, tmp_path / "inside")
    outside = moved_bundle(BUNDLE, kind, 1.1 * step, tmp_path / "outside")
    assert 0.85e-4 < largest_difference(inside, kind) < 1e-4 < largest_difference(outside, kind) < 1.15e-4
    golden = load_golden(open_bundle(BUNDLE))
    found = check_parity(onnx_artifact(Embedder.load(inside, provider="cpu")), golden, inside)
    assert found[kind].max_abs_difference < 1e-4
    assert verify_bundle(inside, provider="cpu").passed
    with pytest.raises(ParityError, match=rf"the worst is {kind} case .* max abs 1\.[01]\de-04 \(at most 0\.0001\)"):
        check_parity(onnx_artifact(Embedder.load(outside, provider="cpu")), golden, outside)
    report = verify_bundle(outside, provider="cpu")
    failed = [case for case in report.cases if not case.passed]
    assert failed
    assert {(case.kind, case.stage) for case in failed} == {(kind, "tower")}


def test_the_bounds_of_a_bundle_are_those_it_was_made_with() -> None:
    bounds = {(each.parity.cosine_bound, each.parity.abs_bound) for each in open_bundle(BUNDLE).spec.artifacts}
    assert bounds == {(0.99999, 1e-4)}


def test_what_was_compared_is_frozen() -> None:
    assert Artifact.__struct_config__.frozen
    assert CaseDifference.__struct_config__.frozen
    assert CaseDifference("one", "text", 1, 0.99999, 1e-4).within()  # a bound is inside


@pytest.mark.parametrize("kind", TOWERS)
def test_three_cases_of_a_batch_are_named(kind: Modality) -> None:
    right = [unit(16, seed) for seed in range(5)]
    plain = giving(right, right)

    def broken(items: Sequence[object]) -> NDArray[np.float32]:
        return np.ones((len(items), 16 if len(items) < 17 else 15), np.float32)

    images, texts = (broken, plain.embed_texts) if kind == "image" else (plain.embed_images, broken)
    named = f"{kind} cases {kind} 0, {kind} 1, {kind} 2"
    with pytest.raises(ParityError, match=rf"^{named}\.\.\.: seen vectors of shape \(17, 15\), .* expected \(17, 16\)"):
        measure_parity(Artifact("b", images, texts), golden_of(right, right), Path())
