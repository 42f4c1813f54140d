import pytest

from mmalign_runtime.image.limits import check_bytes, check_size
from mmalign_runtime.image.refusal import Refusal
from mmalign_runtime.spec import ImageLimits, ImageSpec


def spec(**limits: float) -> ImageSpec:
    return ImageSpec(limits=ImageLimits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "limits", "reason"),
    [
        ((11, 10), {"max_pixels": 109}, "11 x 10 is more than the 109 pixels"),
        ((11, 10), {"max_side": 10}, "11 x 10 has a side over the 10"),
        ((21, 10), {"max_aspect_ratio": 2}, "21 x 10 is too thin: 2 to 1, over 2 to 1"),
        ((0, 10), {}, "0 x 10 has no pixels"),
    ],
)
def test_each_limit_refuses_what_is_over_it_in_either_direction(
    size: tuple[int, int], limits: dict[str, float], reason: str
) -> None:
    with pytest.raises(Refusal, match=reason):
        check_size(size, spec(**limits))
    with pytest.raises(Refusal, match=r"Scale it down|Crop it|Replace it"):
        check_size((size[1], size[0]), spec(**limits))


def test_what_is_at_a_limit_passes() -> None:
    check_size((20, 10), spec(max_pixels=200, max_side=20, max_aspect_ratio=2))
    check_bytes(10, ImageLimits(max_bytes=10))


def test_a_strip_that_would_grow_without_limit_is_refused_where_the_shorter_side_is_scaled() -> None:
    limits = ImageLimits(max_aspect_ratio=100_000)
    with pytest.raises(Refusal, match="20000 x 1 is too thin: resized, it has 1310720000 pixels"):
        check_size((20_000, 1), ImageSpec(resize="shortest_edge", limits=limits))
    check_size((20_000, 1), ImageSpec(resize="squash", limits=limits))


def test_bytes_over_the_limit_are_refused() -> None:
    with pytest.raises(Refusal, match="11 bytes are more than the 10 that the bundle allows"):
        check_bytes(11, ImageLimits(max_bytes=10))
