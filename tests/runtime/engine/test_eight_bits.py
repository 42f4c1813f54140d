import logging
import platform
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.engine import eight_bits, engines
from mmalign_runtime.engine.eight_bits import saturates, warn_of_saturation
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import SessionOptions
from mmalign_runtime.spec.artifacts import Quantization

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(autouse=True)
def not_told_yet() -> Iterator[None]:
    warn_of_saturation.cache_clear()
    yield
    warn_of_saturation.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="reads the flags of an x86 CPU")
def test_a_processor_saturates_where_it_has_no_vnni() -> None:
    flags = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    assert saturates() == ("vnni" not in flags)


@pytest.mark.parametrize(
    ("is_cut_off", "engine", "weight_level"),
    [
        *[(True, "onnxruntime", 127), (True, "openvino", 127), (True, "onnxruntime", None)],
        *[(False, "onnxruntime", 127), (True, "onnxruntime", 64)],
    ],
)
def test_int8_towers_are_warned_of_once(
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_cut_off: bool,
    engine: str,
    weight_level: int | None,
) -> None:
    monkeypatch.setattr(eight_bits, "saturates", lambda: is_cut_off)
    bundle = open_bundle(tiny_bundle)
    chosen = Quantization(report="report.json", weight_level=weight_level)
    artifact = msgspec.structs.replace(bundle.spec.artifact("image"), quantization=chosen)
    opened = SimpleNamespace(artifact=lambda *_: artifact, open=lambda *_: "a session")
    monkeypatch.setattr(engines, "find_engine", lambda name: opened)
    with caplog.at_level(logging.WARNING):
        engines.open_session(bundle, "image", (), _options("fp32", engine))
        assert not caplog.records
        for _ in range(2):
            engines.open_session(bundle, "image", (), _options("int8", engine))
    is_told = is_cut_off and weight_level != 64
    assert [record.message.startswith("this processor cuts off sums") for record in caplog.records] == [True] * is_told


def _options(precision: str, engine: str) -> SessionOptions:
    config = RuntimeConfig(engine=engine, provider="cpu", precision=precision)  # type: ignore[arg-type]
    return SessionOptions(pool=thread_pool(1), **(config.fields() | {"num_threads": 1}))
