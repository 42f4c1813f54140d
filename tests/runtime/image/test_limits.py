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
    with pytest.raises(Refusal, match=reason) as refused:
        check_size(size, spec(**limits))
    assert refused.value.stage == "decode"
    with pytest.raises(Refusal, match=r"Scale it down|Crop it|Replace it"):
        check_size((size[1], size[0]), spec(**limits))


def test_what_is_at_a_limit_passes() -> None:
    check_size((20, 10), spec(max_pixels=200, max_side=20, max_aspect_ratio=2))
    check_bytes(10, ImageLimits(max_bytes=10))


def test_a_strip_that_would_grow_without_limit_is_refused_where_the_shorter_side_is_scaled() -> None:
    limits = ImageLimits(max_aspect_ratio=100_000)
    with pytest.raises(Refusal, match="20000 x 1 is too thin: resized, it has 1310720000 pixels") as refused:
        check_size((20_000, 1), ImageSpec(resize="shortest_edge", limits=limits))
    assert refused.value.stage == "decode"
    check_size((20_000, 1), ImageSpec(resize="squash", limits=limits))


def test_bytes_over_the_limit_are_refused() -> None:
    with pytest.raises(Refusal, match="11 bytes are more than the 10 that the bundle allows") as refused:
        check_bytes(11, ImageLimits(max_bytes=10))
    assert refused.value.stage == "open"


@pytest.mark.parametrize(
    ("inside", "outside", "reason"),
    [
        ((10_000, 10_000), (10_001, 10_000), r"more than the 100000000 pixels"),
        ((1, 1), (0, 1), "0 x 1 has no pixels"),
        ((65_535, 400), (65_536, 400), "a side over the 65535"),
        ((2_000, 10), (2_001, 10), "2001 x 10 is too thin: 200 to 1, over 200 to 1"),
    ],
)
def test_where_a_bundle_says_nothing_the_limits_are_these(
    inside: tuple[int, int], outside: tuple[int, int], reason: str
) -> None:
    for size in (inside, inside[::-1]):
        check_size(size, ImageSpec())
    with pytest.raises(Refusal, match=reason):
        check_size(outside, ImageSpec())


def test_where_a_bundle_says_nothing_a_file_has_256_mib() -> None:
    check_bytes(256 * 2**20, ImageLimits())
    with pytest.raises(Refusal, match="268435457 bytes are more than the 268435456"):
        check_bytes(256 * 2**20 + 1, ImageLimits())


@pytest.mark.parametrize("size", [(400, 10), (10, 400)])
def test_a_strip_may_grow_to_the_pixels_that_an_image_may_have(size: tuple[int, int]) -> None:
    # The shorter side of 10 grows to 256, the longer one in proportion: 256 x 256 x 40 pixels.
    allowed = ImageLimits(max_pixels=256 * 256 * 40)
    check_size(size, ImageSpec(resize="shortest_edge", limits=allowed))
    one_less = ImageLimits(max_pixels=256 * 256 * 40 - 1)
    with pytest.raises(Refusal, match=r"is too thin: resized, it has 2621440 pixels, over 2621439\. Crop it"):
        check_size(size, ImageSpec(resize="shortest_edge", limits=one_less))
    half = ImageSpec(resize="shortest_edge", shortest_edge=128, limits=ImageLimits(max_pixels=128 * 128 * 40))
    check_size(size, half)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_a_picture_has_a_pixel(size: tuple[int, int]) -> None:
    with pytest.raises(Refusal, match=r"has no pixels, expected at least 1 x 1"):
        check_size(size, ImageSpec())
    check_size((1, 1), ImageSpec(limits=ImageLimits(max_pixels=1, max_side=1, max_aspect_ratio=1)))
