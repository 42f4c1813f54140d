"""Where verify's bounds lie: what is just inside passes and what is just outside fails, by numbers written here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import json
from msgspec.structs import replace

from mmalign_runtime import Embedder
from mmalign_runtime.base_embedder import BaseEmbedder, open_embedder
from mmalign_runtime.bundle.golden import Golden, ImageCase, TextCase, load_golden
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.engine.session import NodeGroup
from mmalign_runtime.errors import VerificationError
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.spec import BundleSpec, Parity
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.verify import (
    Against,
    CaseResult,
    CheckResult,
    VerifyReport,
    require_golden,
    verify_bundle,
    verify_embedder,
)
from mmalign_runtime.verify import run as verify_run
from mmalign_runtime.verify.against import compare
from mmalign_runtime.verify.difference import Difference, difference
from mmalign_runtime.verify.float32 import check_float32, check_placement
from mmalign_runtime.verify.golden_cases import (
    GoldenRun,
    ImageOutcome,
    TextOutcome,
    _Floor,
    judge,
    run_golden,
    run_image,
    run_text,
)
from mmalign_runtime.verify.invariance import bound, check_concurrency, check_image_batch, check_text_batch

SpecEdit = Callable[[Callable[[BundleSpec], BundleSpec]], None]
BOUNDS = Parity(
    num_cases=1,
    min_cosine=1.0,
    max_abs_difference=0.0,
    cosine_bound=0.99999,
    abs_bound=1e-4,
)
EACH = {"image": BOUNDS, "text": BOUNDS}


def image_case(embedder: Embedder, name: str = "landscape 3x2") -> ImageCase:
    return next(case for case in load_golden(embedder.bundle).images if case.name == name)


def text_case(embedder: Embedder) -> TextCase:
    return load_golden(embedder.bundle).texts[0]


def judged(embedder: Embedder, case: ImageCase) -> CaseResult:
    return run_image(case, embedder.bundle.source(case.file), embedder.image, BOUNDS).result


def shifted(embedding: Sequence[float], by: float) -> tuple[float, ...]:
    return (embedding[0] + by, *embedding[1:])


# Differences.


def test_a_difference_is_the_lowest_cosine_and_the_largest_component_over_all_rows() -> None:
    found = np.array([[1, 0], [0, 1], [3, 4]], np.float32)
    reference = [[1.0, 0.0], [0.6, 0.8], [3.0, 3.5]]
    measured = difference(found, reference)
    assert measured.cosine == pytest.approx(0.8)
    assert measured.max_abs == pytest.approx(0.6)
    assert difference(found[:1], [[-1.0, 0.0]]) == Difference(-1.0, 2.0)
    assert difference(found[:1], [[2.0, 0.0]]) == Difference(1.0, 1.0)


def test_no_row_is_no_difference_and_another_shape_or_no_number_is_the_largest() -> None:
    assert difference(np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)) == Difference(1.0, 0.0)
    unlike = Difference(-1.0, float("inf"))
    assert difference(np.ones((1, 2), np.float32), [[1.0, 1.0, 1.0]]) == unlike
    assert difference(np.ones((1, 2), np.float32), [[1.0, 1.0], [1.0, 1.0]]) == unlike
    assert difference(np.array([[1, np.nan]], np.float32), [[1.0, 1.0]]) == unlike
    assert difference(np.array([[1, np.inf]], np.float32), [[1.0, 1.0]]) == unlike


@pytest.mark.parametrize(
    ("cosine", "max_abs", "passed"),
    [(0.99999, 1e-4, True), (0.9999901, 0.99e-4, True), (0.9999899, 0.0, False), (1.0, 1.01e-4, False)],
)
def test_a_case_is_inside_when_both_figures_are(cosine: float, max_abs: float, passed: bool) -> None:
    result = judge("one", "text", Difference(cosine, max_abs), BOUNDS, "tower", "why")
    assert result.passed is passed
    assert (result.name, result.kind, result.cosine, result.max_abs_difference) == ("one", "text", cosine, max_abs)
    assert (result.stage, result.detail) == ((None, "") if passed else ("tower", "why"))


# Golden cases.


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_golden_vector_that_is_just_outside_fails_and_just_inside_passes(embedder: Embedder, sign: int) -> None:
    image, text = image_case(embedder), text_case(embedder)
    for by, passed in ((0.97e-4, True), (1.03e-4, False)):
        moved = msgspec.structs.replace(image, embedding=shifted(image.embedding, sign * by))
        assert judged(embedder, moved).passed is passed
        told = msgspec.structs.replace(text, embedding=shifted(text.embedding, sign * by))
        outcome = run_text(told, embedder.text, BOUNDS)
        assert outcome.result.passed is passed
        assert outcome.result.stage == (None if passed else "tower")
        assert (outcome.case, outcome.vector.shape) == (told, (1, 16))


@pytest.mark.parametrize("sign", [-1, 1])
def test_pixel_values_may_move_by_half_a_level(embedder: Embedder, sign: int) -> None:
    # Half of 1/255, over the smallest usual standard deviation, 0.22: 0.008913.
    case = msgspec.structs.replace(image_case(embedder), embedding=(1.0, *[0.0] * 15))
    for by, stage in ((0.00890, "tower"), (0.00893, "preprocess")):
        sample = (*case.pixel_values_sample[:-1], case.pixel_values_sample[-1] + sign * by)
        result = judged(embedder, msgspec.structs.replace(case, pixel_values_sample=sample))
        assert (result.passed, result.stage) == (False, stage)
        assert result.detail == (
            "pixel_values agree, the vector does not" if stage == "tower" else "pixel_values moved by up to 0.00893"
        )


def test_other_pixels_are_a_note_where_the_vector_agrees_and_the_stage_where_it_does_not(embedder: Embedder) -> None:
    case = image_case(embedder)
    first = case.pixels_sample[0]
    sample = (first + 3 if first < 128 else first - 3, *case.pixels_sample[1:])
    other = msgspec.structs.replace(case, pixels_sha256="0" * 64, pixels_sample=sample)
    note = "decoded pixels differ from the reference's (up to 3 levels on the samples kept)"
    result = judged(embedder, other)
    assert (result.passed, result.stage, result.detail) == (True, None, note)
    wrong = judged(embedder, msgspec.structs.replace(other, embedding=(1.0, *[0.0] * 15)))
    assert (wrong.passed, wrong.stage, wrong.detail) == (False, "decode", note)
    assert judged(embedder, case).detail == ""


def test_another_size_is_told_as_width_times_height(embedder: Embedder) -> None:
    case = image_case(embedder)
    for size in ({"height": case.height + 1}, {"width": case.width + 2}):
        expected = msgspec.structs.replace(case, **size)
        told = f"decoded to {case.width} x {case.height}, expected {expected.width} x {expected.height}"
        assert judged(embedder, expected).detail == told


def test_other_tokens_fail_even_where_the_vector_agrees(embedder: Embedder) -> None:
    case = max(load_golden(embedder.bundle).texts, key=lambda each: len(each.input_ids))
    assert len(case.input_ids) > 7
    expected = (*case.input_ids[:-1], 7, 8)
    result = run_text(msgspec.structs.replace(case, input_ids=expected), embedder.text, BOUNDS).result
    assert (result.passed, result.stage) == (False, "tokenize")
    seen, asked = case.input_ids, expected
    assert result.detail == f"seen {len(seen)} tokens {seen[:6]}..., expected {len(asked)} tokens {asked[:6]}..."
    assert result.cosine > 0.99999


def test_an_image_that_does_not_decode_is_a_case_that_failed(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = image_case(embedder).file
    source = embedder.bundle.source
    found = {file: b"no image" if file == broken else source(file) for file in embedder.bundle.spec.files}
    monkeypatch.setattr(type(embedder.bundle), "source", lambda _, name: found[name])
    golden = run_golden(embedder, EACH)
    (refused,) = golden.refused
    assert (refused.name, refused.kind, refused.passed, refused.stage) == ("landscape 3x2", "image", False, "decode")
    assert (refused.cosine, refused.max_abs_difference) == (-1.0, float("inf"))
    assert refused.detail
    kinds = [result.kind for result in golden.results()]
    assert kinds == sorted(kinds)  # images, the refused one behind them, then texts
    assert golden.results()[len(golden.images)] == refused
    assert len(golden.results()) == len(golden.images) + 1 + len(golden.texts)


EIGHT_BITS = msgspec.structs.replace(BOUNDS, cosine_bound=0.998, abs_bound=0.02)


def turned(embedding: Sequence[float], cosine: float) -> tuple[float, ...]:
    """A vector whose cosine with another is this."""
    given = np.array(embedding) / np.linalg.norm(embedding)
    across = np.eye(len(given))[0] - given[0] * given
    found = cosine * given + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
    return tuple(float(value) for value in found)


@pytest.fixture
def reduced(tiny_bundle: Path, edit_spec: SpecEdit) -> Callable[[Golden], Embedder]:
    """Loads eight bits, here the float32 files, that have golden cases of their own; given PyTorch's."""

    def load(pytorch: Golden) -> Embedder:
        own = "golden/cases_int8.json"
        files = {own: (tiny_bundle / "golden/cases.json").read_bytes(), "golden/cases.json": json.encode(pytorch)}
        for name, contents in files.items():
            (tiny_bundle / name).write_bytes(contents)

        def change(spec: BundleSpec) -> BundleSpec:
            eight = (replace(each, precision="int8", golden=own) for each in spec.offered())
            sums = {name: hashlib.sha256(contents).hexdigest() for name, contents in files.items()}
            return replace(spec, artifacts=(*spec.artifacts, *eight), files={**spec.files, **sums})

        edit_spec(change)
        return Embedder.load(tiny_bundle, provider="cpu", precision="int8", num_threads=2, verify=None)

    return load


@pytest.mark.parametrize("kind", ["images", "texts"])
@pytest.mark.parametrize(("cosine", "passed"), [(0.9681, True), (0.9679, False)])
def test_fewer_bits_stay_within_the_floor_of_pytorchs_vectors(
    embedder: Embedder, reduced: Callable[[Golden], Embedder], kind: str, cosine: float, passed: bool
) -> None:
    # The floor is 0.97, and another machine has a room of 0.002.
    golden = load_golden(embedder.bundle)
    far = replace(getattr(golden, kind)[1], embedding=turned(getattr(golden, kind)[1].embedding, cosine))
    cases = (getattr(golden, kind)[0], far, *getattr(golden, kind)[2:])
    with reduced(replace(golden, **{kind: cases})) as served:
        results = run_golden(served, {"image": EIGHT_BITS, "text": EIGHT_BITS}).results()
    assert len(results) == len(golden.images) + len(golden.texts)
    assert [result.name for result in results if not result.passed] == ([] if passed else [far.name])
    (found,) = (result for result in results if result.name == far.name)
    assert found.cosine > 0.99999  # to its own vector
    assert found.stage == (None if passed else "tower")
    told = "cosine 0.9679 to PyTorch's vector, expected at least 0.97: rounding took it too far"
    assert found.detail.partition(". ")[0] == ("" if passed else told)


def test_the_floor_itself_is_inside_and_what_failed_before_keeps_its_reason(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = _Floor(load_golden(embedder.bundle), replace(EIGHT_BITS, least_cosine=0.75, cosine_bound=0.75))
    near = run_text(text_case(embedder), embedder.text, BOUNDS)
    failed = replace(near, result=replace(near.result, passed=False, stage="tokenize", detail="other tokens"))
    for cosine, passed in ((0.5, True), (0.4999, False)):
        monkeypatch.setattr("mmalign_runtime.verify.golden_cases.difference", lambda *_, c=cosine: Difference(c, 0.0))
        assert floor.hold(near).result.passed is passed
        assert floor.hold(failed) is failed


@pytest.mark.parametrize(("towers", "kinds"), [(["image"], {"image"}), (["text"], {"text"})])
def test_a_tower_that_is_not_loaded_is_not_judged(tiny_bundle: Path, towers: list[str], kinds: set[str]) -> None:
    report = verify_bundle(tiny_bundle, provider="cpu", towers=towers)  # type: ignore[arg-type]
    assert report.passed
    assert {case.kind for case in report.cases} == kinds
    batches = {check.name for check in report.checks if check.name.endswith("batch")}
    assert batches == {f"{kind} batch" for kind in kinds}


# Invariance.


def test_company_may_move_a_component_by_a_millionth_in_float32_on_the_cpu_and_by_the_files_bound_elsewhere(
    embedder: Embedder,
) -> None:
    def asked(provider: str, precision: str) -> float:
        class Served:
            options = msgspec.structs.replace(embedder.options, provider=provider)

        Served.precision = precision  # type: ignore[attr-defined]
        return bound(Served(), BOUNDS)  # type: ignore[arg-type]

    assert asked("cpu", "fp32") == 1e-6
    assert asked("cuda", "fp32") == 1e-4
    assert asked("cpu", "int8") == 1e-4
    assert asked("cuda", "fp16") == 1e-4


@pytest.mark.parametrize(("leaked", "passed"), [(0.4e-6, True), (1.6e-6, False)])
def test_canary_a_vector_that_moves_by_just_over_a_millionth_in_company_is_found(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, leaked: float, passed: bool
) -> None:
    golden = run_golden(embedder, EACH)
    whole = OnnxSession.run

    def leak(session: OnnxSession, feeds: dict[str, np.ndarray]) -> Vectors:
        found = whole(session, feeds)
        found[0, 0] += np.float32(leaked) * (len(found) > 1)
        return found

    monkeypatch.setattr(OnnxSession, "run", leak)
    limit = bound(embedder, BOUNDS)
    for found in (
        check_image_batch(embedder, golden.images, limit),
        check_text_batch(embedder, golden.texts, limit),
        check_concurrency(embedder, golden.images, (), limit),
        check_concurrency(embedder, (), golden.texts, limit),
    ):
        assert (found.passed, found.bound) == (passed, 1e-6)
        assert found.max_abs_difference == pytest.approx(leaked, abs=0.5e-6)


@pytest.mark.parametrize(("moved", "passed"), [(1e-6, True), (1.01e-6, False)])
def test_the_bound_itself_is_inside(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, moved: float, passed: bool
) -> None:
    golden = run_golden(embedder, EACH)
    monkeypatch.setattr("mmalign_runtime.verify.invariance.difference", lambda *_: Difference(1.0, moved))
    assert check_image_batch(embedder, golden.images, 1e-6).passed is passed
    assert check_text_batch(embedder, golden.texts, 1e-6).passed is passed
    assert check_concurrency(embedder, golden.images, golden.texts, 1e-6).passed is passed


def test_eight_callers_embed_two_of_each_kind_the_cheapest_first(embedder: Embedder) -> None:
    golden = run_golden(embedder, EACH)
    images: list[list[str]] = []
    texts: list[list[str]] = []
    names = {outcome.case.file: outcome.case for outcome in golden.images}

    class Watched:
        bundle = embedder.bundle

        def encode_image(self, sources: Sequence[object]) -> Vectors:
            images.append([name for source in sources for name in names if str(source).endswith(name)])
            return embedder.encode_image(sources)  # type: ignore[arg-type]

        def encode_text(self, asked: Sequence[str]) -> Vectors:
            texts.append(list(asked))
            return embedder.encode_text(asked)

    found = check_concurrency(Watched(), golden.images, golden.texts, 1e-6)  # type: ignore[arg-type]
    assert found.detail == "2 images and 2 texts from 8 threads at once"
    assert found.name == "concurrency"
    assert (len(images), len(texts)) == (8, 8)
    smallest = sorted(case.height * case.width for case in names.values())[:2]
    assert all(sorted(names[name].height * names[name].width for name in order) == smallest for order in images)
    assert len({tuple(order) for order in images}) == 2  # each in another order
    shortest = sorted(len(outcome.case.input_ids) for outcome in golden.texts)[:2]
    by_text = {outcome.case.text: len(outcome.case.input_ids) for outcome in golden.texts}
    assert [by_text[text] for text in texts[0]] == shortest


def test_batches_are_told_by_how_many_there_were(embedder: Embedder) -> None:
    golden = run_golden(embedder, EACH)
    image = check_image_batch(embedder, golden.images[:3], 1e-6)
    assert (image.name, image.detail) == ("image batch", "3 images alone and in batches")
    text = check_text_batch(embedder, golden.texts[:2], 1e-6)
    assert (text.name, text.detail) == ("text batch", "2 texts alone and padded to the longest")


# Float32 and placement.


@pytest.mark.parametrize(("bits", "passed"), [(12, True), (11, False), (10, False), (7, False)])
def test_a_mantissa_of_eleven_bits_is_too_short(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, bits: int, passed: bool
) -> None:
    whole = OnnxSession.run
    mask = np.uint32(0xFFFFFFFF << (23 - bits) & 0xFFFFFFFF)

    def short(session: OnnxSession, feeds: dict[str, np.ndarray]) -> Vectors:
        return whole(session, {name: (array.view(np.uint32) & mask).view(np.float32) for name, array in feeds.items()})

    monkeypatch.setattr(OnnxSession, "run", short)
    found = check_float32(embedder.options)
    assert (found.name, found.passed, found.bound) == ("float32", passed, 0.0)
    assert found.max_abs_difference == (0.0 if passed else 2**-12)
    assert found.detail == (
        "a convolution and a matrix product keep every bit" if passed else "computed with a shorter mantissa"
    )


@pytest.mark.parametrize(
    "operator", ["Conv", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm", "Attention", "QLinearConv"]
)
def test_no_heavy_operator_may_be_elsewhere(embedder: Embedder, operator: str) -> None:
    nodes = (NodeGroup("CUDAExecutionProvider", "Conv", 50), NodeGroup("CPUExecutionProvider", operator, 1))
    tower = TowerInfo("text", "model.onnx", (ProviderChoice("CUDAExecutionProvider", {}),), nodes)
    info = msgspec.structs.replace(embedder.info(), towers=(tower, tower))
    found = check_placement(info)
    assert (found.passed, found.max_abs_difference, found.bound) == (False, 0.0, 0.0)
    both = f"text: 1 {operator}, text: 1 {operator}"
    assert found.detail == f"100 of 102 nodes on CUDAExecutionProvider; on another: {both}"


def test_light_operators_elsewhere_are_counted_and_pass(embedder: Embedder) -> None:
    nodes = (NodeGroup("CUDAExecutionProvider", "Conv", 50), NodeGroup("CPUExecutionProvider", "Shape", 2))
    offered = (ProviderChoice("CUDAExecutionProvider", {}), ProviderChoice("CPUExecutionProvider", {}))
    tower = TowerInfo("image", "model.onnx", offered, nodes)
    info: RuntimeInfo = msgspec.structs.replace(embedder.info(), towers=(tower,))
    found = check_placement(info)
    assert (found.name, found.passed, found.detail) == ("placement", True, "50 of 52 nodes on CUDAExecutionProvider")
    assert check_placement(msgspec.structs.replace(info, towers=())).detail == "0 of 0 nodes on cpu"


# The verdict.


def test_bfloat16_is_held_to_bounds_of_its_own() -> None:
    found = verify_run._computed(BOUNDS, "bf16")
    assert (found.cosine_bound, found.abs_bound) == (0.97, 0.06)
    assert verify_run._computed(BOUNDS, "fp32") == BOUNDS
    assert verify_run._computed(BOUNDS, "int8") == BOUNDS


def test_each_tower_is_held_to_the_parity_of_the_artifact_that_serves(tiny_bundle: Path, edit_spec: SpecEdit) -> None:
    def told(spec: BundleSpec) -> BundleSpec:
        image, text = spec.artifacts
        assert image.parity is not None
        loose = msgspec.structs.replace(image.parity, cosine_bound=0.5)
        others = [msgspec.structs.replace(each, precision="int8", parity=loose) for each in (image, text)]
        strict = msgspec.structs.replace(image.parity, abs_bound=0.125)
        package = msgspec.structs.replace(text, engine="aotinductor", parity=loose)
        served = msgspec.structs.replace(text, parity=strict)
        return msgspec.structs.replace(spec, artifacts=(*others, image, package, served))

    edit_spec(told)
    with Embedder.load(tiny_bundle, provider="cpu") as embedder:
        found = verify_embedder(embedder).bounds
    assert {tower: (each.cosine_bound, each.abs_bound) for tower, each in found.items()} == {
        "image": (0.99999, 1e-4),
        "text": (0.99999, 0.125),
    }


def case(passed: bool) -> CaseResult:
    return CaseResult(name="a case", kind="text", passed=passed, cosine=1.0, max_abs_difference=0.0)


def checked(passed: bool) -> CheckResult:
    return CheckResult(name="a check", passed=passed, max_abs_difference=0.0, bound=0.0, detail="seen")


def against(passed: bool) -> Against:
    return Against(
        bundle="other",
        space_id="mma",
        is_same_space=True,
        passed=passed,
        min_cosine=1.0,
        max_abs_difference=0.0,
        farthest="a case",
    )


@pytest.mark.parametrize(
    ("cases", "checks", "other", "passed"),
    [
        ((True, True), (True,), None, True),
        ((True, False), (True,), None, False),
        ((True,), (True, False), None, False),
        ((False,), (False,), None, False),
        ((True,), (True,), True, True),
        ((True,), (True,), False, False),
        ((False,), (True,), True, False),
        ((), (True,), None, False),
        ((True,), (), None, False),
    ],
)
def test_a_report_has_passed_when_everything_in_it_has(
    embedder: Embedder, cases: tuple[bool, ...], checks: tuple[bool, ...], other: bool | None, passed: bool
) -> None:
    report = VerifyReport(
        runtime=embedder.info(),
        bounds=EACH,
        cases=tuple(case(each) for each in cases),
        checks=tuple(checked(each) for each in checks),
        against=None if other is None else against(other),
    )
    assert report.passed is passed
    assert report.seconds == 0.0


def test_what_differs_is_told_by_number_and_by_the_first(
    embedder: Embedder, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_golden(embedder)
    report = verify_embedder(embedder)
    failed = msgspec.structs.replace(
        report, cases=(case(True), msgspec.structs.replace(case(False), detail="why")), checks=(checked(False),)
    )
    monkeypatch.setattr(verify_run, "verify_embedder", lambda _: failed)
    with pytest.raises(VerificationError, match=r"2 of 3 checks differ on this machine, the first is 'a case': why\."):
        require_golden(embedder)


def test_the_probe_of_float32_is_for_float32_alone(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**changes: object) -> set[str]:
        for name, value in changes.items():
            monkeypatch.setattr(embedder, name, value)
        found = {check.name for check in verify_embedder(embedder).checks}
        monkeypatch.undo()
        return found

    assert "float32" in names()
    assert "float32" not in names(options=msgspec.structs.replace(embedder.options, allow_tf32=True))


def test_an_engine_that_compiles_a_tower_to_one_piece_has_no_nodes_to_place(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = embedder.info()
    one_piece = tuple(msgspec.structs.replace(tower, nodes=()) for tower in info.towers)
    monkeypatch.setattr(type(embedder), "info", lambda _: msgspec.structs.replace(info, towers=one_piece))
    assert "placement" not in {check.name for check in verify_embedder(embedder).checks}
    partly = (one_piece[0], *info.towers[1:])
    monkeypatch.setattr(type(embedder), "info", lambda _: msgspec.structs.replace(info, towers=partly))
    assert "placement" in {check.name for check in verify_embedder(embedder).checks}


def test_how_long_it_took_is_told_in_seconds(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 12.5])
    monkeypatch.setattr(verify_run, "perf_counter", lambda: next(times))
    assert verify_bundle(tiny_bundle, provider="cpu").seconds == 2.5


# Two bundles.


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize(("moved", "passed"), [(0.97e-4, True), (1.03e-4, False)])
def test_canary_another_bundle_whose_vectors_are_just_outside_is_not_equal(
    embedder: Embedder, kind: str, moved: float, passed: bool
) -> None:
    golden = run_golden(embedder, EACH)
    last = (golden.images if kind == "image" else golden.texts)[-1].case

    class Other:
        bundle, space_id = embedder.bundle, embedder.space_id

        def encode_image(self, sources: Sequence[object]) -> Vectors:
            found = embedder.encode_image(sources)  # type: ignore[arg-type]
            found[:, 0] += np.float32(moved) * (kind == "image" and str(sources[0]).endswith(last.file))  # type: ignore[union-attr]
            return found

        def encode_text(self, texts: Sequence[str]) -> Vectors:
            found = embedder.encode_text(texts)
            found[:, 0] += np.float32(moved) * (kind == "text" and texts[0] == last.text)  # type: ignore[union-attr]
            return found

    found = compare(Other(), embedder.bundle, golden)  # type: ignore[arg-type]
    assert (found.is_same_space, found.passed, found.farthest) == (True, passed, last.name)
    assert found.max_abs_difference == pytest.approx(moved, rel=0.01)
    assert 1 - 1e-7 < found.min_cosine < 1
    assert found.bundle == str(embedder.bundle.path)


@pytest.mark.parametrize("kind", [Difference, CaseResult, CheckResult, Against, VerifyReport])
def test_what_was_found_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
    if kind is not Difference:
        with pytest.raises(TypeError, match="Extra positional arguments provided"):
            kind(1)


@pytest.mark.parametrize("kind", [ImageOutcome, TextOutcome, GoldenRun])
def test_what_was_run_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen


def test_nothing_to_embed_moves_nothing(embedder: Embedder) -> None:
    found = check_concurrency(embedder, (), (), 1e-6)
    assert (found.passed, found.max_abs_difference) == (True, 0.0)
    assert found.detail == "0 images and 0 texts from 8 threads at once"


def test_a_bundle_is_loaded_as_it_would_serve_and_not_verified_twice(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def watched(kind: type[BaseEmbedder], path: str | Path, config: RuntimeConfig, **options: object) -> BaseEmbedder:
        asked.append({"config": config, **options})
        return open_embedder(kind, path, config, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("mmalign_runtime.verify.run.open_embedder", watched)
    config = RuntimeConfig(num_threads=1)
    verify_bundle(tiny_bundle, config, provider="cpu", against=tiny_bundle)
    served = {"config": config, "profile": None, "provider": "cpu", "towers": ("image", "text")}
    assert asked == [{**served, "check_hashes": False}] * 2


def test_an_engine_that_runs_no_onnx_is_not_sent_the_probe(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = run_golden(embedder, EACH)
    monkeypatch.setattr(type(embedder.engine), "runs_onnx", False)
    assert "float32" not in {
        check.name for check in verify_run._checks(embedder, golden, {"image": 1e-6, "text": 1e-6})
    }


def test_a_verdict_names_one_of_four_stages() -> None:
    told = msgspec.to_builtins(case(False))
    for stage in ("decode", "preprocess", "tokenize", "tower"):
        assert msgspec.convert({**told, "stage": stage}, CaseResult).stage == stage
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'rank'"):
        msgspec.convert({**told, "stage": "rank"}, CaseResult)
