"""A service over one bundle: POST an image or texts, get unit vectors and the id of the space they live in.

uvicorn app:create_app --factory --host 0.0.0.0 --port 8000      MMALIGN_BUNDLE=/bundle
It refuses to start on a bundle that does not verify on this machine; one bad image is a 422, never a stopped service.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mmalign_runtime import Embedder, ItemError
from mmalign_runtime.verify import verify_bundle

MAX_BODY_BYTES = 32 * 2**20
MAX_TEXTS = 256


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Prove the bundle on this machine, then load it once for all requests."""
    path = os.environ["MMALIGN_BUNDLE"]
    report = await run_in_threadpool(verify_bundle, path)
    if not report.passed:
        raise RuntimeError(f"{path} does not verify here; run `mmalign verify {path}`.")
    app.state.embedder = await run_in_threadpool(Embedder.load, path)
    app.state.num_texts = app.state.num_truncated = 0  # of this process, for whoever watches /health
    yield


async def _body(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is larger than is allowed: the rest is never held."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _too_large() -> JSONResponse:
    return JSONResponse({"error": f"at most {MAX_BODY_BYTES} bytes"}, status_code=413)


async def embed_image(request: Request) -> JSONResponse:
    """The body is one image file; the answer has its vector."""
    body = await _body(request)
    if body is None:
        return _too_large()
    embedder: Embedder = request.app.state.embedder
    try:
        vectors = await run_in_threadpool(embedder.encode_image, [body])
    except ItemError as error:
        return JSONResponse({"error": error.reason, "stage": error.stage}, status_code=422)
    return JSONResponse({"space_id": embedder.space_id, "vector": vectors[0].tolist()})


async def embed_texts(request: Request) -> JSONResponse:
    """The body is {"texts": [...]}; the answer has a vector for each, and which texts lost their end to the tower."""
    body = await _body(request)
    if body is None:
        return _too_large()
    try:
        texts = json.loads(body)["texts"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return JSONResponse({"error": 'expected JSON such as {"texts": ["a dog"]}'}, status_code=422)
    if not isinstance(texts, list) or len(texts) > MAX_TEXTS:
        return JSONResponse({"error": f"expected a list of at most {MAX_TEXTS} texts"}, status_code=422)
    embedder: Embedder = request.app.state.embedder
    try:
        items = await run_in_threadpool(lambda: list(embedder.stream_texts(texts)))
    except ItemError as error:
        return JSONResponse({"error": error.reason, "index": error.index}, status_code=422)
    vectors = [item.vector.tolist() for item in items if item.vector is not None]
    truncated = [item.truncated for item in items]
    request.app.state.num_texts += len(items)
    request.app.state.num_truncated += sum(truncated)
    return JSONResponse({"space_id": embedder.space_id, "vectors": vectors, "truncated": truncated})


async def health(request: Request) -> JSONResponse:
    """Say what serves (the space, the provider, the threads), and how many texts came and how many lost their end."""
    state = request.app.state
    info = state.embedder.info()
    serves = {"space_id": info.space_id, "provider": info.provider, "threads": info.num_threads}
    return JSONResponse(serves | {"num_texts": state.num_texts, "num_truncated": state.num_truncated})


def create_app() -> Starlette:
    """Return the application."""
    routes = [
        Route("/image", embed_image, methods=["POST"]),
        Route("/texts", embed_texts, methods=["POST"]),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)
