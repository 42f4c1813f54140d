from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import ProfileError
from mmalign_runtime.profile import Measured, Profile, load_profile, save_profile, this_machine


@pytest.fixture
def profile(tiny_bundle: Path) -> Profile:
    spec = open_bundle(tiny_bundle).spec
    return Profile(
        goal="latency",
        engine="onnxruntime",
        provider="cpu",
        precision="fp32",
        num_threads=1,
        image_batch_size=3,
        text_batch_size=5,
        allow_spinning=True,
        space_id=spec.space_id,
        variant_id=spec.variant_id("fp32"),
        machine=this_machine(),
        measured=(Measured(kind="image", batch_size=3, p50_ms=1.0, p99_ms=2.0, items_per_s=3000.0),),
        created="2026-01-02T03:04:05+00:00",
    )


def test_a_profile_is_read_as_it_was_written(tmp_path: Path, profile: Profile) -> None:
    save_profile(tmp_path / "p.json", profile)
    assert load_profile(tmp_path / "p.json") == profile


def test_an_embedder_takes_what_its_profile_says(tmp_path: Path, tiny_bundle: Path, profile: Profile) -> None:
    save_profile(tmp_path / "p.json", profile)
    with Embedder.load(tiny_bundle, profile=tmp_path / "p.json", lazy=True) as embedder:
        info = embedder.info()
        assert (info.engine, info.provider, info.num_threads, info.allow_spinning) == ("onnxruntime", "cpu", 1, True)
        assert (info.image_batch_size, info.text_batch_size) == (3, 5)


def test_an_argument_wins_over_the_profile(tmp_path: Path, tiny_bundle: Path, profile: Profile) -> None:
    save_profile(tmp_path / "p.json", profile)
    path = tmp_path / "p.json"
    with Embedder.load(tiny_bundle, profile=path, num_threads=2, allow_spinning=False, lazy=True) as embedder:
        assert (embedder.info().num_threads, embedder.info().allow_spinning) == (2, False)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"space_id": "mma-0"}, "the space is mma-.*, it was made for mma-0"),
        ({"variant_id": "fp32-0"}, "the variant is fp32-.*, it was made for fp32-0"),
        ({"precision": "int8"}, "the variant is int8-.*, it was made for fp32-"),
        ({"engine": "tvm"}, "asks for engine 'tvm', which is not here"),
    ],
)
def test_another_bundles_profile_is_refused(
    tmp_path: Path, tiny_bundle: Path, profile: Profile, change: dict[str, str], seen: str
) -> None:
    save_profile(tmp_path / "p.json", msgspec.structs.replace(profile, **change))
    with pytest.raises(ProfileError, match=seen):
        Embedder.load(tiny_bundle, profile=tmp_path / "p.json")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"cpu": "abacus"}, "the processor is .*, it was made for abacus"),
        ({"num_threads": 512}, "the number of threads is .*, it was made for 512"),
        ({"engine_versions": {"onnxruntime": "1.0"}}, "onnxruntime's version is .*, it was made for 1.0"),
        ({"engine_versions": {}}, "it was made for unknown"),
    ],
)
def test_another_machines_profile_is_refused(
    tmp_path: Path, tiny_bundle: Path, profile: Profile, change: dict[str, object], seen: str
) -> None:
    machine = msgspec.structs.replace(profile.machine, **change)
    save_profile(tmp_path / "p.json", msgspec.structs.replace(profile, machine=machine))
    with pytest.raises(ProfileError, match=f"{seen}.*Measure again here: `mmalign bench"):
        Embedder.load(tiny_bundle, profile=tmp_path / "p.json")


@pytest.mark.parametrize(
    ("content", "seen"), [(None, "cannot be read"), (b"{}", "is not a profile"), (b"\xff", "is not a profile")]
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes | None, seen: str) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProfileError, match=seen):
        load_profile(path)


def test_a_profile_of_another_format_is_refused(tmp_path: Path, profile: Profile) -> None:
    save_profile(tmp_path / "p.json", msgspec.structs.replace(profile, format_version=9))
    with pytest.raises(ProfileError, match="format version 9, expected 1"):
        load_profile(tmp_path / "p.json")


def test_a_profile_of_an_earlier_version_is_read(tmp_path: Path, tiny_bundle: Path, profile: Profile) -> None:
    """Of the fields of a config it has those that a comparison chose then."""
    newer = {"allow_tf32", "cache"}
    old = {name: value for name, value in msgspec.to_builtins(profile).items() if name not in newer}
    old["cuda_graphs"] = None
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(old))
    assert load_profile(tmp_path / "p.json") == profile
    with Embedder.load(tiny_bundle, profile=tmp_path / "p.json", cache=False, lazy=True) as embedder:
        assert embedder.info().allow_spinning


def test_a_profile_with_a_number_that_makes_no_sense_is_refused(tmp_path: Path, profile: Profile) -> None:
    wrong = msgspec.to_builtins(profile) | {"num_threads": 0}
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(wrong))
    with pytest.raises(ProfileError, match="num_threads is 0, expected a whole number of at least 1"):
        load_profile(tmp_path / "p.json")
