"""OpenVINO as an engine, on the tiny bundle. What needs the package skips where it is not installed."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import BundleError, Embedder, ProviderError, verify_bundle
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.engines import find_engine, installed_engines
from mmalign_runtime.engine.openvino import OpenVinoEngine, OpenVinoSession, import_openvino, openvino_core
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Model, SessionOptions
from mmalign_runtime.errors import BundleIntegrityError, EmbedderStateError, EngineError, MissingDependencyError
from mmalign_runtime.verify.float32 import check_float32
from tests.runtime.engine.test_onnxruntime import external_model

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs openvino: pip install 'mmalign-runtime[openvino]'"
)
OPTIONS = SessionOptions("cpu", thread_pool(2), engine="openvino")

TEXTS = ["a dog", "", "a much longer text about a dog, a cat and the sea at night"]
# Float32 in another order of sums, on unit vectors.
ENGINES_APART = 1e-5


@pytest.fixture
def openvino_embedder(tiny_bundle: Path) -> Iterator[Embedder]:
    with Embedder.load(tiny_bundle, engine="openvino", num_threads=2) as embedder:
        yield embedder


def vision(bundle: Path) -> OpenVinoSession:
    opened = open_bundle(bundle)
    name = opened.spec.artifact("image").file
    return OpenVinoSession(Model(opened.source(name), name, ("pixel_values",)), OPTIONS)


def has_bfloat16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_without_the_package_the_install_is_named(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "openvino" not in installed_engines()
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-runtime\[openvino\]'"):
        import_openvino()
    program = f"""
import sys
sys.modules["openvino"] = None
from mmalign_runtime import Embedder
Embedder.load({str(tiny_bundle)!r}, engine="openvino")
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert "MissingDependencyError: " in ended.stderr.splitlines()[-1]


def test_a_provider_that_is_not_the_cpu_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="engine 'openvino' runs on the CPU"):
        Embedder.load(tiny_bundle, engine="openvino", provider="cuda")


@needs_openvino
def test_kernels_and_primitives_of_few_shapes_are_kept(tiny_bundle: Path) -> None:
    program = f"""
import os, sys
from mmalign_runtime.engine import openvino
from mmalign_runtime import Embedder
seen = []
run = openvino._run_a_primitive
openvino._run_a_primitive = lambda *parts: (seen.append(os.environ[openvino.PRIMITIVES_VARIABLE]), run(*parts))
embedder = Embedder.load({str(tiny_bundle)!r}, engine="openvino", num_threads=1)
kept = embedder.text.session.choices()[0].options["CPU_RUNTIME_CACHE_CAPACITY"]
print(kept, seen, openvino.PRIMITIVES_VARIABLE in os.environ)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert ended.stdout.split() == ["64", "['128']", "False"], ended.stderr


@needs_openvino
def test_vectors_are_those_of_onnxruntime(openvino_embedder: Embedder, embedder: Embedder) -> None:
    images = [np.full((40, 60, 3), level, np.uint8) for level in (0, 90, 255)]
    for found, expected in (
        (openvino_embedder.encode_text(TEXTS), embedder.encode_text(TEXTS)),
        (openvino_embedder.encode_image(images), embedder.encode_image(images)),
    ):
        np.testing.assert_allclose(found, expected, atol=ENGINES_APART, rtol=0)


@needs_openvino
def test_what_was_chosen_is_visible(openvino_embedder: Embedder) -> None:
    info = openvino_embedder.info()
    assert (info.engine, info.engine_version) == ("openvino", OpenVinoEngine().version())
    (choice,) = info.towers[0].providers
    assert choice.options["INFERENCE_PRECISION_HINT"] == "f32"
    assert choice.options["INFERENCE_NUM_THREADS"] == "2"
    assert info.towers[0].elsewhere() == ()
    assert any(group.operator == "Convolution" for group in info.towers[0].nodes)


@needs_openvino
def test_verify_covers_it(tiny_bundle: Path) -> None:
    report = verify_bundle(tiny_bundle, engine="openvino", num_threads=2)
    assert report.passed
    assert {"text batch", "image batch", "concurrency", "placement", "float32"} == {c.name for c in report.checks}


@needs_openvino
def test_bfloat16_is_verified_with_bounds_of_its_own(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_bfloat16():
        pytest.skip("needs a processor with bfloat16")
    report = verify_bundle(tiny_bundle, engine="openvino", precision="bf16", num_threads=2)
    assert report.passed
    assert {each.cosine_bound for each in report.bounds.values()} == {0.97}
    assert report.runtime.variant_id.startswith("bf16-")
    in_float32 = max(each.max_abs_difference for each in report.bounds.values())
    assert max(case.max_abs_difference for case in report.cases) > in_float32
    whole = OpenVinoSession.run
    monkeypatch.setattr(OpenVinoSession, "run", lambda session, feeds: whole(session, feeds)[:, ::-1])
    assert not verify_bundle(tiny_bundle, engine="openvino", precision="bf16", num_threads=2).passed


@needs_openvino
def test_bfloat16_is_seen_by_the_probe(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_bfloat16():
        pytest.skip("needs a processor with bfloat16")
    config = {"INFERENCE_PRECISION_HINT": "bf16"}
    monkeypatch.setattr("mmalign_runtime.engine.openvino._config", lambda *a: config)
    assert not check_float32(OPTIONS).passed


@needs_openvino
def test_bfloat16_is_refused_where_the_processor_has_none(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_openvino().Core, "get_property", lambda *a: ["FP32", "INT8"])
    with pytest.raises(ProviderError, match="this processor has FP32, INT8"):
        Embedder.load(tiny_bundle, engine="openvino", precision="bf16", lazy=True)


@needs_openvino
def test_a_second_run_leaves_the_first_ones_vectors_alone(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    size = open_bundle(tiny_bundle).spec.towers["image"].spec.size
    first = session.run({"pixel_values": np.ones((2, 3, size, size), np.float32)})
    kept = first.copy()
    second = session.run({"pixel_values": np.zeros((2, 3, size, size), np.float32)})
    np.testing.assert_array_equal(first, kept)
    assert np.abs(first - second).max() > 0


@needs_openvino
def test_runs_from_many_threads_do_not_mix(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    size = open_bundle(tiny_bundle).spec.towers["image"].spec.size
    feeds = [{"pixel_values": np.full((1 + n % 3, 3, size, size), n, np.float32)} for n in range(8)]
    expected = [session.run(feed) for feed in feeds]
    found: dict[int, bool] = {}

    def call(n: int) -> None:
        found[n] = all(np.allclose(session.run(feeds[n]), expected[n], atol=ENGINES_APART) for _ in range(10))

    callers = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == dict.fromkeys(range(8), True)


@needs_openvino
def test_bytes_are_run_as_a_file_is(tiny_bundle: Path) -> None:
    spec = open_bundle(tiny_bundle).spec
    feeds = {spec.towers["image"].inputs.pixel_values: np.ones((1, 3, *spec.towers["image"].spec.shape), np.float32)}
    model = Model((tiny_bundle / spec.artifact("image").file).read_bytes(), "bytes", ("pixel_values",))
    np.testing.assert_array_equal(OpenVinoSession(model, OPTIONS).run(feeds), vision(tiny_bundle).run(feeds))


@needs_openvino
def test_an_error_inside_a_run_is_named_with_the_shapes(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    with pytest.raises(EngineError, match=r"failed on pixel_values \(1, 3, 2\): .*mmalign verify"):
        session.run({"pixel_values": np.zeros((1, 3, 2), np.float32)})
    size = open_bundle(tiny_bundle).spec.towers["image"].spec.size
    assert session.run({"pixel_values": np.zeros((1, 3, size, size), np.float32)}).shape[0] == 1


@needs_openvino
def test_after_close_there_is_nothing_to_run(tiny_bundle: Path) -> None:
    session = vision(tiny_bundle)
    session.close()
    with pytest.raises(EmbedderStateError, match="was closed"):
        session.run({})


@needs_openvino
def test_what_cannot_be_loaded_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="cannot be loaded by OpenVINO"):
        OpenVinoSession(Model(b"", "empty", ()), OPTIONS)
    with pytest.raises(BundleIntegrityError, match="keeps weights in another file"):
        OpenVinoSession(Model(external_model("weights.bin"), "open", ()), OPTIONS)


@needs_openvino
def test_its_import_tells_nobody() -> None:
    program = (
        "import sys; from mmalign_runtime.engine.openvino import import_openvino; import_openvino(); "
        "stub = sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__; "
        "assert stub == 'openvino.tools.ovc.telemetry_stub', stub; assert 'openvino_telemetry' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@needs_openvino
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_signals_arrive_after_sessions_were_closed_in_any_order(tiny_bundle: Path) -> None:
    program = f"""
import faulthandler, os, signal
from mmalign_runtime import Embedder
faulthandler.enable()  # handlers run on a signal stack only where there is one
signal.signal(signal.SIGUSR1, lambda number, frame: print("arrived"))
first, second = (Embedder.load({str(tiny_bundle)!r}, engine="openvino", towers=("text",)) for _ in range(2))
first.close()
second.close()
del first, second
os.kill(os.getpid(), signal.SIGUSR1)
"""
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "arrived\n")


def _use_in_fork(embedder: Embedder, answers: multiprocessing.Queue[str]) -> None:
    for use in (
        lambda: embedder.encode_text(["a dog"]),
        lambda: Embedder.load(embedder.bundle.path, engine="openvino", num_threads=2, towers=("text",)),
    ):
        try:
            use()
        except EmbedderStateError as error:
            answers.put(str(error))
    with Embedder.load(embedder.bundle.path, engine="onnxruntime", num_threads=2, towers=("text",)) as own:
        answers.put(str(own.encode_text(["a dog"]).shape))


@needs_openvino
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_is_told_and_ends(openvino_embedder: Embedder) -> None:
    openvino_embedder.encode_text(["a dog"])
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()  # type: ignore[assignment]
    child = context.Process(target=_use_in_fork, args=(openvino_embedder, answers))
    child.start()
    assert "Load the Embedder after the fork" in answers.get(timeout=60)
    # OpenVINO keeps executors for the process, whose threads are not in the fork: compiling there would wait forever.
    assert answers.get(timeout=60).startswith("OpenVINO was loaded by process")
    assert answers.get(timeout=60) == f"(1, {openvino_embedder.embed_dim})"
    child.join(timeout=30)
    assert child.exitcode == 0


@needs_openvino
def test_it_is_found_by_its_name() -> None:
    assert find_engine("openvino").name == "openvino"
    assert "openvino" in installed_engines()


@needs_openvino
def test_it_keeps_nothing_in_a_cache(tiny_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="engine 'openvino' keeps nothing in a cache"):
        Embedder.load(tiny_bundle, engine="openvino", cache=True)
