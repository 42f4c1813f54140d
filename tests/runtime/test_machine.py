from pathlib import Path

from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.machine import cpu_name, this_machine


def test_the_processor_goes_by_the_kernels_name(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Abacus 9\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_name(path) == "Abacus 9"


def test_a_processor_without_a_name_goes_by_its_kind(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "none") != ""


def test_this_machine_has_the_default_engine() -> None:
    machine = this_machine()
    assert machine.num_threads == available_threads()
    assert "onnxruntime" in machine.engine_versions
