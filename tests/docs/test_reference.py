"""The generated pages are those of the present code, and name everything public."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from docs.gen.check_site import faults
from docs.gen.cli_page import verbs
from docs.gen.config_page import keys, meanings, tables, type_words
from docs.gen.decisions_page import decisions_page
from docs.gen.reference import DOCS, pages
from mmalign.config import Natural

_NAV = re.compile(r"[\w/]+\.md\b")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return pages()


def test_the_committed_pages_are_those_of_the_code(generated: dict[str, str]) -> None:
    for name, text in generated.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"{name}: run `python -m docs.gen.reference`"


@pytest.mark.parametrize("package", ["mmalign_runtime", "mmalign", "mmalign_export"])
def test_every_public_name_is_in_the_reference(generated: dict[str, str], package: str) -> None:
    shown = re.findall(rf"^::: {package}\.(\w+)$", generated[f"reference/{package}.md"], re.MULTILINE)
    assert shown == sorted(import_module(package).__all__)


def test_every_key_is_in_the_reference_with_its_default(generated: dict[str, str]) -> None:
    page = generated["reference/config.md"]
    for key in ("data.sources.path", "train.epochs", "image.limits.max_pixels", "evaluate.templates"):
        assert page.count(f'<a id="{key}"></a>') == 1
    first = {table.struct: table for table in reversed(list(tables()))}  # the others refer to it
    named = {f"{table.anchor}.{field.name}" for table in first.values() for field in keys(table)}
    assert {"loss.infonce.temperature", "loss.sigmoid.bias", "model.image_head.residual.num_blocks"} <= named
    assert set(re.findall(r'<a id="([\w.]+)">', page)) == named
    assert "`[0.485, 0.456, 0.406]`" in page
    assert "integer, at least 1 | `10` | Passes over the training pairs." in page


def test_every_verb_and_option_is_in_the_reference(generated: dict[str, str]) -> None:
    page = generated["reference/cli.md"]
    for name, command in verbs().items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for option in (opt for each in command.params if each.param_type_name == "option" for opt in each.opts):
            assert f"`{option}`" in section, (name, option)


def test_a_key_that_the_docstring_leaves_out_is_an_error() -> None:
    class Undocumented(msgspec.Struct):
        """A table.

        Attributes:
            one: The first.
        """

        one: int
        two: int = 0

    with pytest.raises(ValueError, match=r"Attributes are \['one'\], the fields \['one', 'two'\]"):
        meanings(Undocumented)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Natural, "integer, at least 0"),
        (Literal["a", "b"], '`"a"` or `"b"`'),
        (str | None, "text"),
        (tuple[float, float, float], "list of 3, each number"),
        (bool | tuple[str, ...], "true or false or list of text"),
    ],
)
def test_types_are_told_in_words(annotation: object, words: str) -> None:
    assert type_words(annotation) == words


def test_every_page_is_in_the_navigation() -> None:
    listed = set(_NAV.findall((DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")))
    assert listed == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_every_decision_has_a_line_of_its_own() -> None:
    assert len(re.findall(r"^- \[", decisions_page(), re.MULTILINE)) >= 90


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    for package in ("mmalign", "mmalign_export", "mmalign_runtime"):
        names = "".join(f'<h2 id="{package}.{name}"></h2>' for name in import_module(package).__all__[1:])
        (tmp_path / f"reference/{package}.html").write_text(names)
    (tmp_path / "reference/config.html").write_text('<a id="train.epochs"></a><a id="train"></a>')
    (tmp_path / "index.html").write_text(
        '<script src="https://cdn.example/x.js"></script><img src="none.png"><a href="#there" id="here"></a>'
        '<a href="reference/config.html#train.epochs"></a><a href="reference/config.html#no"></a><a href="/"></a>'
    )
    found = list(faults(tmp_path))
    assert found[:4] == [
        "index.html fetches https://cdn.example/x.js",
        "index.html leads to none.png",
        "index.html leads to #there",
        "index.html leads to reference/config.html#no",
    ]
    assert "mmalign.BundleScores is not in the reference" in found
    assert "train.batch_size is not in the reference" in found
    assert "train.epochs is not in the reference" not in found
