"""A model over 2 GB, random weights: saved, imported with its proof, packed, verified, embedded with, and damaged.

    python -m benchmarks.imports.large_model WORK

CLIP of transformers with an image tower of three layers 4,096 wide: 2.4 GB of weights, and few enough operations for
two cores. WORK, which is emptied first, needs 10 GB of room. Each step runs in a process of its own; the last line is
JSON with its seconds and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers

from tests.export.sources.tiny import TOKENIZERS, spread_out

_WEIGHTS = "onnx/vision_model.onnx_data"
_CHANGED_EXIT = 2  # of the command line, for a bundle that cannot be used
_RUN = "from mmalign_runtime.cli import main; import sys; main(sys.argv[1:])"


def save_large(folder: Path) -> None:
    """Write the model, its tokenizer and its image processor, as transformers does."""
    torch.manual_seed(0)
    tokenizer = TOKENIZERS["clip"](folder)
    config = transformers.CLIPConfig(
        vision_config={
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 3,
            "num_attention_heads": 64,
            "patch_size": 32,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 2,
        },
        projection_dim=512,
    )
    config.text_config.eos_token_id = tokenizer.eos_token_id
    model = transformers.CLIPModel(config)
    spread_out(model)
    tokenizer.model_max_length = config.text_config.max_position_embeddings
    for part in (model, tokenizer, transformers.CLIPImageProcessor()):
        part.save_pretrained(folder)


def measured(*arguments: str | Path, program: str = _RUN) -> dict[str, float | int | str]:
    """Run the command line in a process of its own; return what it took. `children` counts the largest one so far."""
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "exit": done.returncode,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "largest_peak_gb": round(after.ru_maxrss * 1024 / 1e9, 2),  # Linux counts kibibytes
        "said": " ".join((done.stdout + done.stderr).split())[-300:],
    }


def flip_a_bit(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def main() -> None:
    """Take every step, print each, and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    model, bundle, archive = work / "model", work / "bundle", work / "bundle.mmalign"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    steps = {
        "save": measured(
            model,
            program="import sys; from pathlib import Path; "
            "from benchmarks.imports.large_model import save_large; save_large(Path(sys.argv[1]))",
        )
    }
    photo = next(Path(__file__).parents[2].glob("export/mmalign_export/photo/*.jpg"))
    asked: dict[str, tuple[str | Path, ...]] = {
        "import": ("import", model, "--out", bundle, "--force"),
        "verify": ("verify", bundle),
        "verify, openvino": ("verify", bundle, "--engine", "openvino"),
        "pack": ("pack", bundle, "--out", archive),
        "verify the archive": ("verify", archive),
        "embed": ("embed", archive, photo.parent, "--out", work / "vectors.parquet"),
    }
    for name, arguments in asked.items():
        steps[name] = measured(*arguments)
        print(name, steps[name], flush=True)
        if steps[name]["exit"] != 0:
            raise SystemExit(f"{name} failed.")
    flip_a_bit(bundle / _WEIGHTS)
    steps["verify, one bit flipped"] = found = measured("verify", bundle)
    print("verify, one bit flipped", found, flush=True)
    size_bytes = (bundle / _WEIGHTS).stat().st_size
    passed = found["exit"] == _CHANGED_EXIT and _WEIGHTS in str(found["said"])
    print(json.dumps({"passed": passed, "weights_gb": round(size_bytes / 1e9, 2), "steps": steps}))


if __name__ == "__main__":
    main()
