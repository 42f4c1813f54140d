from pathlib import Path

import pytest

from mmalign_runtime.engine.external_data import has_external_data


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


EXTERNAL = field(8, b"w") + field(13, field(1, b"location") + field(2, b"../w.bin")) + bytes([14 << 3, 1])
# Where onnx.proto lets a tensor be: the fields from the model down to it.
PLACES = {
    "initializer": (7, 5),
    "sparse initializer": (7, 15, 1),
    "attribute of a node": (7, 1, 5, 5),
    "list of tensors": (7, 1, 5, 10),
    "subgraph": (7, 1, 5, 6, 5),
    "subgraph of a subgraph": (7, 1, 5, 11, 1, 5, 6, 5),
    "function": (25, 7, 5, 5),
}


def model(path: tuple[int, ...], tensor: bytes) -> memoryview:
    for number in reversed(path):
        tensor = (
            field(number, tensor)
            if number < 16
            else bytes([(number << 3 | 2) & 0x7F | 0x80, number >> 4, len(tensor)]) + tensor
        )
    return memoryview(bytes([1 << 3, 8]) + tensor)  # after ir_version


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_elsewhere_is_found_wherever_it_is_named(place: str) -> None:
    assert has_external_data(model(PLACES[place], EXTERNAL))
    assert not has_external_data(model(PLACES[place], field(8, b"w") + field(9, b"raw data")))


def test_the_models_of_a_bundle_are_whole(tiny_bundle: Path) -> None:
    for path in tiny_bundle.glob("onnx/*.onnx"):
        assert not has_external_data(memoryview(path.read_bytes()))


@pytest.mark.parametrize("raw", [b"\x3a\xff", b"\xff" * 12, b"\x3b", b"no model at all"])
def test_bytes_that_are_no_protobuf_are_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|wire type"):
        has_external_data(memoryview(raw))
