"""An embedder's life: lazy and partial loading, closing, forks."""

import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmalign_runtime import BundleError, Embedder
from mmalign_runtime.errors import BundleIntegrityError, EmbedderStateError, VerificationError
from mmalign_runtime.spec import ImageLimits


def test_a_closed_embedder_says_so(tiny_bundle: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu") as embedder:
        embedder.encode_text(["a dog"])
        text = embedder.text
    for use in (
        lambda: embedder.encode_text(["a dog"]),
        lambda: embedder.encode_image([]),
        lambda: text.vectors(["a"]),
    ):
        with pytest.raises(EmbedderStateError, match="was closed"):
            use()
    embedder.close()  # twice does no harm


def test_a_lazy_tower_is_loaded_when_it_is_first_used(tiny_bundle: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu", lazy=True) as embedder:
        assert embedder.info().towers == ()
        embedder.encode_text(["a dog"])
        assert [tower.name for tower in embedder.info().towers] == ["text"]
        embedder.load_towers()
        assert [tower.name for tower in embedder.info().towers] == ["image", "text"]


def test_a_tower_that_was_not_asked_for_is_not_there(tiny_bundle: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu", towers=("text",)) as embedder:
        with pytest.raises(BundleError, match="add 'image' to `towers`"):
            embedder.encode_image([])
        assert [tower.name for tower in embedder.info().towers] == ["text"]


def test_a_precision_that_is_not_offered_is_refused_before_anything_is_loaded(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no int8 file; it offers fp32"):
        Embedder.load(tiny_bundle, provider="cpu", precision="int8", lazy=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"verify": "md5"},
        {"num_threads": 0},
        {"num_threads": "4"},
        {"num_threads": True},
        {"towers": ("audio",)},
        {"towers": "text"},
        {"towers": ()},
        {"image_limits": {"max_pixels": 10}},
        {"image_limits": ImageLimits(max_pixels=-1)},
    ],
)
def test_arguments_without_sense_are_refused(tiny_bundle: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"[Ee]xpected|choose among"):
        Embedder.load(tiny_bundle, provider="cpu", **settings)  # type: ignore[arg-type]


def test_loading_can_run_the_golden_cases(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for towers in (("image", "text"), ("text",), ("image",)):
        Embedder.load(tiny_bundle, provider="cpu", verify="golden", towers=towers).close()  # type: ignore[arg-type]
    monkeypatch.setattr("mmalign_runtime.image_encoder.decode_detached", lambda *a, **k: np.zeros((9, 9, 3), np.uint8))
    monkeypatch.setattr(
        "mmalign_runtime.verify.golden_cases.decode_image", lambda *a, **k: np.zeros((9, 9, 3), np.uint8)
    )
    with pytest.raises(VerificationError, match=r"the first is 'landscape 3x2': decoded to 9 x 9"):
        Embedder.load(tiny_bundle, provider="cpu", verify="golden")


def test_a_tower_of_another_deployment_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with Embedder.load(tiny_bundle, provider="cpu", lazy=True) as embedder:
        name = embedder.bundle.spec.artifact("text").file
        touched = tiny_bundle / name
        os.utime(touched)
        embedder.encode_text(["merely touched"])
        other = tiny_bundle / embedder.bundle.spec.artifact("image").file
        other.write_bytes(other.read_bytes() + b"\0")
        with pytest.raises(BundleIntegrityError, match="was replaced since the bundle was opened"):
            embedder.encode_image([])


def test_closing_while_a_tower_loads_leaves_nothing(tiny_bundle: Path) -> None:
    embedder = Embedder.load(tiny_bundle, provider="cpu", lazy=True)
    make = embedder._text._make

    def close_meanwhile() -> object:
        made = make()
        embedder.close()
        return made

    embedder._text._make = close_meanwhile  # type: ignore[assignment]
    with pytest.raises(EmbedderStateError, match="was closed"):
        embedder.encode_text(["a dog"])
    assert embedder._text.made is not None
    assert embedder._text.made.session._session.is_closed


def test_hashes_are_checked_unless_nobody_wants_it(tiny_bundle: Path) -> None:
    (tiny_bundle / "README.md").write_text("another card")
    with pytest.raises(BundleIntegrityError, match=r"README\.md was changed"):
        Embedder.load(tiny_bundle, provider="cpu")
    Embedder.load(tiny_bundle, provider="cpu", verify=None).close()


def test_limits_can_be_set_for_a_service(tiny_bundle: Path) -> None:
    pixels = np.zeros((40, 50, 3), np.uint8)
    with Embedder.load(tiny_bundle, provider="cpu", image_limits=ImageLimits(max_pixels=1999)) as embedder:
        partial = embedder.encode_image([pixels, pixels[:10]], on_error="skip")
    assert partial.indices.tolist() == [1]
    assert "1999" in partial.errors[0].reason


def test_texts_that_lose_their_end_are_told_on_request(embedder: Embedder) -> None:
    assert embedder.truncated(["a dog", "a dog " * 100, ""]).tolist() == [False, True, False]


def _embed(path: str) -> list[float]:
    with Embedder.load(path, provider="cpu", num_threads=2) as embedder:
        return embedder.encode_text(["a dog"])[0].tolist()


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_embedder_stays_in_its_process(tiny_bundle: Path, take: Callable[[Embedder], object]) -> None:
    with Embedder.load(tiny_bundle) as embedder, pytest.raises(EmbedderStateError, match="Load it in each process"):
        take(embedder)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_spawned_load_their_own(tiny_bundle: Path, embedder: Embedder, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(_embed, [str(tiny_bundle)] * 2)
    np.testing.assert_array_equal(found, np.tile(embedder.encode_text(["a dog"]), (2, 1)))


FORK = """
import os, sys
from mmalign_runtime import Embedder
from mmalign_runtime.errors import EmbedderStateError
embedder = Embedder.load(sys.argv[1], provider="cpu", num_threads=2)
before = embedder.encode_text(["a dog"])
child = os.fork()
if child == 0:
    try:
        embedder.encode_text(["a dog"])
    except EmbedderStateError as error:
        assert "fork" in str(error) and "spawn" in str(error), error
        again = Embedder.load(sys.argv[1], provider="cpu", num_threads=2)
        assert (again.encode_text(["a dog"]) == before).all()
        os._exit(7)
    os._exit(8)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert (embedder.encode_text(["a dog"]) == before).all()
"""


FORK_AND_END = """
import gc, os, sys
from mmalign_runtime import Embedder
embedder = Embedder.load(sys.argv[1], provider="cpu", num_threads=2)
embedder.cycle = embedder
embedder.encode_text(["a dog"])
child = os.fork()
if child == 0:
    embedder.close()
    del embedder
    gc.collect()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_a_forked_child_can_drop_its_parents_embedder_and_end(tiny_bundle: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    subprocess.run([sys.executable, "-c", FORK_AND_END, str(tiny_bundle)], check=True, timeout=60)


def test_an_embedder_that_is_dropped_is_gone_at_once(tiny_bundle: Path) -> None:
    embedder = Embedder.load(tiny_bundle, provider="cpu")
    session = weakref.ref(embedder.text.session)
    gc.disable()
    try:
        del embedder
        assert session() is None
    finally:
        gc.enable()


def test_a_forked_child_gets_a_clear_error_and_can_load_its_own(tiny_bundle: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    subprocess.run([sys.executable, "-c", FORK, str(tiny_bundle)], check=True, timeout=60)
