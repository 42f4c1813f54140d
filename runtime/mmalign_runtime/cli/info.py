"""`mmalign info`: what a bundle is, and what this machine chooses to run it with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mmalign_runtime.cli.loading import Loading, takes_config
from mmalign_runtime.cli.options import BundleArgument, JsonOption
from mmalign_runtime.cli.terminal import cell, new_table

if TYPE_CHECKING:
    from rich.table import Table

    from mmalign_runtime.info import RuntimeInfo
    from mmalign_runtime.spec import BundleSpec, Tower


@takes_config
def info(
    bundle: BundleArgument,
    *,
    asked: Loading,
    json: JsonOption = False,
) -> None:
    """Show what a bundle is, and what would run it here."""
    import msgspec

    with asked.load(bundle) as embedder:
        spec, runtime = embedder.bundle.spec, embedder.info()
    if json:
        typer.echo(msgspec.json.encode({"bundle": spec, "runtime": runtime}))
    else:
        print_info(spec, runtime, size_bytes=embedder.bundle.size_bytes())


def print_info(spec: BundleSpec, runtime: RuntimeInfo, *, size_bytes: int) -> None:
    """Print the bundle's facts, its measured parity and the runtime's choices as tables."""
    from rich.console import Console

    console = Console()
    console.print(_facts("bundle", bundle_facts(spec, size_bytes)))
    console.print(_parity(spec))
    console.print(_facts("on this machine", runtime_facts(runtime)))


def bundle_facts(spec: BundleSpec, size_bytes: int) -> dict[str, str]:
    """Return what a reader asks of a bundle first, as words."""
    made, source = spec.provenance, spec.provenance.source
    data = f" ({', '.join(made.data)})" if made.data else ""
    library = f"{source.library} {source.version}, " if source.version else ""
    prefixes, alike, seen = ", ".join(map(str, spec.prefix_dims)), spec.similarity, spec.attention
    return {
        "space": spec.space_id,
        "embed_dim": f"{spec.embed_dim}{f'; the first {prefixes} components are vectors too' if prefixes else ''}",
        "similarity": f"{alike.kind}, scale {alike.scale:.4g}, bias {alike.bias:.4g}",
        "precisions": ", ".join(spec.precisions()),
        **{f"{name} tower": f"{tower.architecture}, {_item(tower)}" for name, tower in spec.towers.items()},
        **({"attention": f"texts look at {seen.rows} x {seen.columns} regions"} if seen else {}),
        "size": f"{size_bytes / 1e6:.1f} MB in {len(spec.files)} files",
        "made": f"{made.created} from {source.kind} {source.name}{data}, {library}opset {made.opset_version}",
        "licence": made.weights_licence,
    }


def _item(tower: Tower) -> str:
    from mmalign_runtime.spec import ImageTower

    if isinstance(tower, ImageTower):
        spec, (height, width) = tower.spec, tower.spec.shape
        size = f"{width} x {height} pixels"
        if spec.resize == "naflex":
            size = f"up to {spec.num_patches} patches of {spec.shortest_edge} x {spec.shortest_edge} pixels"
        return f"{size}, {spec.resize}, {spec.interpolation}"
    mask = "" if tower.inputs.attention_mask else ", without a mask"
    return f"{tower.spec.context_length} tokens, padding {tower.spec.padding}, cleaning {tower.spec.cleaning}{mask}"


def runtime_facts(runtime: RuntimeInfo) -> dict[str, str]:
    """Return what was chosen here, as words."""
    waits = "spinning" if runtime.allow_spinning else "asleep"
    facts = {
        "engine": f"{runtime.engine} {runtime.engine_version}",
        "provider": f"{runtime.provider} (asked: {runtime.provider_asked})",
        "variant": runtime.variant_id,
        "threads": f"{runtime.num_threads} a run, {runtime.num_runs} runs at once, {waits} between",
    }
    if asked := [name for name in ("allow_tf32", "cache") if getattr(runtime, name)]:
        facts["options"] = ", ".join(asked)
    if runtime.jpeg_decoder is not None:
        facts["JPEG decoder"] = runtime.jpeg_decoder
    for tower in runtime.towers:
        facts[f"{tower.name} nodes"] = ", ".join(f"{n} on {name}" for name, n in tower.nodes_by_provider().items())
        if elsewhere := tower.elsewhere():
            facts[f"{tower.name} elsewhere"] = ", ".join(f"{group.num_nodes} {group.operator}" for group in elsewhere)
    if runtime.towers:
        for choice in runtime.towers[0].providers:
            if choice.options:
                facts[choice.name] = ", ".join(f"{name}={value}" for name, value in choice.options.items())
    return facts


def _facts(title: str, facts: dict[str, str]) -> Table:
    table = new_table(title=title)
    for name, value in facts.items():
        table.add_row(name, cell(value))
    return table


def _parity(spec: BundleSpec) -> Table:
    columns = ("tower", "artifact", "cases", "min cosine", "max abs")
    table = new_table(*columns, title="parity with the reference")
    for artifact in spec.artifacts:
        if row := artifact.parity:
            figures = (str(row.num_cases), f"{row.min_cosine:.7f}", f"{row.max_abs_difference:.1e}")
            table.add_row(artifact.tower, artifact.kind, *figures)
    return table
