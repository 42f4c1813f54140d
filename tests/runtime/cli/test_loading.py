"""The options that verbs share: a profile, which gives way to what is said beside it, and the cache."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.engines import find_engine
from mmalign_runtime.profile import Profile, save_profile, this_machine


@pytest.fixture
def profile(tiny_bundle: Path, tmp_path: Path) -> Path:
    spec = open_bundle(tiny_bundle).spec
    path = tmp_path / "profile.json"
    save_profile(
        path,
        Profile(
            goal="latency",
            engine="onnxruntime",
            provider="cpu",
            precision="fp32",
            num_threads=1,
            image_batch_size=3,
            text_batch_size=5,
            allow_spinning=True,
            space_id=spec.space_id,
            variant_id=find_engine("onnxruntime").variant_id(spec, "fp32"),
            machine=this_machine(),
            measured=(),
            created="2026-11-24T00:00:00+00:00",
        ),
    )
    return path


def test_every_verb_takes_a_profile(cli, tiny_bundle: Path, profile: Path, tmp_path: Path) -> None:
    runtime = json.loads(cli("info", tiny_bundle, "--profile", profile, "--json").out)["runtime"]
    assert (runtime["num_threads"], runtime["allow_spinning"]) == (1, True)
    verified = json.loads(cli("verify", tiny_bundle, "--profile", profile, "--json").out)
    assert (verified["passed"], verified["runtime"]["num_threads"]) == (True, 1)
    out = tmp_path / "vectors.npz"
    assert cli("embed", tiny_bundle, tiny_bundle / "golden", "--out", out, "--profile", profile).code == 0
    assert cli("search", tiny_bundle, out, "a dog", "--profile", profile).code == 0


def test_what_is_said_beside_a_profile_wins(cli, tiny_bundle: Path, profile: Path) -> None:
    found = json.loads(cli("info", tiny_bundle, "--profile", profile, "--threads", "2", "--json").out)
    assert found["runtime"]["num_threads"] == 2


def test_embed_takes_the_batch_size_of_the_profile(
    cli, tiny_bundle: Path, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def stop(_request: object, job: object, _load: object) -> int:
        seen.append(job.batch_size)  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(import_module("mmalign_runtime.cli.embed"), "embed_to_npz", stop)
    out = ("embed", tiny_bundle, tiny_bundle / "golden", "--out", tmp_path / "vectors.npz")
    cli(*out, "--profile", profile)
    cli(*out, "--profile", profile, "--kind", "text")
    cli(*out, "--profile", profile, "--batch-size", "7")
    cli(*out)
    assert seen == [3, 5, 7, 32]


def test_a_profile_that_is_none_cannot_run(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    result = cli("info", tiny_bundle, "--profile", tmp_path / "nothing.json")
    assert result.code == 2
    assert "nothing.json cannot be read" in result.err


def test_the_cache_is_used_where_it_is_asked_for(
    cli, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert json.loads(cli("info", tiny_bundle, "--json").out)["runtime"]["cache"] is False
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    found = json.loads(cli("info", tiny_bundle, "--cache", "--provider", "cpu", "--json").out)
    assert found["runtime"]["cache"] is True
    assert len(list((tmp_path / "cache").rglob("*.onnx"))) == 2
