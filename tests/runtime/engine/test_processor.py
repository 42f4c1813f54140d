from pathlib import Path

from mmalign_runtime.engine.processor import cpu_features, cpu_name


def test_the_processor_goes_by_the_kernels_name(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Abacus 9\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_name(path) == "Abacus 9"


def test_a_processor_without_a_name_goes_by_its_kind(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "none") != ""


def test_its_instructions_are_those_of_the_first_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: Abacus 9\nflags\t\t: fpu avx2\nflags\t\t: none\n")
    assert cpu_features(path) == "fpu avx2"


def test_without_a_list_of_instructions_the_name_stands_for_them(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: Abacus 9\n")
    assert cpu_features(path) == "Abacus 9"
