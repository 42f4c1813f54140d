"""The demo's configuration and queries: files that exist, and answers that training never sees."""

from pathlib import Path

import pytest

from benchmarks.demo.drawings import Drawing, read_attributions, read_test_drawings, write_drawings, write_labels
from benchmarks.demo.queries import IMAGE_QUERIES, TEXT_QUERIES
from benchmarks.demo.run import CONFIG, DemoError, prepare, query_drawings
from benchmarks.harness.places import ROOT
from mmalign.config import Config, load_config
from mmalign.run.pairs import load_sources


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(CONFIG)


@pytest.fixture(scope="module")
def drawings(config: Config) -> tuple[Drawing, ...]:
    return read_test_drawings(config.data)


def test_the_configuration_names_files_that_exist(config: Config) -> None:
    paths = [Path(source.path) for source in (*config.data.sources, *config.data.held_out)]

    assert len(paths) == 9
    assert all(path.is_file() for path in paths)


def test_only_openmoji_is_held_out(config: Config) -> None:
    assert [Path(source.path).stem for source in config.data.held_out] == ["openmoji"]


def test_no_drawing_or_concept_was_trained_on_or_chosen_by(config: Config, drawings: tuple[Drawing, ...]) -> None:
    """Also where concepts share a picture, and so are on one side."""
    splits = [source.splits for source in load_sources(config.data)]
    used = [pair for each in splits for pair in (*each.train, *each.val)]
    assert len(used) > 5000
    assert not {pair.concept for pair in used} & {drawing.concept for drawing in drawings}
    assert not {pair.image for pair in used} & {drawing.image for drawing in drawings}


def test_no_two_drawings_share_a_file(drawings: tuple[Drawing, ...]) -> None:
    assert len({drawing.name for drawing in drawings}) == len(drawings)


def test_a_dozen_queries_and_all_their_answers_are_test_concepts(drawings: tuple[Drawing, ...]) -> None:
    labels = {drawing.label for drawing in drawings}

    assert len(TEXT_QUERIES) == 12
    assert {label for query in TEXT_QUERIES for label in query.labels} <= labels


def test_no_query_is_a_label(drawings: tuple[Drawing, ...]) -> None:
    assert not {query.text for query in TEXT_QUERIES} & {drawing.label for drawing in drawings}


def test_image_queries_are_drawings_of_every_style(drawings: tuple[Drawing, ...]) -> None:
    queries = query_drawings(drawings)

    assert [(query.style, query.label) for query in queries] == [(query.style, query.label) for query in IMAGE_QUERIES]
    assert {query.style for query in queries} == {drawing.style for drawing in drawings}


def test_packs_say_whose_work_they_are(config: Config) -> None:
    licences = {attribution.name: attribution.licence for attribution in read_attributions(config.data)}

    assert licences == {
        "noto": "Apache-2.0",
        "twemoji": "CC-BY-4.0",
        "emojione": "CC-BY-4.0",
        "noto-v1": "Apache-2.0",
        "fxemoji": "Apache-2.0",
        "streamline-emojis": "CC-BY-4.0",
        "flat-color-icons": "MIT",
        "streamline-ultimate-color": "CC-BY-4.0",
        "openmoji": "CC-BY-SA-4.0",
        "captions": "MIT AND Unicode-3.0",
    }


def test_drawings_and_labels_are_written(tmp_path: Path, drawings: tuple[Drawing, ...]) -> None:
    few = drawings[:3]
    write_drawings(few, tmp_path)

    assert [(tmp_path / drawing.name).read_bytes() for drawing in few] == [drawing.image for drawing in few]
    assert write_labels(few, tmp_path / "labels.txt") == tuple((tmp_path / "labels.txt").read_text().splitlines())


def test_a_folder_of_others_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")

    with pytest.raises(DemoError, match="holds files that no demo made"):
        prepare(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_demos_own_folder_is_emptied_all_but_the_cache(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    prepare(out)
    for name in ("cache", "run"):
        (out / name).mkdir()
    (out / "report.html").touch()

    prepare(out)

    assert {path.name for path in out.iterdir()} == {"cache", ".mmalign-demo"}
