"""Sources that are damaged, incomplete or ask for code: each is refused by name, and nothing is left behind."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mmalign_export import import_model
from mmalign_export.errors import ExportError, SourceError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import read_source
from mmalign_export.sources.transformers import weight_files
from mmalign_runtime.errors import MmalignError
from tests.export.sources.tiny import TOKENIZERS

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567\n"
WEIGHTS = "model.safetensors"
PROJECTION = "visual_projection.weight"


class _Runs:
    """What unpickling it would do is to write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _truncated(folder: Path) -> None:
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[: len(raw) // 2])


def _cut_in_the_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:20])


def _tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def _missing_tensor(folder: Path) -> None:
    _tensors(folder, lambda state: state.__delitem__("visual_projection.weight"))


def _surplus_tensor(folder: Path) -> None:
    _tensors(folder, lambda state: state.__setitem__("vision_model.adapter.weight", torch.zeros(4)))


def _other_shape(folder: Path) -> None:
    _tensors(folder, lambda state: state.__setitem__("text_projection.weight", torch.zeros(5, 32)))


def _not_a_number(folder: Path) -> None:
    _tensors(folder, lambda state: state["text_projection.weight"].__setitem__((0, 0), float("nan")))


def _untrained(folder: Path) -> None:
    """All pictures give nearly the bias of the last norm."""
    _tensors(folder, lambda state: state["vision_model.post_layernorm.weight"].mul_(1e-4))


def _config(folder: Path, name: str = "config.json", **changed: object) -> None:
    config = json.loads((folder / name).read_text())
    for path, value in changed.items():
        *parts, last = path.split("__")
        place = config
        for part in parts:
            place = place[part]
        place[last] = value
    (folder / name).write_text(json.dumps(config))


def _pickle_with_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"weight": _Runs(folder.parent / "ran")}, file)


def _pickle_of_a_module(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")


def _missing_shard(folder: Path) -> None:
    names = list(load_file(folder / WEIGHTS))
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00002-of-00002.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _as_int8(folder: Path) -> None:
    """Numbers without their scales, which load as if they were weights."""
    _tensors(folder, lambda state: state.update({name: (each * 10).to(torch.int8) for name, each in state.items()}))


def _twice(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state["visual_projection.weight"] = state["visual_projection.weight"] + 1
    torch.save(state, folder / "pytorch_model.bin")


def _shards_of_others(folder: Path) -> None:
    """One whole file, and shards of another model beside it."""
    state = load_file(folder / WEIGHTS)
    shard = "model-00001-of-00001.safetensors"
    save_file({name: tensor + 1 for name, tensor in state.items()}, folder / shard, {"format": "pt"})
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(state, shard)}))


def _in_two_shards(folder: Path) -> None:
    """All tensors in one shard, and one of them in the other shard too, with other values."""
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    shards = {
        "model-00001-of-00002.safetensors": state,
        "model-00002-of-00002.safetensors": {PROJECTION: state[PROJECTION] + 1},
    }
    for name, tensors in shards.items():
        save_file(tensors, folder / name, {"format": "pt"})
    listed = {name: shard for shard, tensors in shards.items() for name in tensors}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": listed}))


def _shard_elsewhere(folder: Path) -> None:
    _missing_shard(folder)
    (folder / "model-00001-of-00002.safetensors").rename(folder.parent / "shard.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002-of-00002", "../shard"))


def _zero_head(folder: Path) -> None:
    _tensors(folder, lambda state: state["visual_projection.weight"].zero_())


def _tokenizer_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    found = json.loads((folder / "tokenizer.json").read_text())
    change(found)
    (folder / "tokenizer.json").write_text(json.dumps(found))


def _words_of_another(folder: Path) -> None:
    """A tokenizer of BERT's: no text ends with the id that CLIP's tower is read at."""
    tokenizer = TOKENIZERS["align"](folder)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    tokenizer.save_pretrained(folder)


def _text_only(folder: Path) -> None:
    shutil.rmtree(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=20, **sizes)).save_pretrained(folder)


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _edit(name: str = "config.json", **changed: object) -> Callable[[Path], None]:
    return lambda folder: _config(folder, name, **changed)


PROCESSOR = "preprocessor_config.json"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated weights": (_truncated, r"is not a whole safetensors file"),
    "weights cut in their header": (_cut_in_the_header, r"is not a whole safetensors file"),
    "empty weights": (_write(WEIGHTS, ""), r"is empty\. Fetch it again"),
    "a pointer of Git LFS for weights": (_write(WEIGHTS, LFS), r"pointer of Git LFS.*git lfs pull"),
    "a pointer of Git LFS for the tokenizer": (_write("tokenizer.json", LFS), r"tokenizer cannot be read"),
    "no weights": (_unlink(WEIGHTS), r"holds no weights"),
    "a missing tensor": (_missing_tensor, r"1 missing \(visual_projection\.weight\)"),
    "a surplus tensor": (_surplus_tensor, r"1 surplus \(vision_model\.adapter\.weight\)"),
    "a tensor of another shape": (
        _other_shape,
        r"1 of another shape \(text_projection\.weight torch\.Size\(\[5, 32\]\)",
    ),
    "one file and other shards": (
        _shards_of_others,
        r"the weights twice, in model\.safetensors and model-00001-of-00001\.safetensors, and they differ",
    ),
    "padding on the left": (
        _edit("tokenizer_config.json", padding_side="left"),
        r"the tokenizer pads on the left, .* Set padding_side to right",
    ),
    "a missing shard": (_missing_shard, r"names the file model-00002-of-00002\.safetensors, which is not beside it"),
    "a shard outside of the folder": (_shard_elsewhere, r"keeps weights at '\.\./shard\.safetensors', outside of its"),
    "a tensor in two shards": (
        _in_two_shards,
        r"holds visual_projection\.weight twice, in model-00001-of-00002\.safetensors and in model-00002-of-00002",
    ),
    "an index of nothing": (
        lambda folder: (_missing_shard(folder), _write("model.safetensors.index.json", "{}")(folder))[0],
        r"says of no tensor in which file it is",
    ),
    "weights by another name": (
        lambda folder: (folder / WEIGHTS).rename(folder / "adapter.safetensors") and None,
        r"holds no weights that its library reads .* it holds adapter\.safetensors",
    ),
    "weights of eight bits": (_as_int8, r"46 of its tensors are of I8 .* Quantized weights are not read"),
    "weights twice, and not the same": (
        _twice,
        r"model\.safetensors and pytorch_model\.bin, and they differ \(in visual",
    ),
    "a head of zeros": (_zero_head, r"the image tower gives vectors of lengths 0\.0 to 0\.0"),
    "weights that are not numbers": (_not_a_number, r"tensor text_projection\.weight holds values that are not finite"),
    "a pickle with code": (_pickle_with_code, r"cannot be read as weights alone.*is never run"),
    "a pickle of a module": (_pickle_of_a_module, r"cannot be read as weights alone"),
    "bytes that are no pickle": (
        lambda folder: (_unlink(WEIGHTS)(folder), _write("pytorch_model.bin", "weights")(folder))[0],
        r"cannot be read as weights alone",
    ),
    "no configuration": (_unlink("config.json"), r"expected a config\.json"),
    "a configuration that is not JSON": (_write("config.json", "{"), r"config\.json is not JSON"),
    "a configuration that is a list": (_write("config.json", "[]"), r"holds list, expected an object"),
    "remote code": (_edit(auto_map={"AutoModel": "model.Own"}), r"asks for code that lies beside the weights"),
    "a text model": (_text_only, r"type 'bert', which is not a known dual encoder"),
    "another family's name": (_edit(model_type="siglip2"), r"its weights and its configuration disagree"),
    "a tower that is a word": (_edit(vision_config="x"), r"its config\.json cannot be read: .*vision_config"),
    "a width in words": (_edit(vision_config__hidden_size="32"), r"its config\.json cannot be read: .*hidden_size"),
    "heads that do not divide the width": (
        _edit(vision_config__num_attention_heads=5),
        r"its config\.json cannot be read: .*not a multiple of the number of attention heads",
    ),
    "no heads": (_edit(vision_config__num_attention_heads=0), r"its config\.json cannot be read: .*zero"),
    "more layers than weights": (_edit(vision_config__num_hidden_layers=3), r"missing \(vision_model\.encoder\.layers"),
    "fewer layers than weights": (_edit(text_config__num_hidden_layers=0), r"surplus \(text_model\.encoder\.layers"),
    "an unknown activation": (_edit(vision_config__hidden_act="swoosh"), r"swoosh"),
    "fewer token vectors than tokens": (
        _edit(text_config__vocab_size=50),
        r"tokens, and the text tower vectors for 50|1 of another shape",
    ),
    "a side below one": (_edit(PROCESSOR, crop_size={"height": -5, "width": 32}), r"crop_size has \{'height': -5\}"),
    "a side that no memory holds": (
        _edit(PROCESSOR, do_center_crop=False, size={"height": 60_000, "width": 60_000}),
        r"size has \{'height': 60000, 'width': 60000\}; expected 1 to 4096 pixels",
    ),
    "a scale of pixels that is zero": (_edit(PROCESSOR, rescale_factor=0), r"rescale_factor is 0; expected a number"),
    "a mean that is not a number": (
        _edit(PROCESSOR, image_mean=[float("nan"), 0.5, 0.5]),
        r"image_mean is \[nan, 0\.5, 0\.5\]; expected three finite numbers",
    ),
    "a text of no tokens": (
        _edit("tokenizer_config.json", model_max_length=0),
        r"model_max_length is 0; expected a number of tokens, at least 2",
    ),
    "a length in words": (_edit("tokenizer_config.json", model_max_length="long"), r"model_max_length is 'long'"),
    "a folder in the place of weights": (
        lambda folder: (_unlink(WEIGHTS)(folder), (folder / WEIGHTS).mkdir())[0],
        r"is a folder, or a link to nothing; expected a file of weights",
    ),
    "a link to nothing for weights": (
        lambda folder: (_unlink(WEIGHTS)(folder), (folder / WEIGHTS).symlink_to("nowhere"))[0],
        r"is a folder, or a link to nothing",
    ),
    "a configuration without an end": (_write("config.json", "[" * 200_000), r"config\.json is not JSON"),
    "a scale that is not finite": (
        lambda folder: _tensors(folder, lambda state: state.__setitem__("logit_scale", torch.tensor(1000.0))),
        r"similarity has scale inf .* expected a finite scale above zero",
    ),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("tokenizer*")] and None,
        r"holds no tokenizer",
    ),
    "another model's tokenizer": (_words_of_another, r"ends a text with id 3, and the text tower is read at id 1027"),
    "a tokenizer of other merges": (
        lambda folder: _tokenizer_json(folder, lambda found: found["model"]["merges"].append(["#", "##"])),
        r"its tokenizer cannot be read: .*out of vocabulary",
    ),
    "no end of a text": (_edit(text_config__eos_token_id=5), r"and the text tower is read at id 5"),
    "code of the tokenizer": (
        _edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", None]}),
        r"tokenizer_config\.json asks for code that lies beside the weights",
    ),
    "code of the image tower": (
        _edit(vision_config__auto_map={"AutoModel": "own.Own"}),
        r"config\.json asks for code that lies beside the weights",
    ),
    "no image processor": (_unlink(PROCESSOR), r"image processor cannot be read"),
    "pictures of another size": (
        _edit(PROCESSOR, crop_size={"height": 16, "width": 16}),
        r"the image tower cannot take pixel_values",
    ),
    "a picture of no fixed size": (_edit(PROCESSOR, do_center_crop=False), r"so that every picture has one size"),
    "a crop larger than the picture": (_edit(PROCESSOR, size={"shortest_edge": 20}), r"nothing is left to crop"),
    "a filter that no graph has": (_edit(PROCESSOR, resample=1), r"filter \(resample\) is 1"),
    "vectors that hardly differ": (_untrained, r"image vectors of all golden cases are alike"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_source_is_refused_by_name_and_leaves_nothing(
    name: str, saved: Callable[[str], Path], image_files: list[GoldenFile], tmp_path: Path
) -> None:
    folder = tmp_path / "source" / "model"
    shutil.copytree(saved("clip"), folder)
    change, match = BROKEN[name]
    change(folder)
    with pytest.raises(MmalignError, match=match) as raised:
        import_model(folder, tmp_path / "out" / "bundle", image_files=image_files)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
    assert not (folder.parent / "ran").exists()


def test_a_place_that_is_none_is_told_apart_from_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"neither a file nor a folder here, nor a name on the hub"):
        import_model(tmp_path / "nothing", tmp_path / "bundle")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("")
    with pytest.raises(ExportError, match=r"holds notes\.txt; expected a config\.json"):
        import_model(tmp_path / "folder", tmp_path / "bundle")
    with pytest.raises(SourceError, match=r"is not there\. Fetch the model whole"):
        import_model(tmp_path / "folder", tmp_path / "bundle", kind="transformers")


def test_weights_that_were_saved_twice_are_read_once_and_a_pointer_beside_them_is_left_alone(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(saved("clip"), tmp_path / "model")
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    assert weight_files(folder) == [folder / WEIGHTS]
    for dtype in (torch.float16, torch.bfloat16):  # the same weights in fewer bits, as many publish them
        torch.save(
            {name: each.to(dtype) for name, each in load_file(folder / WEIGHTS).items()}, folder / "pytorch_model.bin"
        )
        assert weight_files(folder) == [folder / WEIGHTS]
    (folder / "pytorch_model.bin").write_text(LFS)
    assert weight_files(folder) == [folder / WEIGHTS]


def test_an_index_whose_shards_were_not_fetched_is_left_alone_beside_weights_that_are_whole(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of `hf download --exclude "*.bin"`, say."""
    folder = shutil.copytree(saved("clip"), tmp_path / "model")
    for name in (WEIGHTS, "pytorch_model.bin"):
        shard = f"{name.partition('.')[0]}-00001-of-00001.{name.partition('.')[2]}"
        (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": {"logit_scale": shard}}))
    assert weight_files(folder) == [folder / WEIGHTS]


def test_weights_of_half_precision_and_shards_are_read(saved: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("clip"), tmp_path / "model")
    state = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(folder / WEIGHTS).items()}
    files = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(sorted(state))}
    for file in set(files.values()):
        save_file({name: state[name] for name in state if files[name] == file}, folder / file, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    read = read_source("transformers", folder)
    head = read.model.image.projection.state_dict()["weight"]
    torch.testing.assert_close(head, state["visual_projection.weight"].float(), rtol=0, atol=0)
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} <= read.model.origin.files.keys()
