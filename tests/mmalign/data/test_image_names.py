import pytest

from mmalign.data.image_names import has_same_shape, looks_like_image, named_in_bytes, why_no_path


@pytest.mark.parametrize("text", ["a.jpg", "x/Ä b.JPEG", ' "a.heic" ', "1_2.jpg#0", "https://x.org/a?b=c", "s3://b/k"])
def test_names_and_addresses_look_like_images(text: str) -> None:
    assert looks_like_image(text)


@pytest.mark.parametrize("text", ["image", "a cat", "photo by x: //", "a.jpg\nb.jpg", "a cat.txt", "a.jpg seen", ""])
def test_other_texts_do_not(text: str) -> None:
    assert not looks_like_image(text)


@pytest.mark.parametrize("text", ["a.jpg", "C:/a.jpg", "C:\\a.jpg", "data/a.jpg", "/9j/a.jpg", "f" * 64, "a: b.jpg"])
def test_paths_are_not_refused(text: str) -> None:
    assert why_no_path(text) is None


def test_ids_have_one_shape_and_words_none() -> None:
    assert has_same_shape("img_0001", "img_23")
    assert not has_same_shape("img_0001", "pic_0001")
    assert not has_same_shape("roses", "roses")


@pytest.mark.parametrize("content", [b"x", b"\xff\xd8\xff", b"P3 1 1 255 0 0 0", b"a\0.jpg", b"\xff" * 5000])
def test_pictures_are_not_taken_for_names(content: bytes) -> None:
    assert named_in_bytes(content) is None
