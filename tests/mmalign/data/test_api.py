import mmalign.data as data


def test_public_names_are_sorted_and_exist() -> None:
    assert data.__all__ == sorted(data.__all__)
    assert all(hasattr(data, name) for name in data.__all__)
