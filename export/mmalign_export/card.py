"""The model card: README.md of a bundle, for a person who meets it without us."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.figures.scores import Evaluation
from mmalign_runtime.bench.stages import StageTiming
from mmalign_runtime.spec import BundleSpec, ImageSpec, ImageTower, ImportRecord, TextTower

_USAGE = """## Use

```bash
pip install 'mmalign-runtime[cpu]'
mmalign verify .        # proves this bundle on this machine before it serves
```

```python
from mmalign_runtime import Embedder

embedder = Embedder.load(".")
image_embeds = embedder.encode_image(["dog.jpg"])   # (1, D) float32, unit length
text_embeds = embedder.encode_text(["a dog"])
similarity = image_embeds @ text_embeds.T
```"""


def model_card(
    spec: BundleSpec, evaluation: Evaluation | None, timings: Sequence[StageTiming], cpu: str, num_threads: int
) -> str:
    """Return the card's Markdown: what it is, how to use it, parity, recall, latency, licence of the weights."""
    sections = [_intro(spec), _USAGE, _parity(spec), _recall(evaluation)]
    if spec.provenance.imported is not None:
        sections.insert(2, _proof(spec.provenance.imported))
    sections += [_latency(timings, cpu, num_threads), _origin(spec)]
    return "\n\n".join(sections) + "\n"


def _intro(spec: BundleSpec) -> str:
    image, text = spec.tower("image", ImageTower), spec.tower("text", TextTower)
    pixels = f"pixels, {_resize(image.spec)}, {image.spec.interpolation}, antialiased"
    return f"""# Image-text dual encoder, {spec.embed_dim} dimensions

An mmalign bundle: images and texts to unit vectors of one space, `{spec.space_id}`.

| | image tower | text tower |
|---|---|---|
| architecture | {image.architecture} | {text.architecture} |
| input | {pixels} | up to {text.spec.context_length} tokens |
| file | `{spec.artifact("image").file}` | `{spec.artifact("text").file}` |"""


def _resize(image: ImageSpec) -> str:
    (height, width), (resized_height, resized_width) = image.shape, image.resized_shape
    target, patch = f"{width} x {height}", image.shortest_edge
    return {
        "squash": f"squashed to {target}",
        "shortest_edge": f"shortest edge to {image.shortest_edge}, centre crop of {target}",
        "longest_edge": f"fitted into {target}, the rest filled",
        "resize_then_crop": f"squashed to {resized_width} x {resized_height}, centre crop of {target}",
        "naflex": f"at its own ratio, in up to {image.num_patches} patches of {patch} x {patch}",
    }[image.resize]


def _proof(record: ImportRecord) -> str:
    rows = [
        f"| {each.stage} | {each.tower} | {each.num_cases} | {each.largest:.3g} | {each.bound:g} "
        f"| {'' if each.lowest_cosine is None else f'{each.lowest_cosine:.7f}'} |"
        for each in record.stages
    ]
    head = "| stage | tower | cases | largest difference | bound | lowest cosine |\n|---|---|---|---|---|---|"
    note = f"The golden vectors are those of {record.reference}, divided by their length."
    lines = [f"## Proof against {record.reference}", "", note, "", head, *rows]
    if record.differences:
        lines += ["", "Read by another convention, so that the vectors differ:", ""]
        lines += [f"- {each.tower} {each.case!r}: {each.why}, cosine {each.cosine:.4f}" for each in record.differences]
    chosen = [f"- {each.what}: {each.value} ({each.origin})" for each in record.choices]
    return "\n".join([*lines, "", "Chosen for it:", "", *chosen] if chosen else lines)


def _parity(spec: BundleSpec) -> str:
    rows = [
        f"| {each.tower} | {each.kind} | {p.num_cases} | {p.min_cosine:.8f} | {p.max_abs_difference:.1e} "
        f"| {p.cosine_bound} and {p.abs_bound:g} |"
        for each in spec.artifacts
        if (p := each.parity)
    ]
    head = (
        "| tower | artifact | golden cases | lowest cosine | largest difference | bounds |\n|---|---|---|---|---|---|"
    )
    reference = "eager PyTorch" if spec.provenance.imported is None else spec.provenance.imported.reference
    return "\n".join([f"## Parity with {reference}, from file bytes to vector", "", head, *rows])


def _recall(evaluation: Evaluation | None) -> str:
    title = "## Recall"
    if evaluation is None:
        return f"{title}\n\nNot measured: `mmalign evaluate` does so on pairs."
    rows = []
    for source in evaluation.sources:
        name = f"{source.source}{' (held out)' if source.is_held_out else ''}"
        for method, scored in (
            ("this model", source.model),
            ("linear map", source.linear_map),
            ("chance", source.chance),
        ):
            to_text, to_image = scored.image_to_text, scored.text_to_image
            cells = (to_text.at_1, to_text.at_10, to_image.at_1, to_image.at_10)
            rows.append(f"| {name} | {method} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
            name = ""
    head = "| source | method | image to text @1 | @10 | text to image @1 | @10 |\n|---|---|---|---|---|---|"
    note = f"On concepts of the {evaluation.split} split, none of them trained on."
    return "\n".join([title, "", note, "", head, *rows])


def _latency(timings: Sequence[StageTiming], cpu: str, num_threads: int) -> str:
    rows = [
        f"| {t.kind} | {t.batch_size} | {t.stage} | {t.p50_ms:.1f} | {t.p90_ms:.1f} | {t.items_per_s:.1f} |"
        for t in timings
    ]
    head = "| input | batch | stage | p50 ms | p90 ms | items/s |\n|---|---|---|---|---|---|"
    note = f"Golden images and texts, CPU provider, {num_threads} threads, {cpu}. `mmalign bench .` measures yours."
    return "\n".join(["## Latency where it was exported", "", note, "", head, *rows])


def _origin(spec: BundleSpec) -> str:
    provenance = spec.provenance
    versions = ", ".join(f"{name} {found}" for name, found in sorted(provenance.versions.items()))
    source = provenance.source
    trained = f", trained on {', '.join(provenance.data)}" if provenance.data else ""
    return f"""## Origin

Made {provenance.created} from {source.kind} `{source.name}`{trained}; ONNX opset \
{provenance.opset_version}; {versions}.

Licence of the pretrained weights: {provenance.weights_licence}. The golden photograph of Grace Hopper is a work of the
United States Navy, in the public domain."""
