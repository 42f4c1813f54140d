"""Where pairs come from: the `[data]` settings, and the files that they name.

Only names and suffixes are looked at here; opening the files is the readers' part.
"""

import glob
import logging
from pathlib import Path
from typing import Literal, get_args

import msgspec

from mmalign.data.errors import DataConfigError, SourceFormatError, SourceNotFoundError

logger = logging.getLogger(__name__)

Format = Literal["csv", "tsv", "jsonl", "parquet", "coco", "folder", "webdataset"]

_DELIMITED = ("quoting", "delimiter", "header")
_COLUMNS = ("image_column", "caption_columns", "concept_column", "group_column")


class DataFormat(msgspec.Struct, frozen=True):
    """What is known of a format: its reader, as `module:function` in this package, and the suffixes of its files.

    An option that it has no use for is refused: it would look obeyed and change nothing.
    """

    reader: str
    suffixes: tuple[str, ...] = ()
    unused_options: tuple[str, ...] = ()


FORMATS: dict[Format, DataFormat] = {
    "csv": DataFormat("delimited:read_csv", (".csv",)),
    "tsv": DataFormat("delimited:read_tsv", (".tsv",)),
    "jsonl": DataFormat("jsonl:read_jsonl", (".jsonl", ".ndjson"), _DELIMITED),
    "parquet": DataFormat("parquet:read_parquet", (".parquet",), _DELIMITED),
    "coco": DataFormat("coco:read_coco", (".json",), (*_COLUMNS, *_DELIMITED)),
    "folder": DataFormat("folder:read_folder", (), (*_COLUMNS, "image_root", *_DELIMITED)),
    "webdataset": DataFormat("webdataset:read_webdataset", (".tar",), ("image_column", "image_root", *_DELIMITED)),
}
FORMAT_OF_SUFFIX = {suffix: name for name, each in FORMATS.items() for suffix in each.suffixes}

# What the suffixes say of files that are not read as they are.
_CONVERT = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tgz"), "Unpack it first"),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), "Save the sheet as CSV (UTF-8)"),
    **dict.fromkeys((".arrow", ".feather"), "Write it as Parquet, such as with datasets.Dataset.to_parquet"),
    ".txt": 'Set format = "csv" or "tsv", with delimiter and header as the file has them',
}


class DataSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which files hold the pairs, and which columns hold what. In shards, columns are fields of the `.json` members.

    Attributes:
        path: A file, a folder or a glob pattern, relative to the working directory.
        format: The format of the files. "auto" takes it from their suffix.
        image_column: Column with the image: a path, or the bytes of the file (Parquet).
        caption_columns: Columns with texts or lists of texts. All are captions of the row. With languages,
            `{en = ["caption"], de = ["beschriftung"]}`, training uses them all, those of the first language first, and
            `mmalign evaluate` reports recall in each.
        concept_column: Column that names what a row shows. Rows with one name, of all sources, are one concept. By
            default rows with the same image, byte for byte, are one concept.
        group_column: Column with the name of a class, for zero-shot classification.
        image_root: Folder that relative image paths start at, by default that of the file that names them. It is
            itself relative to the working directory.
        check_images: Whether image files are read once when a run begins. Without it images are told apart by their
            paths, not by their bytes.
        quoting: CSV and TSV: with "standard" a cell may stand in quotes and then hold delimiters, line breaks and
            doubled quotes; with "none" quotes are ordinary characters.
        delimiter: CSV and TSV: the character between cells, by default a comma or, in a .tsv, a tab.
        header: CSV and TSV: whether the first line names the columns; or, for a file without such a line, the list
            of names.
        stream: WebDataset: whether shards are read as training goes, and not before it. All pairs of such a source are
            trained on, each of them a concept of its own; see `[data.stream]`.
        num_pairs: How many pairs a streamed source has, about: it decides how many steps an epoch takes.
        split: Which split the pairs are for. "auto" splits them by concept, as `[data.split]` says. "train" trains on
            them all but those whose concept, or image, is in the val or test split of another source: such a source is
            never evaluated, and no pair is left out of training for being near to it.
    """

    path: str
    format: Literal["auto"] | Format = "auto"
    image_column: str = "image"
    caption_columns: tuple[str, ...] | dict[str, tuple[str, ...]] = ("caption",)
    concept_column: str | None = None
    group_column: str | None = None
    image_root: str | None = None
    check_images: bool = True
    quoting: Literal["standard", "none"] = "standard"
    delimiter: str | None = None
    header: bool | tuple[str, ...] = True
    stream: bool = False
    num_pairs: int | None = None
    split: Literal["auto", "train"] = "auto"

    def __post_init__(self) -> None:
        """Raise `DataConfigError` for a value that no source can have."""
        known = ("auto", *get_args(Format))
        if self.format not in known:
            raise DataConfigError(f"format = {self.format!r} is unknown; expected one of {', '.join(known)}")
        if self.split not in ("auto", "train"):
            raise DataConfigError(
                f'split = {self.split!r} is unknown; expected "auto", or "train" for a source that is never evaluated. '
                "One that is only evaluated stands in data.held_out"
            )
        self._check_captions()
        self._check_delimited()
        self._check_stream()

    def columns_of_captions(self) -> tuple[tuple[str, str], ...]:
        """Return the caption columns, each behind its language, which is "" where none is named."""
        by_language = self.caption_columns if isinstance(self.caption_columns, dict) else {"": self.caption_columns}
        return tuple((language, name) for language, names in by_language.items() for name in names)

    def languages(self) -> tuple[str, ...]:
        """Return the language of each caption column, or nothing where none is named."""
        named = isinstance(self.caption_columns, dict)
        return tuple(language for language, _ in self.columns_of_captions()) if named else ()

    def _check_captions(self) -> None:
        given = self.caption_columns
        lists = list(given.values()) if isinstance(given, dict) else [given]
        if not lists or any(isinstance(names, str) or not names for names in lists):
            raise DataConfigError(
                f"caption_columns = {given!r}; expected a list of one or more column names, such as "
                '["caption"], or such lists by language, such as {en = ["caption"], de = ["beschriftung"]}'
            )
        names = [name for _, name in self.columns_of_captions()]
        if isinstance(given, dict) and (twice := [name for name in names if names.count(name) > 1]):
            raise DataConfigError(f"caption_columns names {twice[0]!r} in two languages; expected each column once")
        if isinstance(given, dict) and not all(language.strip() for language in given):
            raise DataConfigError(f"caption_columns = {given!r}; expected a name for each language, such as en")

    def _check_stream(self) -> None:
        if self.stream != (self.num_pairs is not None):
            raise DataConfigError(
                f"stream = {str(self.stream).lower()} and num_pairs = {self.num_pairs}; set both for shards that are "
                "read as training goes, or neither"
            )
        if self.num_pairs is not None and self.num_pairs < 1:
            raise DataConfigError(f"num_pairs = {self.num_pairs}; expected the number of pairs in all the shards")
        if self.stream and self.split != "auto":
            raise DataConfigError(
                f"split = {self.split!r} has no meaning for a streamed source, which is trained on alone. Remove it"
            )
        for option in ("concept_column", "group_column"):
            if self.stream and getattr(self, option) is not None:
                raise DataConfigError(
                    f"{option} = {getattr(self, option)!r} has no meaning for a streamed source, each pair of which is "
                    "a concept of its own and none evaluated. Remove one of the two"
                )

    def _check_delimited(self) -> None:
        if self.quoting not in ("standard", "none"):
            raise DataConfigError(f'quoting = {self.quoting!r} is unknown; expected "standard" or "none"')
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise DataConfigError(
                f"delimiter = {self.delimiter!r}; expected one character, neither a quote nor a line end, "
                'such as "|", ";" or "\\t"'
            )
        names = self.header
        if names is not True and (not isinstance(names, list | tuple) or not names or len({*names}) < len(names)):
            raise DataConfigError(
                f"header = {names!r}; expected true, or a list of the names of all columns, each once, for a file "
                'without a header row, such as ["image", "caption"]'
            )


class SourceFiles(msgspec.Struct, frozen=True):
    """The files of a source in reading order, all of one format."""

    source: DataSource
    format: Format
    paths: tuple[Path, ...]


def find_files(source: DataSource) -> SourceFiles:
    """List the files of `source` and settle their format.

    Raises `SourceNotFoundError`, `SourceFormatError`, or `DataConfigError` for an option the format ignores.
    """
    path = Path(source.path)
    if path.is_file():
        files = SourceFiles(source, _single_format(source, [path]), (path,))
    elif path.is_dir():
        files = _files_of_folder(source, path)
    else:
        files = _files_of_pattern(source)
    _check_options(source, files.format)
    logger.info("%s: reading %d path(s) as %s", source.path, len(files.paths), files.format)
    return files


def _files_of_folder(source: DataSource, folder: Path) -> SourceFiles:
    """Take the tables or shards right inside the folder; with none of them it is a folder of images."""
    visible = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = [path for path in visible if _is_wanted(path, source.format)]
    if paths:
        return SourceFiles(source, _single_format(source, paths), tuple(paths))
    if source.format not in ("auto", "folder"):
        raise SourceNotFoundError(
            f"the folder {folder} holds no {source.format} file; expected one right inside it. "
            'For nested files give a pattern, such as "data/**/*.parquet"'
        )
    return SourceFiles(source, "folder", (folder,))


def _is_wanted(path: Path, wanted: str) -> bool:
    found = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    # A .json beside images is more often a sidecar than a COCO file: no folder is taken for COCO unasked.
    return found == wanted if wanted != "auto" else found not in (None, "coco")


def _files_of_pattern(source: DataSource) -> SourceFiles:
    # Path.glob takes no absolute pattern and matches hidden files.
    matches = sorted(Path(match) for match in glob.glob(source.path, recursive=True))  # noqa: PTH207
    is_wanted = Path.is_dir if source.format == "folder" else Path.is_file
    paths = [path for path in matches if is_wanted(path)]
    if not paths:
        raise SourceNotFoundError(
            f"path = {source.path!r} names no file or folder and matches none as a pattern (seen from "
            f"{Path.cwd()}). Expected a file, a folder, or a pattern of * ? [] **; braces are not expanded"
        )
    return SourceFiles(source, _single_format(source, paths), tuple(paths))


def _single_format(source: DataSource, paths: list[Path]) -> Format:
    if source.format == "folder" and not paths[0].is_dir():
        raise SourceFormatError(f'{paths[0]} is a file; format = "folder" expects a folder of images')
    if source.format != "auto":
        return source.format
    suffixes = sorted({path.suffix.lower() for path in paths})
    formats = {FORMAT_OF_SUFFIX.get(suffix) for suffix in suffixes}
    found = formats.pop() if len(formats) == 1 else None
    if found is None:
        known = next((name for name in formats if name is not None), "csv")
        advice = _CONVERT.get(suffixes[0], f'Set format, such as format = "{known}", or narrow the path')
        raise SourceFormatError(
            f"{source.path} has files ending in {', '.join(map(repr, suffixes))}; expected one format, "
            f"known by {', '.join(FORMAT_OF_SUFFIX)}. {advice}"
        )
    return found


def _check_options(source: DataSource, found: Format) -> None:
    defaults = DataSource(source.path)
    for option in FORMATS[found].unused_options:
        value = getattr(source, option)
        if value != getattr(defaults, option):
            raise DataConfigError(
                f"{option} = {value!r} has no meaning for {source.path}, which is read as {found}. "
                "Remove it, or set another format"
            )
