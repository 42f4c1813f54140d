from pathlib import Path
from typing import Any

import msgspec
import pytest

from mmalign.data import DataSource
from mmalign.data.errors import DataConfigError, SourceFormatError, SourceNotFoundError
from mmalign.data.source import find_files


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_source_is_read_from_toml() -> None:
    source = msgspec.toml.decode('path = "a.csv"\ncaption_columns = ["en", "de"]', type=DataSource)
    assert source == DataSource("a.csv", caption_columns=("en", "de"))


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `caption_colums`"):
        msgspec.toml.decode('path = "a.csv"\ncaption_colums = ["en"]', type=DataSource)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(DataConfigError, match="'xlsx' is unknown; expected one of auto, csv"):
        DataSource("a.xlsx", format="xlsx")  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", ["caption", ()])
def test_caption_columns_are_a_list_of_names(columns: tuple[str, ...]) -> None:
    with pytest.raises(DataConfigError, match="expected a list of one or more column names"):
        DataSource("a.csv", caption_columns=columns)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "csv"),
        ("a.TSV", "tsv"),
        ("a.ndjson", "jsonl"),
        ("a.Parquet", "parquet"),
        ("a.json", "coco"),
        ("a.tar", "webdataset"),
    ],
)
def test_the_suffix_of_a_file_decides_in_any_case(tmp_path: Path, name: str, expected: str) -> None:
    files = find_files(DataSource(str(touch(tmp_path / name))))
    assert (files.format, files.paths) == (expected, (tmp_path / name,))


def test_a_set_format_wins_over_the_suffix(tmp_path: Path) -> None:
    assert find_files(DataSource(str(touch(tmp_path / "pairs.txt")), format="tsv")).format == "tsv"


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"'\.dat'; expected one format, known by \.csv, .*Set format"):
        find_files(DataSource(str(touch(tmp_path / "a.dat"))))


def test_a_folder_of_shards_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    shards = [touch(tmp_path / f"s-{at}.tar") for at in (2, 0, 1)]
    touch(tmp_path / "._s-0.tar")
    touch(tmp_path / "README.md")
    assert find_files(DataSource(str(tmp_path))).paths == tuple(sorted(shards))


def test_a_folder_without_tables_is_one_of_images(tmp_path: Path) -> None:
    touch(tmp_path / "cat.jpg")
    touch(tmp_path / "cat.json")  # a sidecar, not a COCO file
    assert find_files(DataSource(str(tmp_path))).format == "folder"
    touch(tmp_path / "log.csv")
    assert find_files(DataSource(str(tmp_path), format="folder")).paths == (tmp_path,)


def test_a_folder_of_two_formats_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a.csv")
    touch(tmp_path / "a.parquet")
    with pytest.raises(SourceFormatError, match=r"'\.csv', '\.parquet'; expected one format"):
        find_files(DataSource(str(tmp_path)))
    assert find_files(DataSource(str(tmp_path), format="csv")).paths == (tmp_path / "a.csv",)


def test_a_folder_without_the_set_format_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "deep" / "a.parquet")
    with pytest.raises(SourceNotFoundError, match=r"holds no parquet file.*data/\*\*/\*\.parquet"):
        find_files(DataSource(str(tmp_path), format="parquet"))


def test_a_pattern_reaches_nested_files(tmp_path: Path) -> None:
    paths = (touch(tmp_path / "x" / "a.csv"), touch(tmp_path / "y" / "a.csv"))
    touch(tmp_path / ".hidden" / "a.csv")
    assert find_files(DataSource(str(tmp_path / "**" / "*.csv"))).paths == paths


def test_a_pattern_may_name_folders_of_images(tmp_path: Path) -> None:
    touch(tmp_path / "cats" / "1.jpg")
    touch(tmp_path / "note.txt")
    assert find_files(DataSource(str(tmp_path / "*"), format="folder")).paths == (tmp_path / "cats",)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = touch(tmp_path / "pairs [1].csv")
    assert find_files(DataSource(str(path))).paths == (path,)


@pytest.mark.parametrize("name", ["none.csv", "none-*.csv", "s-{0..9}.tar"])
def test_a_path_that_matches_nothing_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceNotFoundError, match=r"names no file or folder.*braces are not expanded"):
        find_files(DataSource(str(tmp_path / name)))


def test_a_broken_link_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(SourceNotFoundError, match="names no file or folder"):
        find_files(DataSource(str(tmp_path / "a.csv")))


def test_a_file_is_no_folder_of_images(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"is a file; .* expects a folder"):
        find_files(DataSource(str(touch(tmp_path / "a.jpg")), format="folder"))


def test_an_option_that_the_format_ignores_is_refused(tmp_path: Path) -> None:
    source = DataSource(str(touch(tmp_path / "a.json")), concept_column="id")
    with pytest.raises(DataConfigError, match=r"concept_column = 'id' has no meaning .* read as coco"):
        find_files(source)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"delimiter": "||"}, r"delimiter = '\|\|'; expected one character"),
        ({"delimiter": ""}, "delimiter = ''; expected one character"),
        ({"delimiter": '"'}, "expected one character, neither a quote"),
        ({"delimiter": "\n"}, "expected one character, neither a quote nor a line end"),
        ({"quoting": "all"}, 'quoting = \'all\' is unknown; expected "standard" or "none"'),
        ({"header": False}, r"header = False; expected true, or a list of the names of all columns"),
        ({"header": ()}, r"header = \(\); expected true, or a list"),
        ({"header": ("image", "image")}, "each once"),
        ({"header": "image"}, "header = 'image'; expected true, or a list"),
    ],
)
def test_impossible_options_of_tables_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(DataConfigError, match=message):
        DataSource("a.csv", **value)


def test_options_of_tables_are_read_from_toml() -> None:
    text = 'path = "a.csv"\nquoting = "none"\ndelimiter = "\\t"\nheader = ["image", "caption"]'
    expected = DataSource("a.csv", quoting="none", delimiter="\t", header=("image", "caption"))
    assert msgspec.toml.decode(text, type=DataSource) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.json", "a.tar", "images/a.jpg"])
@pytest.mark.parametrize("option", [{"quoting": "none"}, {"delimiter": "|"}, {"header": ("image", "caption")}])
def test_only_tables_of_text_take_their_options(tmp_path: Path, name: str, option: dict[str, Any]) -> None:
    path = touch(tmp_path / name)
    source = DataSource(str(path if path.parent == tmp_path else path.parent), **option)
    with pytest.raises(DataConfigError, match=f"{next(iter(option))} = .* has no meaning for"):
        find_files(source)
