"""What the runner and its worker processes say to each other, and the settings a peer can be given.

A worker may run in an environment that has none of the project's packages: this module needs only msgspec and numpy.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

PeerName = Literal["mmalign", "fastembed", "sentence-transformers", "pytorch", "torch-compile", "onnxruntime", "graphs"]
Kind = Literal["image", "text"]
# What our runtime knows, named here since a worker may be without it. bf16 is a way to compute the fp32 file.
Precision = Literal["fp32", "fp16", "int8", "bf16"]


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a peer is asked to work: each reads what its documentation offers, and ignores the rest.

    `batch_size` 0 leaves the peer's own default. `processes` is fastembed's `parallel`, the size of
    sentence-transformers' pool, and a DataLoader's `num_workers`. `channels_last` is PyTorch's.
    """

    batch_size: int = 0
    processes: int = 0
    channels_last: bool = False


class ModelFiles(msgspec.Struct, frozen=True):
    """Where one model lies in the shapes that peers take: our bundle, PyTorch's run, and fastembed's two folders.

    `is_clip`: fastembed reads its folders as its own entries for CLIP do.
    """

    bundle: str
    run: str
    fastembed_image: str
    fastembed_text: str
    is_clip: bool = False


class Load(msgspec.Struct, frozen=True):
    """Load a peer, with both towers. `precision`, `engine` and `spin_us` are mmalign's.

    Threads spin for `spin_us` microseconds before they sleep; None lets them spin as long as the engine does by itself.
    """

    peer: PeerName
    model: ModelFiles
    num_threads: int
    precision: Precision = "fp32"
    engine: str = "onnxruntime"
    spin_us: int | None = 0


class Loaded(msgspec.Struct, frozen=True):
    """The peer is there; the versions it runs on."""

    versions: dict[str, str]


class Measure(msgspec.Struct, frozen=True):
    """Embed items (paths of images, or texts), after `lead_in` of them untimed, so that threads and caches are awake.

    With `one_by_one` every item is a call of its own. `give_vectors` asks for the vectors as well.
    """

    kind: Kind
    items: tuple[str, ...]
    setting: Setting
    lead_in: int = 1
    one_by_one: bool = False
    give_vectors: bool = False


class Measured(msgspec.Struct, frozen=True):
    """Seconds an item: one figure for a call, or one a call; `vectors` is (N, D) float32 in memory order."""

    seconds: tuple[float, ...]
    vectors: bytes = b""


class Failed(msgspec.Struct, frozen=True):
    """What was asked for did not work, and why."""

    reason: str


Request: TypeAlias = Load | Measure
Reply: TypeAlias = Loaded | Measured | Failed


class Timed(msgspec.Struct, frozen=True):
    """Vectors (N, D) float32 of a call, and the seconds it took for each item."""

    vectors: NDArray[np.float32]
    seconds_per_item: float


class Peer(Protocol):
    """A tool that is loaded: paths of images or texts in, unit vectors (N, D) out."""

    versions: dict[str, str]

    def encode(self, kind: Kind, items: Sequence[str], setting: Setting) -> NDArray[np.float32]:
        """Embed items."""
        ...
