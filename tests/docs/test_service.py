"""The service of docs/service, driven as a client would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from docs.service.app import MAX_BODY_BYTES, MAX_TEXTS, create_app
from mmalign_runtime import Embedder

BUNDLE = Path(__file__).parent.parent / "runtime/fixtures/tiny_bundle"
PHOTO = BUNDLE / "golden/landscape_3x2.jpg"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMALIGN_BUNDLE", str(BUNDLE))
        with TestClient(create_app()) as client:
            yield client


def test_an_image_gives_the_embedders_vector(client: TestClient) -> None:
    answer = client.post("/image", content=PHOTO.read_bytes()).json()
    embedder = Embedder.load(BUNDLE, provider="cpu")
    assert answer["space_id"] == embedder.space_id
    np.testing.assert_allclose(answer["vector"], embedder.encode_image([PHOTO])[0], atol=1e-6)


def test_texts_give_a_vector_each(client: TestClient) -> None:
    answer = client.post("/texts", json={"texts": ["a dog", ""]}).json()
    assert np.linalg.norm(answer["vectors"], axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_texts_that_lose_their_end_are_said_and_counted(client: TestClient) -> None:
    before = client.get("/health").json()
    answer = client.post("/texts", json={"texts": ["a dog", "dog " * 50]}).json()
    assert answer["truncated"] == [False, True]
    after = client.get("/health").json()
    assert (after["num_texts"] - before["num_texts"], after["num_truncated"] - before["num_truncated"]) == (2, 1)
    empty = client.post("/texts", json={"texts": []}).json()
    assert (empty["vectors"], empty["truncated"]) == ([], [])


@pytest.mark.parametrize("body", [b"", b"no image", PHOTO.read_bytes()[:9000]])
def test_a_bad_image_is_the_callers_error_and_the_service_goes_on(client: TestClient, body: bytes) -> None:
    answer = client.post("/image", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("body", [{}, {"texts": "one"}, {"texts": [1]}, {"texts": ["a"] * (MAX_TEXTS + 1)}, []])
def test_bad_texts_are_the_callers_error(client: TestClient, body: object) -> None:
    assert client.post("/texts", json=body).status_code == 422


def test_a_damaged_bundle_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMALIGN_BUNDLE", str(tmp_path))
    with pytest.raises(Exception, match=r"no bundle"), TestClient(create_app()):
        pass


def test_json_nested_without_end_and_bodies_without_end_are_the_callers_errors(client: TestClient) -> None:
    assert client.post("/texts", content=b"[" * 100_000).status_code == 422
    assert client.post("/texts", content=bytes(MAX_BODY_BYTES + 1)).status_code == 413
    assert client.post("/image", content=bytes(MAX_BODY_BYTES + 1)).status_code == 413
