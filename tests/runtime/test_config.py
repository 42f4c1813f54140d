"""One set of options: each is declared in RuntimeConfig, and found again wherever a user says or reads it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import numpy as np
import pytest

from mmalign_runtime import Embedder, RuntimeConfig, verify_bundle
from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.config import RuntimeFields, configured
from mmalign_runtime.engine.engines import resolve_options
from mmalign_runtime.errors import ProviderError
from mmalign_runtime.info import RuntimeInfo

FIELDS = RuntimeConfig.__struct_fields__
BATCH_SIZES = {"image_batch_size", "text_batch_size"}
ELSE = RuntimeConfig(
    engine="openvino",
    provider="cpu",
    precision="int8",
    num_threads=3,
    dim=8,
    allow_spinning=True,
    allow_tf32=True,
    cache=True,
    image_batch_size=4,
    text_batch_size=5,
)


def test_arguments_are_the_fields_with_their_types() -> None:
    declared, arguments = get_type_hints(RuntimeConfig), get_type_hints(RuntimeFields)
    assert tuple(arguments) == FIELDS
    assert {name: hint | None for name, hint in declared.items()} == arguments


def test_every_field_has_a_description() -> None:
    hints = get_type_hints(RuntimeConfig, include_extras=True)
    assert [name for name, hint in hints.items() if len(get_args(hint)[1].description) < 20] == []


def test_the_command_line_has_every_field_but_batch_sizes() -> None:
    @takes_config
    def verb(bundle: Path, *, asked: Loading, json: bool = False) -> None:
        """Do nothing."""

    names = list(inspect.signature(verb).parameters)
    assert names == ["bundle", "profile", *(name for name in FIELDS if name not in BATCH_SIZES), "json"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_given_wins_and_none_leaves_it(name: str) -> None:
    value = getattr(ELSE, name)
    assert value != getattr(RuntimeConfig(), name)
    assert configured(None, {name: value}) == msgspec.structs.replace(RuntimeConfig(), **{name: value})  # type: ignore[misc]
    assert configured(ELSE, {name: None}) == ELSE  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "error", "seen"),
    [
        ({"provider": "tpu"}, ProviderError, "provider 'tpu' is not known; choose one of auto, cpu, cuda, tensorrt"),
        ({"precision": "fp8"}, ProviderError, "precision 'fp8' is not known; choose one of fp32, fp16, int8, bf16"),
        (
            {"num_threads": 0},
            ValueError,
            "num_threads is 0, expected a whole number of at least 1, or None for what is",
        ),
        ({"dim": 0}, ValueError, "dim is 0, expected a whole number of at least 1, or None for whole vectors"),
        ({"num_threads": 10**20}, ValueError, "num_threads is 100000000000000000000, expected at most 4096"),
        ({"num_threads": True}, ValueError, "num_threads is True, expected a whole number"),
        ({"image_batch_size": 0}, ValueError, r"image_batch_size is 0, expected a whole number of at least 1\."),
        ({"text_batch_size": "8"}, ValueError, "text_batch_size is '8', expected a whole number"),
        ({"allow_spinning": "no"}, ValueError, "allow_spinning is 'no', expected True or False"),
        ({"allow_tf32": 1}, ValueError, "allow_tf32 is 1, expected True or False"),
        ({"cache": ""}, ValueError, "cache is '', expected True or False"),
        ({"image_batch_size": None}, ValueError, "image_batch_size is None"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(fields: dict[str, object], error: type[Exception], seen: str) -> None:
    with pytest.raises(error, match=seen):
        RuntimeConfig(**fields)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    found = RuntimeConfig(num_threads=np.int64(2), cache=np.True_)  # type: ignore[arg-type]
    assert json.loads(msgspec.json.encode(found))["num_threads"] == 2
    assert msgspec.json.decode(msgspec.json.encode(found), type=RuntimeConfig) == RuntimeConfig(
        num_threads=2, cache=True
    )


def test_load_and_verify_take_a_config_and_its_fields(tiny_bundle: Path) -> None:
    config = RuntimeConfig(provider="cpu", num_threads=1, image_batch_size=3, allow_spinning=True)
    with Embedder.load(tiny_bundle, config, lazy=True, num_threads=2, text_batch_size=7) as embedder:
        info = embedder.info()
    assert (info.num_threads, info.allow_spinning, info.image_batch_size, info.text_batch_size) == (2, True, 3, 7)
    report = verify_bundle(tiny_bundle, config, towers=("text",), num_threads=2)
    assert (report.runtime.num_threads, report.runtime.allow_spinning) == (2, True)
    with Embedder.load(tiny_bundle, config=info, lazy=True) as again:  # what one chose, elsewhere
        assert again.info() == msgspec.structs.replace(info, provider_asked="cpu")


@pytest.mark.parametrize(
    ("arguments", "error", "seen"),
    [
        ({"config": {"num_threads": 1}}, ValueError, "config is a dict, expected a RuntimeConfig"),
        ({"config": RuntimeConfig(), "profile": "p.json"}, ValueError, "config and profile were both given"),
        ({"threads": 2}, TypeError, "no field 'threads'"),
        ({"provider": "tpu"}, ProviderError, "provider 'tpu' is not known"),
    ],
)
def test_load_refuses_before_it_reads_the_bundle(
    arguments: dict[str, object], error: type[Exception], seen: str
) -> None:
    with pytest.raises(error, match=seen):
        Embedder.load("no such bundle", **arguments)  # type: ignore[arg-type]


def test_a_config_is_resolved_for_this_machine() -> None:
    options = resolve_options(RuntimeConfig(provider="cpu", num_threads=3, allow_tf32=True))
    assert (options.provider, options.num_threads, options.pool.num_threads) == ("cpu", 3, 3)
    assert options.fields() == RuntimeConfig(provider="cpu", num_threads=3, allow_tf32=True).fields()
    assert resolve_options(RuntimeConfig(provider="cpu")).num_threads


def test_records_of_earlier_versions_are_read() -> None:
    old = b"""{"bundle": "b", "space_id": "s", "variant_id": "fp32-0", "embed_dim": 4, "precision": "fp32",
    "towers": [], "provider_asked": "auto", "provider": "cpu", "num_threads": 2, "num_runs": 2,
    "allow_spinning": false}"""
    found = msgspec.json.decode(old, type=RuntimeInfo)
    assert (found.engine, found.num_threads, found.allow_tf32, found.cache) == ("onnxruntime", 2, False, False)
