"""The comparison's arithmetic, rounds, protocol and data, on fakes. No times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.against.cold_start import FASTEMBED, OURS, ColdStart
from benchmarks.against.entries import Entry, ours, peers
from benchmarks.against.images import WEB_PIXELS, mix, phone, thumbnail, web
from benchmarks.against.protocol import Failed, Kind, Measure, Measured, Setting, Timed
from benchmarks.against.results import Case, Results, cosine, items_per_s, latency_ms, times_faster
from benchmarks.against.run import describe
from benchmarks.against.single import DIRECTLY, SLEEPING, summary
from benchmarks.against.texts import has_words, paragraphs_of
from benchmarks.against.turns import Work, choose_settings, entries_of, take_round
from benchmarks.against.worker import measure, serve
from benchmarks.harness.processes import first_line_s
from benchmarks.harness.results import read_result, write_result
from benchmarks.performance.measured import RESULTS


def case(seconds: dict[str, list[float]], mode: str = "batch") -> Case:
    return Case("reference", "image", "mixed", mode, 2, seconds, {})  # type: ignore[arg-type]


class FakePeer:
    """Gives one vector an item, and notes what it was asked."""

    def __init__(self) -> None:
        self.versions = {"fake": "1"}
        self.calls: list[tuple[str, ...]] = []

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        self.calls.append(tuple(items))
        return np.ones((len(items), 4), np.float32)


class FakeProcess:
    """As fast as its setting's batch size says."""

    def __init__(self, entry: Entry, notes: list[tuple[str, Measure]]) -> None:
        self.entry = entry
        self._notes = notes

    def measure(self, request: Measure) -> Measured:
        self._notes.append((self.entry.name, request))
        count = len(request.items) if request.one_by_one else 1
        return Measured((1 / (request.setting.batch_size or 32),) * count)


def fakes(notes: list[tuple[str, Measure]]) -> dict[str, FakeProcess]:
    settings = {"image": (Setting(batch_size=1), Setting(batch_size=8)), "text": (Setting(),)}
    entries = [
        Entry(name="a", label="A", peer="fastembed", settings=settings),  # type: ignore[arg-type]
        Entry(name="b", label="B", peer="sentence-transformers", settings={"text": (Setting(batch_size=4),)}),
    ]
    return {entry.name: FakeProcess(entry, notes) for entry in entries}


def test_ratios_are_taken_pair_by_pair() -> None:
    found = case({"ours": [1.0, 2.0, 4.0], "peer": [3.0, 4.0, 40.0]})
    assert times_faster(found, "ours", "peer").p50 == pytest.approx(3.0)
    assert items_per_s(found, "ours").p50 == pytest.approx(0.5)
    assert latency_ms(found, "ours").p50 == pytest.approx(2000)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="turns"):
        times_faster(case({"ours": [1.0], "peer": [1.0, 2.0]}), "ours", "peer")


def test_the_centred_cosine_sees_two_swapped_vectors_that_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(0)
    vectors = 1 + 1e-4 * rng.standard_normal((3, 64))  # one direction but for little, as random weights give
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert cosine(vectors, vectors).lowest_centred == pytest.approx(1)
    swapped = cosine(vectors[[1, 0, 2]], vectors)
    assert swapped.lowest > 0.999999
    assert swapped.lowest_centred < 0.5


def test_vectors_without_unit_length_are_refused() -> None:
    unit = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="unit length"):
        cosine(2 * unit, unit)


def test_a_worker_without_a_peer_says_so_and_ends_with_its_requests() -> None:
    ours, theirs = Pipe()
    ours.send(Measure("text", ("a",), Setting()))
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, theirs, theirs)
        assert ours.recv() == Failed("nothing is loaded: send Load before Measure")
        ours.close()
        served.result(timeout=10)


def test_a_call_is_led_in_and_single_items_are_timed_one_by_one() -> None:
    peer = FakePeer()
    batch = measure(peer, Measure("image", ("x", "y", "z"), Setting(), give_vectors=True))
    single = measure(peer, Measure("image", ("x", "y"), Setting(), one_by_one=True))
    assert peer.calls == [("x",), ("x", "y", "z"), ("x",), ("x",), ("y",)]
    assert (len(batch.seconds), len(single.seconds)) == (1, 2)
    assert np.frombuffer(batch.vectors, np.float32).shape == (12,)


def test_a_peer_may_time_itself() -> None:
    class Stopwatch(FakePeer):
        def timed(self, kind: Kind, items: Sequence[str], setting: Setting) -> Timed:
            return Timed(self.encode(kind, items, setting), 7.0)

    assert measure(Stopwatch(), Measure("text", ("a",), Setting())).seconds == (7.0,)


def test_the_fastest_setting_is_chosen_and_one_alone_is_not_tried() -> None:
    notes: list[tuple[str, Measure]] = []
    queries = Case("reference", "text", "queries", "batch", 1, {}, {})
    work = [Work(case({}), ("i",)), Work(queries, ("t",)), Work(case({}, "single"), ("i",))]
    chosen, trials = choose_settings(fakes(notes), work)  # type: ignore[arg-type]
    assert chosen["a"] == {"image": {"mixed": Setting(batch_size=8)}, "text": {"queries": Setting()}}
    assert chosen["b"] == {"text": {"queries": Setting(batch_size=4)}}
    assert [(trial.entry, trial.items_per_s) for trial in trials] == [("a", 1.0), ("a", 8.0)]
    assert len(notes) == 2


def test_a_round_asks_everyone_who_takes_the_kind_once() -> None:
    notes: list[tuple[str, Measure]] = []
    batch, single = case({}), Case("reference", "text", "queries", "single", 2, {}, {})
    chosen = {"a": {"image": {"mixed": Setting(batch_size=8)}}, "b": {}}
    work = [Work(batch, ("i", "j")), Work(single, ("t", "u"))]
    take_round(fakes(notes), work, chosen, random.Random(0))  # type: ignore[arg-type]
    assert batch.seconds == {"a": [1 / 8]}
    assert {name: len(found) for name, found in single.seconds.items()} == {"a": 2, "b": 2}
    assert all(request.setting == Setting(batch_size=1) for _, request in notes if request.kind == "text")


def test_variants_of_ours_are_read_from_words() -> None:
    plain, other = ours(["fp32", "int8@openvino"])
    assert (plain.name, plain.precision, plain.engine, plain.is_ours) == ("mmalign-fp32", "fp32", "onnxruntime", True)
    assert (other.precision, other.engine, other.label) == ("int8", "openvino", "mmalign int8, openvino")
    with pytest.raises(ValueError, match="fp33"):
        ours(["fp33"])


def test_nobody_unknown_takes_part() -> None:
    everyone = peers(2)
    assert [entry.name for entry in entries_of(everyone, ("eager",))] == ["eager"]
    with pytest.raises(ValueError, match="faiss"):
        entries_of(everyone, ("faiss",))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = read_result(RESULTS / "against.json", Results)
    write_result(results, tmp_path / "copy.json")
    assert read_result(tmp_path / "copy.json", Results) == results


def test_a_set_is_known_by_its_contents() -> None:
    found = describe("text", "queries", ["ä", "bc"])
    assert (found.num_items, found.mean_bytes) == (2, 2.0)
    assert found.sha256 != describe("text", "queries", ["bc", "ä"]).sha256


def photo(width: int, height: int, level: int) -> Image.Image:
    return Image.new("RGB", (width, height), (level, level, level))


def test_sizes_are_what_the_sets_are_named_for() -> None:
    portrait = photo(1500, 2000, 1)
    assert thumbnail(portrait).size == (225, 300)
    width, height = web(portrait).size
    assert width * height == pytest.approx(WEB_PIXELS, rel=2e-3)


def test_phone_pictures_are_photographs_or_collages_and_never_enlarged() -> None:
    photos = [photo(2560, 1600, level) for level in range(1, 8)]
    photos[1] = photo(4300, 3100, 200)
    assert phone(photos, 0).size == (4000, 3000)
    assert phone(photos, 3).size == (3000, 4000)
    assert phone(photos, 1).getextrema() == ((200, 200),) * 3
    collage = phone(photos, 0).convert("L").getcolors()
    assert collage is not None
    assert len(collage) == 4
    with pytest.raises(AssertionError, match="enlarged"):
        web(photo(100, 100, 1))


def test_the_mixed_set_takes_from_each_in_turn() -> None:
    sets = [[Path(f"{name}{number}") for number in range(4)] for name in "abc"]
    assert [str(path) for path in mix(sets)] == ["a0", "b1", "c2", "a3"]


def test_paragraphs_are_found_and_folded() -> None:
    page = '<p class="a">One <b>two</b>\n three.</p><h1>no</h1><pre>no</pre><p>Four &amp; a half.<p>Five.</p>'
    assert paragraphs_of(page) == ["One two three.", "Four & a half.", "Five."]
    assert has_words("a b c", (3, 8))
    assert not has_words("a b", (3, 8))


def test_a_process_that_prints_nothing_is_an_error() -> None:
    import sys

    assert first_line_s([sys.executable, "-c", "print(1)"]) > 0
    with pytest.raises(RuntimeError, match="printed nothing: broken"):
        first_line_s([sys.executable, "-c", "raise SystemExit('broken')"])


def test_cold_starts_are_compared_pair_by_pair() -> None:
    case = ColdStart("demo", "text", {OURS: (1.0, 2.0, 1.0), FASTEMBED: (3.0, 4.0, 9.0)})
    assert case.ratio(OURS).p50 == pytest.approx(3.0)


def test_single_items_are_compared_round_by_round() -> None:
    times = {DIRECTLY: [0.01, 0.02, 0.03], SLEEPING: [0.005, 0.03, 0.03]}
    directly, sleeping = summary("demo", "text", times, is_busy=True)
    assert (directly.way, directly.p50_ms, directly.times_directly) == (DIRECTLY, 20.0, 1.0)
    assert (sleeping.way, sleeping.p50_ms, sleeping.times_directly, sleeping.is_busy) == (SLEEPING, 30.0, 1.0, True)
