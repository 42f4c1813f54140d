from pathlib import Path

from mmalign_runtime.bench.memory import peak_bytes, resident_bytes


def test_linux_tells_both(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert (resident_bytes(path), peak_bytes(path)) == (1024 * 1024, 2048 * 1024)


def test_elsewhere_the_peak_comes_from_the_process_usage(tmp_path: Path) -> None:
    assert resident_bytes(tmp_path / "missing") is None
    assert peak_bytes(tmp_path / "missing") > 1 << 20
