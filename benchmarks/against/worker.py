"""One peer in a process of its own, kept alive, asked over standard input: `python -m benchmarks.against.worker`.

Peers share no process, so that no thread pool, allocator or import of one is in the way of another.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from time import perf_counter, sleep

import numpy as np

from benchmarks.against.protocol import (
    Failed,
    Kind,
    Load,
    Loaded,
    Measure,
    Measured,
    Peer,
    PeerName,
    Reply,
    Request,
    Setting,
    Timed,
)

# Imported when asked for: each needs what only its own environment has.
_PEERS: dict[PeerName, tuple[str, str]] = {
    "mmalign": ("mmalign", "MmalignPeer"),
    "fastembed": ("fastembed", "FastembedPeer"),
    "sentence-transformers": ("sentence_transformers", "SentenceTransformersPeer"),
    "pytorch": ("pytorch", "PyTorchPeer"),
    "torch-compile": ("pytorch", "PyTorchPeer"),
    "onnxruntime": ("onnxruntime", "OnnxRuntimePeer"),
    "graphs": ("graphs", "GraphsPeer"),
}
# Threads of the peer before spin for some milliseconds after its last call, on the cores that this one wants.
_SETTLE_S = 0.05


def load_peer(request: Load) -> Peer:
    """Import and load a peer. Raises whatever that raises: ImportError where its package is not installed."""
    module, name = _PEERS[request.peer]
    peer: Peer = getattr(import_module(f"benchmarks.against.peers.{module}"), name)(request)
    return peer


def timed_call(peer: Peer, kind: Kind, items: Sequence[str], setting: Setting) -> Timed:
    """Time one call from items to vectors; a peer with `timed` says itself what of its call counts."""
    own = getattr(peer, "timed", None)
    if own is not None:
        found: Timed = own(kind, items, setting)
        return found
    start = perf_counter()
    vectors = peer.encode(kind, items, setting)
    return Timed(vectors, (perf_counter() - start) / len(items))


def measure(peer: Peer, request: Measure) -> Measured:
    """Make the untimed call, then the timed one, or one a item."""
    sleep(_SETTLE_S)
    if request.lead_in:
        peer.encode(request.kind, request.items[: request.lead_in], request.setting)
    groups = [[item] for item in request.items] if request.one_by_one else [request.items]
    found = [timed_call(peer, request.kind, group, request.setting) for group in groups]
    vectors = np.concatenate([one.vectors for one in found]) if request.give_vectors else np.empty(0, np.float32)
    return Measured(tuple(one.seconds_per_item for one in found), np.ascontiguousarray(vectors, np.float32).tobytes())


def serve(requests: Connection, replies: Connection) -> None:
    """Answer requests until there are no more."""
    peer: Peer | None = None
    while (request := _received(requests)) is not None:
        reply: Reply
        try:
            if isinstance(request, Load):
                peer = load_peer(request)
                reply = Loaded(peer.versions)
            elif peer is None:
                reply = Failed("nothing is loaded: send Load before Measure")
            else:
                reply = measure(peer, request)
        except Exception as error:  # noqa: BLE001 - every fault of a peer is the runner's to judge
            traceback.print_exc()
            reply = Failed(f"{type(error).__name__}: {error}")
        replies.send(reply)


def _received(requests: Connection) -> Request | None:
    try:
        request: Request = requests.recv()
    except EOFError:
        return None
    return request


def main() -> None:
    """Serve on what was standard input and output; what peers print goes to standard error."""
    replies = Connection(os.dup(sys.stdout.fileno()), readable=False)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(Connection(sys.stdin.fileno(), writable=False), replies)


if __name__ == "__main__":
    main()
