"""A fresh process on its way to its first vector, timing itself: what `cold_start` runs, and nothing else imports.

Its own imports are part of what is timed, so they come as late as those of a user's script.
"""

from __future__ import annotations

import json
import sys
import time


def main(started: float) -> None:
    """Read how to load from the first argument (JSON), embed one item, and write the moments on the way as JSON.

    Moments are of `time.monotonic`, which all processes of a machine share; `started` is that of the first line.
    """
    asked = json.loads(sys.argv[1])
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.engine.providers import import_onnxruntime

    import_onnxruntime()
    moments = [started, time.monotonic()]
    embedder = Embedder.load(asked["bundle"], towers=(asked["kind"],), lazy=True, **asked["options"])
    moments.append(time.monotonic())
    embedder.load_towers()
    moments.append(time.monotonic())
    if asked["kind"] == "image":
        embedder.encode_image([asked["item"]])
    else:
        embedder.encode_text([asked["item"]])
    moments.append(time.monotonic())
    from mmalign_runtime.bench.memory import resident_bytes

    sys.stdout.write(json.dumps({"moments": moments, "resident_bytes": resident_bytes()}))
