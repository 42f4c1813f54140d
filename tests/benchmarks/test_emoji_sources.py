"""How the emoji packs are made: keys, archives, EmojiOne's names, rendering. No network."""

import hashlib
import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.emoji.captions import Concept, concept_key, read_concepts
from benchmarks.emoji.emojione import emojione_svgs, icon_slug
from benchmarks.harness.packages import Archive, Package, SourceError, fetch
from tests.benchmarks.npm_packages import npm_archive


def concept(key: str, label: str, emoji_version: float) -> Concept:
    return Concept(key, "", label, [], "", [], "", "", emoji_version)


@pytest.mark.parametrize(
    ("hexcode", "key"),
    [
        ("1F600", "1f600"),
        ("2764-FE0F", "2764"),
        ("0023-FE0F-20E3", "23-20e3"),
        ("1f468-200d-2764-fe0f-200d-1f468", "1f468-2764-1f468"),
        ("00A9", "a9"),
    ],
)
def test_concept_key_drops_presentation_joiners_and_leading_zeros(hexcode: str, key: str) -> None:
    assert concept_key(hexcode) == key
    assert concept_key(key) == key


@pytest.mark.parametrize("hexcode", ["", "grinning-face", "1f600-", "1f600 1f601"])
def test_concept_key_rejects_what_is_no_hex_code(hexcode: str) -> None:
    with pytest.raises(ValueError, match="is not a hex code"):
        concept_key(hexcode)


def test_concept_key_rejects_a_lone_joiner() -> None:
    with pytest.raises(ValueError, match="nothing but joiners"):
        concept_key("200D")


def test_fetch_accepts_a_cached_archive_only_with_the_recorded_hash(tmp_path: Path) -> None:
    (tmp_path / "scope-name-1.0").mkdir()
    (tmp_path / "scope-name-1.0" / "name.tgz").write_bytes(b"archive")
    recorded = Package("npm", "@scope/name", "1.0", hashlib.sha256(b"archive").hexdigest())
    assert fetch(recorded, tmp_path).path.name == "name.tgz"
    with pytest.raises(SourceError, match="expected 0000"):
        fetch(Package("npm", "@scope/name", "1.0", "0000"), tmp_path)


def test_archive_lists_one_folder_of_a_wheel(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in ("svg/1F600.svg", "svg/1F600.svg.gz", "svg/deeper/1F601.svg", "other/1F602.svg"):
            wheel.writestr(name, name)
    archive = Archive(tmp_path / "a.whl")
    assert archive.files("svg", "*.svg") == {"svg/1F600.svg": b"svg/1F600.svg"}
    assert archive.read("other/1F602.svg") == b"other/1F602.svg"
    assert archive.members("svg/deeper/", "other/1F602.svg").keys() == {"svg/deeper/1F601.svg", "other/1F602.svg"}
    with pytest.raises(SourceError, match=r"a\.whl lacks svg/1F603\.svg"):
        archive.members("svg/1F600.svg", "svg/1F603.svg")


def test_a_debian_package_is_read_by_name(tmp_path: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    (tmp_path / "tree/DEBIAN").mkdir(parents=True)
    (tmp_path / "tree/DEBIAN/control").write_text(
        "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tmp_path / "tree/usr/share").mkdir(parents=True)
    (tmp_path / "tree/usr/share/a.txt").write_text("a")
    subprocess.run(["dpkg-deb", "--build", tmp_path / "tree", tmp_path / "thing.deb"], check=True, capture_output=True)
    assert Archive(tmp_path / "thing.deb").members("usr/share/") == {"usr/share/a.txt": b"a"}


def test_concepts_need_two_captions_and_a_group_that_is_kept(tmp_path: Path) -> None:
    def emoji(hexcode: str, group: int | None, tags: list[str]) -> dict[str, object]:
        return {"hexcode": hexcode, "emoji": "", "label": hexcode, "version": 1, "tags": tags} | (
            {} if group is None else {"group": group, "subgroup": 0}
        )

    kept = emoji("1F600", 0, ["face"])
    left_out = [emoji("1F1E6-1F1E8", 1, ["flag"]), emoji("1F1E6", None, ["letter"]), emoji("1F601", 0, [])]
    groups = [{"order": 0, "message": "smileys"}, {"order": 1, "message": "flags"}]
    messages = {"groups": groups, "subgroups": [{"order": 0, "message": "smiling"}]}
    english = [kept, *left_out, emoji("1F602", 0, ["only English"])]
    archive = npm_archive(
        tmp_path, {"en/data.json": english, "zh/data.json": [kept, *left_out], "en/messages.json": messages}
    )
    assert [(c.key, c.group, c.subgroup) for c in read_concepts(archive)] == [("1f600", "smileys", "smiling")]


def test_icon_slug_spells_names_as_iconify_does() -> None:
    assert icon_slug("twelve o’clock") == "twelve-oclock"
    assert icon_slug("piñata") == "pinata"
    assert icon_slug("couple with heart: woman, woman") == "couple-with-heart-woman-woman"


def test_emojione_follows_aliases_and_old_names_but_not_later_emoji(tmp_path: Path) -> None:
    icons = {name: {"body": name} for name in ("bear-face", "cricket-game", "robot-face")}
    aliases = {"bear": {"parent": "bear-face"}, "cricket": {"parent": "cricket-game"}}
    icon_set = {"icons": icons, "aliases": aliases, "width": 64, "height": 64}
    concepts = [concept("1f43b", "bear", 0.6), concept("1f916", "robot", 1), concept("1f997", "cricket", 5)]
    svgs = emojione_svgs(npm_archive(tmp_path, {"icons.json": icon_set}), concepts)
    assert {key: svg.split(b">")[1] for key, svg in svgs.items()} == {
        "1f43b": b"bear-face</svg",
        "1f916": b"robot-face</svg",
    }


def test_svg_and_png_become_72_px_rgba() -> None:
    pytest.importorskip("resvg_py", reason="resvg-py is not installed: pip install resvg-py==0.5.0")
    from benchmarks.emoji.packs import encode_webp, render

    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><circle cx="32" cy="32" r="30"/></svg>'
    png = io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(png, "PNG")
    for drawing in (svg, png.getvalue()):
        image = Image.open(io.BytesIO(encode_webp(render(drawing))))
        assert (image.mode, image.size) == ("RGBA", (72, 72))
    assert render(svg).getpixel((0, 0)) == (0, 0, 0, 0)
    assert render(svg).getpixel((36, 36)) == (0, 0, 0, 255)
