import inspect
from pathlib import Path

import pytest

from mmalign_runtime.engine.threads import available_threads, cpu_quota, limit_tokenizer_threads


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "150000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "0\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1e-5),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, None),
        ({"cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
    ],
)
def test_quota_is_read_from_both_generations_of_cgroups(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(write(tmp_path, files)) == quota


def test_a_quota_below_one_core_gives_one_thread(tmp_path: Path) -> None:
    assert available_threads(write(tmp_path, {"cpu.max": "20000 100000"})) == 1


def test_without_a_quota_the_affinity_mask_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    assert available_threads(tmp_path) == 3


def test_the_smaller_of_quota_and_affinity_counts_and_the_quota_is_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert available_threads(write(tmp_path, {"cpu.max": "250000 100000"})) == 3


def test_a_quota_of_nothing_still_gives_one_thread(tmp_path: Path) -> None:
    assert available_threads(write(tmp_path, {"cpu.max": "0 100000"})) == 1


def test_the_mask_is_this_processs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", {0: {0, 1}, 1: set(range(8))}.__getitem__, raising=False)
    assert available_threads(tmp_path) == 2


@pytest.mark.parametrize(("counted", "threads"), [(6, 6), (1, 1), (None, 1)])
def test_where_there_is_no_mask_the_processors_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: int | None, threads: int
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: counted)
    assert available_threads(tmp_path) == threads


def test_the_quota_is_looked_for_where_linux_mounts_it() -> None:
    for function in (available_threads, cpu_quota):
        assert inspect.signature(function).parameters["cgroup_root"].default == Path("/sys/fs/cgroup")


def test_tokenizers_get_as_many_threads_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    limit_tokenizer_threads(3)
    assert environment == {"RAYON_NUM_THREADS": "3"}
    limit_tokenizer_threads(5)
    assert environment == {"RAYON_NUM_THREADS": "3"}
