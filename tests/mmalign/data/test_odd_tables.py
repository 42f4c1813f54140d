"""Tables as they come: each kind is read right, or refused by a named error that says where and what to do.

Under `on_error = "skip"` each line ends up as a pair or is counted.
"""

import base64
import codecs
import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.data import (
    ColumnError,
    DataError,
    DataSource,
    EmptySourceError,
    Pair,
    RejectedRow,
    RowError,
    SourceFormatError,
    iter_pairs,
    read_pairs,
)
from mmalign.data.quoted import Row, RowReader

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))  # enough to be known as a picture: nothing is decoded here
BASE64 = base64.b64encode(PNG).decode()
HEADER = "image,caption\n"
ROWS = "".join(f"{at}.jpg,caption {at}\n" for at in range(6))
SIX = [(f"{at}.jpg", f"caption {at}") for at in range(6)]
CAT = ("a.jpg", "a cat")


class Odd(msgspec.Struct, frozen=True):
    """A file, and what becomes of it.

    `pairs` are those that reading gives, each an image with its captions; `error` and `says`, a regular expression,
    are what it raises in place of them when nothing is skipped; `left` counts the rows that skipping leaves out.
    """

    content: str | bytes
    pairs: list[tuple[Any, ...]] = []
    error: type[DataError] | None = None
    says: str = ""
    left: int = 0
    options: dict[str, Any] = {}


def row_error(content: str | bytes, says: str, pairs: list[tuple[Any, ...]], left: int, **options: Any) -> Odd:
    return Odd(content, pairs, RowError, says, left, options)


def refused(content: str | bytes, says: str, error: type[DataError] = SourceFormatError, **options: Any) -> Odd:
    return Odd(content, [], error, says, 0, options)


def right(content: str | bytes, *pairs: tuple[Any, ...], **options: Any) -> Odd:
    return Odd(content, list(pairs), options=options)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


NO_QUOTES = {"quoting": "none"}
LISTED = {"header": ("image", "caption")}
SUBTITLE = 'Set quoting = "none" if quotes are ordinary characters'

CSV = {
    "a stray quote closed by one far below": row_error(
        HEADER + '9.jpg,"a dog\n' + ROWS + '8.jpg,a screen of 15"\n7.jpg,last\n',
        r"line 2: a quote opens here and is closed in line 9: of the 7 lines that it takes, 7 look like rows, such as "
        rf"line 3 \('0.jpg,caption 0'\).*{SUBTITLE}",
        [*SIX, ("8.jpg", 'a screen of 15"'), ("7.jpg", "last")],
        1,
    ),
    "a stray quote closed by another stray quote": row_error(
        HEADER + '9.jpg,"a dog\n' + ROWS + '8.jpg,"a cat\n7.jpg,last\n',
        r"line 2: a quote opens here and is closed in line 9, before 'a cat",
        [*SIX, ("7.jpg", "last")],
        2,
    ),
    "a stray quote never closed": row_error(
        HEADER + ROWS + '9.jpg,"a dog\n7.jpg,last\n',
        r"line 8: a quote opens here that is not closed up to the end, line 9",
        [*SIX, ("7.jpg", "last")],
        1,
    ),
    "a stray quote before the image": row_error(
        'caption,image\n"a dog,9.jpg\na cat,8.jpg\na screen",7.jpg\n',
        r"line 2: .* is closed in line 4: of the 2 lines that it takes, 2 look like rows",
        [("8.jpg", "a cat"), ("7.jpg", 'a screen"')],
        1,
    ),
    "a stray quote in the image cell": row_error(
        HEADER + '"9.jpg,a dog\n8.jpg",a cat\n7.jpg,last\n',
        r"line 2: a quote opens here and is closed in line 3",
        [('8.jpg"', "a cat"), ("7.jpg", "last")],
        1,
    ),
    "a stray quote among ids without a suffix": row_error(
        HEADER + '0001,"a dog\n0002,a cat\n0003,15"\n',
        r"line 2: .*, 2 look like rows",
        [("0002", "a cat"), ("0003", '15"')],
        1,
    ),
    "a stray quote over rows with too many cells": row_error(
        HEADER + '1.jpg,"a dog\n2.jpg,a cat, asleep\n3.jpg,15"\n',
        r"line 2: .*, 2 look like rows",
        [("3.jpg", '15"')],
        2,
    ),
    "quotes that are ordinary": right(
        HEADER + '1.jpg,"a dog\n2.jpg,15"\n3.jpg,"so"\n',
        ("1.jpg", '"a dog'),
        ("2.jpg", '15"'),
        ("3.jpg", '"so"'),
        **NO_QUOTES,
    ),
    "a caption of several lines": right(
        HEADER + 'a.jpg,"a cat,\non a ""mat"",\nasleep"\nb.jpg,a dog\n',
        ("a.jpg", 'a cat,\non a "mat",\nasleep'),
        ("b.jpg", "a dog"),
    ),
    "a caption of several lines with as many commas as a row": right(
        HEADER + 'a.jpg,"roses, red\nviolets, blue"\n', ("a.jpg", "roses, red\nviolets, blue")
    ),
    "a caption of several lines with an address": right(
        HEADER + 'a.jpg,"a cat\nhttps://x.org/cat, seen today"\n',
        ("a.jpg", "a cat\nhttps://x.org/cat, seen today"),
    ),
    "a caption of several lines and a cell too many": row_error(
        HEADER + 'a.jpg,"a cat\non a mat",7\nb.jpg,a dog\n',
        r"line 2: 3 cells; expected 2 as in the header",
        [("b.jpg", "a dog")],
        2,
    ),
    "text behind a closing quote": row_error(
        HEADER + 'a.jpg,"a "big" cat"\nb.jpg,a dog\n',
        r"line 2: a quoted cell ends before 'big\" cat\"'; expected ','",
        [("b.jpg", "a dog")],
        1,
    ),
    "quotes escaped by backslashes": row_error(
        HEADER + 'a.jpg,"a \\"big\\" cat"\nb.jpg,a dog\n',
        r"line 2: .* write each quote inside it twice",
        [("b.jpg", "a dog")],
        1,
    ),
    "quotes within an unquoted cell": right(HEADER + 'a.jpg,a 15" screen\n', ("a.jpg", 'a 15" screen')),
    "a space before a quote": row_error(
        HEADER + 'a.jpg, "a cat, asleep"\n', r"line 2: 3 cells; .*remove the space before it", [], 1
    ),
    "old Mac line ends": right((HEADER + ROWS).replace("\n", "\r"), *SIX),
    "line ends of Windows and Unix, and one of a Mac in a caption": right(
        "image,caption\r\na.jpg,x\ry\nb.jpg,z", ("a.jpg", "x\ry"), ("b.jpg", "z")
    ),
    "line ends of Excel on a Mac, and others in a caption": right(
        'image,caption\ra.jpg,"x\ny"\rb.jpg,z\r', ("a.jpg", "x\ny"), ("b.jpg", "z")
    ),
    "line ends that Windows doubled": right("caption,image\r\r\na cat,a.jpg\r\r\n", CAT),
    "separators of Unicode and form feeds in a caption": right(
        HEADER + "a.jpg,one\u2028two\x0cthree\x85four\n", ("a.jpg", "one\u2028two\x0cthree\x85four")
    ),
    "blank lines and spaces": right(HEADER + "\n   \na.jpg,a cat\n \t\n", CAT),
    "a NUL in a row": row_error(
        HEADER + "a.jpg,a c\0at\nb.jpg,a dog\n", r"line 2: NUL characters", [("b.jpg", "a dog")], 1
    ),
    "a cell of a million characters": right(HEADER + f"a.jpg,{'x' * 10**6}\n", ("a.jpg", "x" * 10**6)),
    "a quoted cell of a million characters": right(HEADER + f'a.jpg,"{"x" * 10**6}"\n', ("a.jpg", "x" * 10**6)),
    "UTF-16 with a mark": right((HEADER + "a.jpg,猫 é\n").encode("utf-16"), ("a.jpg", "猫 é")),
    "UTF-16 of the other byte order": right(
        codecs.BOM_UTF16_BE + (HEADER + "a.jpg,猫\n").encode("utf-16-be"), ("a.jpg", "猫")
    ),
    "UTF-32 with a mark": right((HEADER + "a.jpg,猫\n").encode("utf-32"), ("a.jpg", "猫")),
    "UTF-16 without a mark": refused(
        (HEADER + "a.jpg,x\n").encode("utf-16-le"), r"line 1 holds NUL characters.*UTF-16 without a byte-order mark"
    ),
    "UTF-16 cut in the middle of a character": refused(
        (HEADER + "a.jpg,x\n").encode("utf-16")[:-1], r"its byte-order mark says UTF-16, but .*save it as UTF-8"
    ),
    "Windows-1252": refused(
        (HEADER + "a.jpg,x\nb.jpg,café\n").encode("cp1252"), r"line 3 is not UTF-8.*0xe9 is 'é' in Windows-1252"
    ),
    "Shift JIS": refused((HEADER + "a.jpg,ネコ\n").encode("shift_jis"), r"line 2 is not UTF-8 .*save it as UTF-8"),
    "semicolons": refused("image;caption\na.jpg;a cat\n", r'Set delimiter = ";"', ColumnError),
    "semicolons, as set": right("image;caption\na.jpg;a cat, asleep\n", ("a.jpg", "a cat, asleep"), delimiter=";"),
    "tabs in a .csv": refused("image\tcaption\na.jpg\ta cat\n", r'Set delimiter = "\\t"', ColumnError),
    "pipes, as Flickr30k has them": refused(
        "image_name| comment_number| comment\na.jpg| 0| a cat .\n",
        r"'image_name', 'comment_number', 'comment' when split at '\|'. Set delimiter = \"\|\"",
        ColumnError,
    ),
    "pipes with the names of another table": refused(
        "image_name| comment_number| comment\na.jpg| 0| a cat .\n",
        r'the nearest is \'image_name\'; set image_column = "image_name"',
        ColumnError,
        delimiter="|",
    ),
    "pipes, as set, and a row that lacks one": row_error(
        "image_name| comment_number| comment\na.jpg| 0| a cat .\nb.jpg| 4   a dog .\n",
        r"line 3: 2 cells; expected 3 as in the header",
        [("a.jpg", "a cat .")],
        1,
        delimiter="|",
        image_column="image_name",
        caption_columns=("comment",),
    ),
    "no header": refused(
        "a.jpg,a cat\nb.jpg,a dog\n", r'line 1 looks like a pair.*set header = \["image", "caption"\]', ColumnError
    ),
    "no header and the image last": refused(
        "7,a cat,images/a.JPG\n", r'set header = \["caption", "column_2", "image"\]', ColumnError
    ),
    "no header, as set": right("a.jpg,a cat\nb.jpg,a dog\n", CAT, ("b.jpg", "a dog"), **LISTED),
    "a header that is there too": refused(HEADER + ROWS, r"line 1 is a header row, .*Remove header", **LISTED),
    "a list that has fewer names than cells": row_error(
        "a.jpg,1,a cat\n", r"line 1: 3 cells; expected 2", [], 1, **LISTED
    ),
    "the separator line of Excel": refused("sep=;\nimage;caption\n", r'line 1 is \'sep=;\'.*set delimiter = ";"'),
    "metadata of an image folder": refused(
        "file_name,text\na.jpg,a cat\n",
        r"Columns present: 'file_name', 'text'; the nearest is 'file_name'; set image_column = \"file_name\"",
        ColumnError,
    ),
    "metadata of an image folder, half set": refused(
        "file_name,text\na.jpg,a cat\n", r'set caption_columns = \["text"\]', ColumnError, image_column="file_name"
    ),
    "metadata of an image folder, as set": right(
        "file_name,text\na.jpg,a cat\n", CAT, image_column="file_name", caption_columns=("text",)
    ),
    "addresses in a column of their own": refused(
        "URL,TEXT\nhttp://x.org/a.jpg,a cat\n", r"looks like a pair|'URL' is a usual name for URLs", ColumnError
    ),
    "addresses for images": row_error(
        HEADER + "https://x.org/a.jpg,a cat\nb.jpg,a dog\n",
        r"line 2: image is 'https://x.org/a.jpg': it is a URL.*img2dataset",
        [("b.jpg", "a dog")],
        1,
    ),
    "a data URI for an image": row_error(
        HEADER + f'"data:image/png;base64,{BASE64}",a cat\n', r"line 2: image is .*a data URI.*b64decode", [], 1
    ),
    "base64 for an image": row_error(HEADER + f"{BASE64},a cat\n", r"line 2: .*an image in base64.*b64decode", [], 1),
    "a blank image": row_error(HEADER + "  ,a cat\na.jpg,a cat\n", r"line 2: no image", [CAT], 1),
    "a column twice": refused("image,caption,caption\na.jpg,a,b\n", r"2 columns named 'caption'"),
    "a header and nothing else": refused(HEADER, r"holds nothing", EmptySourceError),
}

TSV = {
    "captions that open with a quote": row_error(
        'image\tcaption\na.jpg\t"Look" says the cat\nb.jpg\ta dog\n',
        rf"line 2: .*before ' says the cat'.*{SUBTITLE}",
        [("b.jpg", "a dog")],
        1,
    ),
    "captions that open with a quote, as set": right(
        'image\tcaption\na.jpg\t"Look" says the cat\n', ("a.jpg", '"Look" says the cat'), **NO_QUOTES
    ),
    "a stray quote in Conceptual Captions": row_error(
        '"a dog\t1.jpg\na cat\t2.jpg\n15"\t3.jpg\n',
        r"line 1: .* of the 2 lines that it takes, 2 look like rows",
        [("2.jpg", "a cat"), ("3.jpg", '15"')],
        1,
        header=("caption", "image"),
    ),
    "the list of Flickr8k": refused(
        "10_6.jpg#0\ta cat .\n", r'looks like a pair.*set header = \["image", "caption"\]', ColumnError
    ),
    "commas in a .tsv": refused(HEADER + ROWS, r'Set delimiter = ","', ColumnError),
}

CAPTIONED = '{"image": "a.jpg", "caption": "a cat"}\n'
JSONL = {
    "one array": refused("[\n" + CAPTIONED + "]\n", r"line 1: an array begins; .*jq -c '.\[\]' odd.jsonl > rows.jsonl"),
    "one array in one line": refused(f"[{CAPTIONED.strip()}]", r"line 1: an array begins"),
    "an object over several lines": refused(
        json.dumps({"image": "a.jpg", "caption": "a cat"}, indent=2), r"line 1: an object begins that goes over"
    ),
    "NaN": row_error(
        '{"image": "b.jpg", "caption": NaN}\n' + CAPTIONED, r"line 1: bad JSON .*NaN is not JSON: write null", [CAT], 1
    ),
    "a repr of Python": row_error("{'image': 'b.jpg'}\n" + CAPTIONED, r"line 1: bad JSON", [CAT], 1),
    "a key twice": row_error(
        '{"image": "b.jpg", "caption": "a", "caption": "b"}\n' + CAPTIONED,
        r"line 1: the key 'caption' occurs more than once",
        [CAT],
        1,
    ),
    "a key twice within a field that is not wanted": right(
        '{"image": "a.jpg", "caption": "a cat", "more": {"x": 1, "x": 2}}\n', CAT
    ),
    "a key as a text": right(
        '{"image": "a.jpg", "caption": "\\"caption\\": it says"}\n', ("a.jpg", '"caption": it says')
    ),
    "a number too large for 64 bits": right(
        '{"image": "a.jpg", "caption": "a cat", "id": 123456789012345678901234567890}\n',
        (*CAT, "123456789012345678901234567890"),
        concept_column="id",
    ),
    "objects too deep": row_error(
        '{"image": "b.jpg", "more": ' + "[" * 5000 + "]" * 5000 + "}\n" + CAPTIONED, r"line 1: bad JSON", [CAT], 1
    ),
    "old Mac line ends": right(CAPTIONED.replace("\n", "\r") * 2, CAT, CAT),
    "UTF-16 with a mark": right(CAPTIONED.encode("utf-16"), CAT),
    "Windows-1252": row_error(
        CAPTIONED.encode() + '{"image": "b.jpg", "caption": "café"}\n'.encode("cp1252"),
        r"line 2: bad JSON: not UTF-8 .*'é' in Windows-1252",
        [CAT],
        1,
    ),
    "a separator of Unicode in a caption": right(
        '{"image": "a.jpg", "caption": "one\u2028two"}\n', ("a.jpg", "one\u2028two")
    ),
    "half a surrogate": row_error(
        '{"image": "b.jpg", "caption": "\\ud83d"}\n' + CAPTIONED, r"line 1: bad JSON", [CAT], 1
    ),
    "metadata of an image folder": refused(
        lines({"file_name": "a.jpg", "text": "a cat"}), r'set image_column = "file_name"', ColumnError
    ),
    "columns in one object": row_error(
        lines({"image": ["a.jpg"], "caption": ["a cat"]}), r"line 1: image is \['a.jpg'\] \(list\)", [], 1
    ),
    "an array a line": row_error('["b.jpg", "x"]\n' + CAPTIONED, r"line 1: .*got `array`", [CAT], 1),
}

ROW = {"image": "a.jpg", "caption": "a cat"}
NOTE = {"image_id": 1, "caption": "a cat"}
COCO = {
    "a list of rows": refused(json.dumps([ROW]), r"odd.json .*an array with one object a row.*jq -c '.\[\]' odd.json"),
    "conversations of LLaVA": refused(
        json.dumps([{"id": "1", "image": "a.jpg", "conversations": [{"from": "gpt", "value": "a cat"}]}]),
        r"array of conversations, as LLaVA has them: .*\.conversations",
    ),
    "a Karpathy split": refused(
        json.dumps({"images": [{"filename": "a.jpg", "sentences": [{"raw": "a cat"}], "split": "train"}]}),
        r"Karpathy split, such as dataset_coco.json.*\.sentences\[\]\.raw",
    ),
    "JSON Lines": refused(lines(ROW, ROW), r'one object a line: set format = "jsonl"'),
    "captions by the names of their images": refused(
        json.dumps({"a.jpg": ["a cat"]}), r"its keys are images .*to_entries\[\]"
    ),
    "UTF-16 with a mark": right(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [NOTE]}).encode("utf-16"), CAT
    ),
    "Windows-1252": row_error(
        json.dumps(
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "café"}, NOTE]},
            ensure_ascii=False,
        ).encode("cp1252"),
        r"member annotations\[0\]: not UTF-8 .*'é' in Windows-1252",
        [CAT],
        1,
    ),
}

PARQUET = {
    "string views": right(
        parquet(image=pa.array(["a.jpg"], pa.string_view()), caption=pa.array(["a cat"], pa.string_view())), CAT
    ),
    "large strings": right(
        parquet(image=pa.array(["a.jpg"], pa.large_string()), caption=pa.array(["a cat"], pa.large_string())), CAT
    ),
    "texts as binary": right(
        parquet(image=[b"a.jpg"], caption=["a cat é".encode()], id=[b"x"]),
        ("a.jpg", "a cat é", "x"),
        concept_column="id",
    ),
    "binary views": right(
        parquet(image=pa.array([PNG], pa.binary_view()), caption=pa.array([b"a cat"], pa.binary_view())), (PNG, "a cat")
    ),
    "dictionaries": right(
        parquet(image=pa.array([PNG]).dictionary_encode(), caption=pa.array(["a cat"]).dictionary_encode()),
        (PNG, "a cat"),
    ),
    "binary of a fixed size for an id": right(
        parquet(image=["a.jpg"], caption=["a cat"], id=pa.array([b"abcd"], pa.binary(4))),
        (*CAT, "abcd"),
        concept_column="id",
    ),
    "a hash for an id": row_error(
        parquet(image=["a.jpg"], caption=["a cat"], id=pa.array([b"\xff\xfe\x00\x01"], pa.binary(4))),
        r"row 0: binary cell b'.* is not UTF-8 .*expected text",
        [],
        1,
        concept_column="id",
    ),
    "whole numbers as floats": right(
        parquet(image=["a.jpg"], caption=["a cat"], id=[7.0]), (*CAT, "7"), concept_column="id"
    ),
    "whole numbers as decimals": right(
        parquet(image=["a.jpg"], caption=["a cat"], id=pa.array([7], pa.decimal128(9, 2))),
        (*CAT, "7"),
        concept_column="id",
    ),
    "other floats": row_error(
        parquet(image=["a.jpg"] * 4, caption=["a cat"] * 4, id=[7.5, float("nan"), float("inf"), 1e300]),
        r"row 0: concept is 7.5 \(float\); expected text or a whole number",
        [],
        4,
        concept_column="id",
    ),
    "days for an id": row_error(
        parquet(image=["a.jpg"], caption=["a cat"], id=pa.array([1], pa.date32())),
        r"row 0: concept is datetime.date\(1970, 1, 2\) \(date\)",
        [],
        1,
        concept_column="id",
    ),
    "nanoseconds for an id": refused(
        parquet(image=["a.jpg"], caption=["a cat"], id=pa.array([1], pa.timestamp("ns"))),
        r"row 0, column 'id' \(timestamp\[ns\]\)",
        concept_column="id",
    ),
    "lists of binary texts": right(
        parquet(image=["a.jpg"], caption=[[b"a cat", None, b"chat"]]), ("a.jpg", "a cat", "chat")
    ),
    "lists of structs": row_error(
        parquet(image=["a.jpg"], caption=[[{"raw": "a cat"}]]), r"row 0: caption is \{'raw': 'a cat'\} \(dict\)", [], 1
    ),
    "a column of nulls": row_error(parquet(image=["a.jpg"], caption=pa.nulls(1)), r"row 0: no caption", [], 1),
    "structs of another kind": row_error(
        parquet(image=[{"src": "a.jpg"}], caption=["a cat"]), r"row 0: image is \{'src': 'a.jpg'\} \(dict\)", [], 1
    ),
    "addresses in a column of their own": refused(
        parquet(URL=["http://x.org/a.jpg"], TEXT=["a cat"]),
        r"'URL' is a usual name for URLs, and nothing is fetched here.*img2dataset",
        ColumnError,
    ),
    "addresses for images": row_error(
        parquet(url=["http://x.org/a.jpg"], caption=["a cat"]), r"row 0: .*it is a URL", [], 1, image_column="url"
    ),
    "addresses as binary": row_error(
        parquet(image=[b"http://x.org/a.jpg"], caption=["a cat"]), r"row 0: .*it is a URL", [], 1
    ),
    "a long base64 as binary": row_error(
        parquet(image=[BASE64.encode() * 99], caption=["a cat"]), r"row 0: .*an image in base64|b64decode", [], 1
    ),
    "the output of img2dataset": refused(
        parquet(jpg=[PNG], caption=["a cat"], url=["http://x.org"]), r'set image_column = "jpg"', ColumnError
    ),
    "text that is not UTF-8": refused(
        parquet(
            image=["a.jpg"],
            caption=pa.Array.from_buffers(
                pa.string(), 1, [None, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9")]
            ),
        ),
        r"row 0, column 'caption' \(string\)",
    ),
}
CASES = {
    f"{suffix}: {kind}": (f"odd.{suffix}", odd)
    for suffix, kinds in {"csv": CSV, "tsv": TSV, "jsonl": JSONL, "json": COCO, "parquet": PARQUET}.items()
    for kind, odd in kinds.items()
}


def source_of(tmp_path: Path, name: str, odd: Odd) -> DataSource:
    (tmp_path / name).write_bytes(odd.content.encode() if isinstance(odd.content, str) else odd.content)
    return DataSource(str(tmp_path / name), check_images=False, **odd.options)


def shown(pair: Pair, source: DataSource) -> tuple[Any, ...]:
    image = pair.image if isinstance(pair.image, bytes) else pair.image.relative_to(Path(source.path).parent).as_posix()
    return (image, *pair.captions, *([pair.concept] if source.concept_column else []))


def test_there_are_sixty_kinds() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize(("name", "odd"), CASES.values(), ids=CASES.keys())
def test_an_odd_table_is_read_right_or_refused_by_name(tmp_path: Path, name: str, odd: Odd) -> None:
    source = source_of(tmp_path, name, odd)
    if odd.error is None:
        assert [shown(pair, source) for pair in read_pairs(source).pairs] == odd.pairs
        return
    with pytest.raises(odd.error, match=odd.says) as caught:
        read_pairs(source)
    assert type(caught.value) is odd.error
    assert name in str(caught.value)


@pytest.mark.parametrize(("name", "odd"), CASES.values(), ids=CASES.keys())
def test_skipping_gives_the_good_rows_and_counts_the_others(tmp_path: Path, name: str, odd: Odd) -> None:
    source = source_of(tmp_path, name, odd)
    if odd.error not in (None, RowError):
        with pytest.raises(odd.error, match=odd.says):  # a fault of the file, which skipping does not mend
            read_pairs(source, on_error="skip")
        return
    rows = list(iter_pairs(source))
    assert [shown(row, source) for row in rows if isinstance(row, Pair)] == odd.pairs
    rejected = [row for row in rows if isinstance(row, RejectedRow)]
    assert len(rejected) == odd.left
    if rejected:
        assert re.search(odd.says, f"{rejected[0].origin}: {rejected[0].reason}")


# What a caption may hold that the csv module has to quote or a reader could trip over.
CAPTIONS = st.text(st.sampled_from("ab é猫,;|\t\"\n\r\u2028\x0c\x85'\\"), min_size=1, max_size=12).filter(str.strip)


@given(
    captions=st.lists(CAPTIONS, min_size=1, max_size=8),
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_what_the_csv_module_writes_is_read_as_it_was(
    captions: list[str], delimiter: str, line_end: str, encoding: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            # By itself the module leaves line ends that are not its own without quotes, which it cannot read again.
            writer = csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC)
            writer.writerow(["image", "caption"])
            writer.writerows([f"{at}.jpg", caption] for at, caption in enumerate(captions))
        pairs = read_pairs(DataSource(str(path), delimiter=delimiter, check_images=False)).pairs
    assert [(pair.image.name, pair.captions) for pair in pairs if isinstance(pair.image, Path)] == [
        (f"{at}.jpg", (caption.strip(),)) for at, caption in enumerate(captions)
    ]


@given(
    captions=st.lists(st.text(st.sampled_from('ab "'), max_size=6), min_size=1, max_size=12),
    image_first=st.booleans(),
    delimiter=st.sampled_from([",", "\t"]),
)
def test_stray_quotes_lose_no_line_and_make_no_text(captions: list[str], image_first: bool, delimiter: str) -> None:
    rows = [(f"{at}.jpg", f"x{caption}" if at % 2 else caption or "y") for at, caption in enumerate(captions)]
    ordered = [("image", "caption"), *rows] if image_first else [row[::-1] for row in [("image", "caption"), *rows]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.csv"
        path.write_text("".join(delimiter.join(row) + "\n" for row in ordered), encoding="utf-8")
        read = list(iter_pairs(DataSource(str(path), delimiter=delimiter, check_images=False)))
    assert [row.origin.line for row in read] == list(range(2, len(rows) + 2))
    for row, (name, caption) in zip(read, rows, strict=True):
        if isinstance(row, Pair):
            assert isinstance(row.image, Path)
            assert row.image.name == name
            assert row.captions[0] in (caption.strip(), caption[1:-1].replace('""', '"').strip())


@given(st.text(st.sampled_from('ab,"\n'), max_size=30))
def test_rows_are_split_as_by_the_csv_module(text: str) -> None:
    try:
        expected = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error:
        return
    reader = RowReader(Path("pairs.csv"), io.StringIO(text), ",", is_quoted=True)
    rows = iter(lambda: reader.next_row(lambda _: None), None)
    assert [row.cells for row in rows if isinstance(row, Row)] == expected
