"""`mmalign embed` to a folder of parts, or through one to a .parquet file: what a user finds there, and is told."""

from pathlib import Path

import pytest

from mmalign_runtime import Embedder, load_vectors
from mmalign_runtime.bulk.parts import read_failures
from mmalign_runtime.errors import InputError
from mmalign_runtime.saved.manifest import read_manifest

pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
pytestmark = pytest.mark.usefixtures("window_of_one_batch")

NUM_TEXTS = 10
BAD = 3


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    lines = [f"a dog {number}".encode() for number in range(NUM_TEXTS)]
    lines[BAD] = b"caf\xe9"
    (tmp_path / "texts.txt").write_bytes(b"\n".join(lines))
    return tmp_path / "texts.txt"


@pytest.fixture(params=["vectors", "vectors.parquet"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


@pytest.fixture
def embed(cli, tiny_bundle: Path, texts: Path, out: Path):
    """Run `mmalign embed` on the texts, with more options."""

    def run(*options: object):
        words = ("--kind", "text", "--batch-size", 2, "--part-rows", 4, "--threads", 2)
        return cli("embed", tiny_bundle, texts, "--out", out, *words, *options)

    return run


def failures_of(out: Path) -> Path:
    return out / "_errors/part-000000000000.parquet" if out.is_dir() else out.with_name("vectors.errors.parquet")


def parts_of(out: Path) -> Path:
    return out if out.suffix == "" else out.with_name("vectors.parquet.parts")


def modified(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_vectors_and_failures_are_two_tables(embed, embedder: Embedder, tiny_bundle: Path, out: Path) -> None:
    result = embed()
    assert (result.code, "10/10" in result.err) == (1, True)
    saved = load_vectors(out)
    assert saved.ids == tuple(str(number) for number in range(NUM_TEXTS) if number != BAD)
    assert saved.space_id == embedder.space_id
    assert [(failure.row, failure.id, failure.stage) for failure in read_failures(failures_of(out))] == [
        (3, "3", "tokenize")
    ]
    assert (
        f"1 of 10 items failed; they are listed in {failures_of(out) if out.suffix else out / '_errors'}" in result.err
    )
    names = {path.name for path in out.parent.iterdir()} - {"bundle", "texts.txt"}
    assert names == ({"vectors"} if out.is_dir() else {"vectors.parquet", "vectors.errors.parquet"})


def test_search_reads_what_embed_wrote(embed, cli, tiny_bundle: Path, out: Path) -> None:
    embed()
    assert cli("search", tiny_bundle, out, "a dog", "--top-k", 2).code == 0


def test_what_is_complete_is_left_alone(embed, out: Path) -> None:
    embed()
    before = modified(out.parent)
    result = embed("--resume")
    assert (result.code, "is complete: nothing is left to embed" in result.err) == (1, True)
    assert modified(out.parent) == before


def test_what_is_there_is_replaced_only_by_force(embed, texts: Path, out: Path) -> None:
    embed()
    refused = embed()
    assert (refused.code, "is there already. Add --resume to go on with it, --force to replace" in refused.err) == (
        2,
        True,
    )
    texts.write_text("one\ntwo\n")
    assert embed("--force").code == 0
    assert load_vectors(out).ids == ("0", "1")
    assert not failures_of(out).exists()


def test_nothing_to_resume_starts_from_the_first_item(embed, out: Path) -> None:
    result = embed("--resume")
    assert (result.code, f"nothing to resume at {out}: starting from the first item" in result.err) == (1, True)


def test_a_stopped_run_goes_on(embed, out: Path, texts: Path) -> None:
    stopped = embed("--on-error", "raise")
    assert stopped.code == 2
    assert "stopped: 2 of 10 items are done and safe. Go on with:\nmmalign embed " in stopped.err
    assert stopped.err.splitlines()[-2].endswith("--on-error raise --resume")
    assert "error: item 3 ('caf\\udce9'), tokenize" in stopped.err
    resumed = embed("--resume")
    assert f"going on with {out}: 2 of 10 items are done" in resumed.err
    assert len(load_vectors(out).ids) == NUM_TEXTS - 1


def test_how_a_run_goes_on_repeats_what_was_said_of_the_towers(embed, texts: Path) -> None:
    said = ("--threads", 1, "--no-allow-tf32", "--cache")
    stopped = embed("--on-error", "raise", *said)
    again = stopped.err.splitlines()[-2]
    assert all(f" {word} " in again for word in ("--threads 1", "--no-allow-tf32", "--cache"))
    assert "going on with" in embed("--on-error", "raise", *said, "--resume").err


def test_the_config_is_recorded_and_other_digits_are_not_mixed_in(embed, out: Path) -> None:
    embed("--on-error", "raise", "--threads", 1)
    record = read_manifest(parts_of(out))
    assert record is not None
    assert (record.config.num_threads, record.config.text_batch_size, record.config.provider) == (1, 2, "cpu")
    changed = embed("--resume", "--allow-tf32")
    assert (changed.code, "was begun differently: --allow-tf32 is True, was False" in changed.err) == (2, True)


def test_a_run_that_would_give_other_rows_is_refused(embed, out: Path, texts: Path) -> None:
    embed("--on-error", "raise")
    changed = embed("--resume", "--batch-size", 4)
    assert (changed.code, "was begun differently: --batch-size is 4, was 2. Run it as" in changed.err) == (2, True)
    texts.write_text(texts.read_text(errors="replace") + "\none more")
    assert "number of items is 11, was 10; input is " in embed("--resume").err
    assert read_manifest(parts_of(out)) is not None


def test_vectors_that_are_not_complete_are_not_loaded(embed, out: Path) -> None:
    embed("--on-error", "raise")
    for path in (out, parts_of(out)):
        with pytest.raises(InputError, match=r"not complete yet\. Finish it.*--resume"):
            load_vectors(path)


def test_a_part_that_was_lost_is_missed(embed, out: Path) -> None:
    embed()
    if out.is_dir():
        min(out.glob("part-*")).unlink()
        with pytest.raises(InputError, match=r"vectors holds 6 vectors, expected 9. Make the lost part again"):
            load_vectors(out)
        assert "going on with" in embed("--resume").err
    assert len(load_vectors(out).ids) == NUM_TEXTS - 1


def test_a_first_item_that_stops_the_run_leaves_nothing(embed, texts: Path, out: Path) -> None:
    texts.write_bytes(b"caf\xe9")
    assert embed("--on-error", "raise").code == 2
    assert sorted(path.name for path in out.parent.iterdir()) == ["bundle", "texts.txt"]


def test_a_damaged_part_is_made_again(embed, out: Path) -> None:
    embed("--on-error", "raise")
    (part,) = parts_of(out).glob("part-*")
    part.write_bytes(part.read_bytes()[:-3])
    assert "part-000000000000.parquet is damaged: its items are embedded again" in embed("--resume").err
    assert len(load_vectors(out).ids) == NUM_TEXTS - 1


def test_an_input_that_changes_meanwhile_is_refused(embed, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter(["before", "after"])
    monkeypatch.setattr("mmalign_runtime.bulk.sources.ListSource.fingerprint", lambda source: next(given))
    result = embed()
    assert (result.code, "changed while it was embedded, so items may be missing" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vectors.csv", r"ends in '.csv', expected a folder's name without a suffix, .parquet or .npz"),
        ("texts.txt/vectors", "texts.txt is not a folder, so vectors cannot be written to it"),
        ("texts.txt/vectors.npz", "texts.txt is not a folder, so vectors.npz cannot be written to it"),
        ("texts.txt/deep/vectors.parquet", "texts.txt is not a folder, so vectors.parquet cannot be written to it"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_at_once(
    cli, tiny_bundle: Path, texts: Path, tmp_path: Path, name: str, reason: str
) -> None:
    result = cli("embed", tiny_bundle, texts, "--kind", "text", "--out", tmp_path / name)
    assert (result.code, reason in result.err) == (2, True)


def test_a_file_of_vectors_from_elsewhere_is_not_resumed(embed, out: Path, tmp_path: Path) -> None:
    if out.suffix:
        out.write_bytes(b"PAR1")
    else:
        out.mkdir()
        (out / "thesis.docx").touch()
    assert embed("--resume").code == 2
    assert out.exists()


def test_an_input_is_never_the_output(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"caption": ["a dog"]}), table)
    before = table.read_bytes()
    result = cli("embed", tiny_bundle, table, "--out", table, "--kind", "text", "--force")
    assert (result.code, "lies in the input" in result.err) == (2, True)
    inside = cli("embed", tiny_bundle, tmp_path, "--out", tmp_path / "vectors", "--kind", "text")
    assert (inside.code, "lies in the input" in inside.err) == (2, True)
    assert table.read_bytes() == before


def test_a_table_of_something_else_is_not_replaced_even_by_force(
    cli, tiny_bundle: Path, texts: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = tmp_path / "sales.parquet"
    pq.write_table(pa.table({"price": [1.0]}), table)
    result = cli("embed", tiny_bundle, texts, "--out", table, "--kind", "text", "--force")
    assert (result.code, "a table of something else" in result.err) == (2, True)
    assert pq.read_table(table).column_names == ["price"]


def test_a_part_whose_pages_were_damaged_is_made_again(embed, out: Path) -> None:
    if out.suffix:
        pytest.skip("a finished file has no parts: it is replaced with --force")
    embed()
    whole = load_vectors(out)
    part = sorted(out.glob("part-*"))[1]
    raw = bytearray(part.read_bytes())
    raw[40] ^= 0xFF
    part.write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load_vectors(out)
    result = embed("--resume")
    assert f"{part} is damaged: its items are embedded again" in result.err
    assert (load_vectors(out).vectors == whole.vectors).all()


def test_texts_that_lose_their_end_are_counted(embed, cli, tiny_bundle: Path, texts: Path, out: Path) -> None:
    texts.write_text("a dog\n" + "dog " * 50 + "\n" + "a cat\n" * 4 + "cat " * 17)
    first = embed()
    line = "2 of 7 texts have more than 16 tokens and lost their end"
    assert (first.code, line in first.err) == (0, True)
    again = embed("--resume")
    assert ("nothing is left to embed" in again.err, line in again.err) == (True, True)
    if out.is_dir():
        manifest = read_manifest(out)
        assert manifest is not None
        assert manifest.num_truncated == 2
    plain = cli("embed", tiny_bundle, texts, "--kind", "text", "--out", out.parent / "v.npz")
    assert line in plain.err


def test_texts_that_keep_their_end_are_not_spoken_of(embed, texts: Path) -> None:
    texts.write_text("a dog\n")
    assert "lost their end" not in embed().err


def test_a_list_in_utf16_gives_the_rows_that_were_written(embed, embedder: Embedder, texts: Path, out: Path) -> None:
    texts.write_bytes("a dog\r\na cat\u2028on a mat\r\n".encode("utf-16"))
    assert embed().code == 0
    expected = embedder.encode_text(["a dog", "a cat\u2028on a mat"], batch_size=2)
    assert (load_vectors(out).vectors == expected).all()
    texts.write_bytes("a dog\n".encode("utf-16-le"))
    refused = embed("--force")
    assert (refused.code, "is full of NUL bytes, as UTF-16 without a byte order mark is" in refused.err) == (2, True)


def test_what_is_left_out_of_a_folder_is_said_once(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in/.cache").mkdir(parents=True)
    for name in ("a.txt", "._a.txt", ".cache/b.txt"):
        (tmp_path / "in" / name).write_text("a dog")
    for out in ("vectors", "vectors.npz"):
        result = cli("embed", tiny_bundle, tmp_path / "in", "--kind", "text", "--out", tmp_path / out)
        assert result.err.count("hidden files or folders left out: 2 ") == 1
        assert load_vectors(tmp_path / out).ids == ("a.txt",)
