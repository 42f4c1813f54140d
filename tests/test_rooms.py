"""Who imports whom, read from the source: no circle, no import against the order of distributions or of their rooms,
and no more than a few files and functions too long to read.

A room is a module or a package right below a distribution. Counted is what runs when a module is imported, and what its
functions import when they are called; not what only type checkers read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "mmalign_runtime": ROOT / "runtime/mmalign_runtime",
    "mmalign": ROOT / "mmalign",
    "mmalign_export": ROOT / "export/mmalign_export",
}
# A room imports only rooms that stand before it, in its own distribution and in those above it here. A new module is
# written where it belongs; one that fits nowhere knows too much. The distributions' own __init__ may import the first.
ROOMS = {
    "mmalign_runtime": (
        *(
            "lazy",
            "errors",
            "strict_json",
            "places",
            "atomic",
            "staging",
            "once",
            "names",
            "image_suffixes",
        ),
        *("spec", "arguments", "config", "streaming", "freed_memory", "text_prefix", "unit_vectors"),
        *("prefixes",),
        *("parquet", "saved", "ranking", "spaces"),
        *("image", "text_charsmap", "text_cleaning", "tokenizer", "bundle", "engine"),
        *("info", "clipping"),
        *("text_encoder", "image_encoder", "image_stream", "text_stream", "profile"),
        *("attention", "rerank"),
        *("base_embedder", "explain", "verify", "embedder", "bulk", "bench", "cli"),
    ),
    "mmalign": (
        *(
            "_compat",
            "errors",
            "memory",
            "distributed",
            "writing",
            "cpu",
            "progress",
            "seeds",
            "signature",
            "fingerprint",
        ),
        *("pixels", "data", "figures", "dual_model", "space", "imported"),
        *("towers", "heads", "losses", "model"),
        *("optim", "hard_batches", "checkpoints", "config", "device", "run", "features", "training"),
        *("evaluation", "report", "cli", "__main__"),
    ),
    "mmalign_export": (
        *("errors", "staging", "parity", "golden", "attention", "side_files", "card"),
        *("aotinductor", "rewrite", "to_onnx", "to_compiled", "bundle", "probe", "sources"),
        *("to_bundle", "importing", "quantization", "cli"),
    ),
}

MOST_LINES, MOST_FUNCTION_LINES = 350, 50

Graph = dict[str, set[str]]


def modules(folders: dict[str, Path]) -> dict[str, Path]:
    """Return every module's file by its dotted name."""
    found = {}
    for package, folder in folders.items():
        for path in folder.rglob("*.py"):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(files: dict[str, Path], *, in_functions: bool = True) -> Graph:
    """Return which modules each one imports when it is imported, and when its functions are called."""
    graph: Graph = {}
    for name, path in files.items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        graph[name] = {_nearest(each, files) for each in _imported(body, in_functions)} - {"", name}
    return graph


def _imported(body: Iterable[ast.stmt | ast.ExceptHandler | ast.match_case], in_functions: bool) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _imported(node.orelse, in_functions)
        elif in_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody", "handlers", "cases"):
                yield from _imported(getattr(node, part, []), in_functions)


def long_ones(files: dict[str, Path]) -> tuple[list[str], list[str]]:
    """Return the modules past MOST_LINES, and the functions past MOST_FUNCTION_LINES, docstrings and all."""
    long_files, long_functions = [], []
    for name, path in sorted(files.items()):
        source = path.read_text(encoding="utf-8")
        num_lines = len(source.splitlines())
        if num_lines > MOST_LINES:
            long_files.append(f"{name}: {num_lines}")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if num_lines > MOST_FUNCTION_LINES:
                    long_functions.append(f"{name}.{node.name}: {num_lines}")
    return long_files, long_functions


def _nearest(name: str, files: dict[str, Path]) -> str:
    """Return the module that a dotted name belongs to, "" for another project's."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name


def reachable(graph: Graph, name: str) -> set[str]:
    """Return all modules that run when `name` is imported, packages above them included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        here = waiting.pop()
        if here and here not in found:
            found.add(here)
            waiting += [*graph.get(here, ()), here.rpartition(".")[0]]
    return found


def against_order(graph: Graph, rooms: dict[str, tuple[str, ...]]) -> list[str]:
    """Return every import of a room that stands later than the importing one."""
    order = {f"{package}.{room}": at for at, (package, room) in enumerate(_pairs(rooms))}
    wrong = []
    for name, imported in graph.items():
        here = _room(name)
        wrong += [f"{name} imports {each}" for each in imported if order.get(here, 0) < order.get(_room(each), 0)]
    return sorted(wrong)


def _pairs(rooms: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(package, room) for package, listed in rooms.items() for room in listed]


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(modules(FOLDERS))


def test_no_module_imports_itself_through_others(graph: Graph) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_every_room_stands_once_in_the_order(graph: Graph) -> None:
    listed = [f"{package}.{room}" for package, room in _pairs(ROOMS)]
    assert sorted(listed) == sorted({_room(name) for name in graph} - FOLDERS.keys())


def test_imports_follow_the_order_of_distributions_and_rooms(graph: Graph) -> None:
    assert against_order(graph, ROOMS) == []


def test_reading_saved_vectors_needs_neither_the_writer_nor_an_embedder() -> None:
    graph = import_graph(modules(FOLDERS), in_functions=False)
    rooms = {_room(name) for name in reachable(graph, "mmalign_runtime.saved")}
    assert "mmalign_runtime.config" in rooms
    assert rooms.isdisjoint(
        {f"mmalign_runtime.{name}" for name in ("bulk", "base_embedder", "embedder", "engine", "image", "cli")}
    )


def test_files_and_functions_stay_short_enough_to_read() -> None:
    """Past these numbers, ask what second thing moved in. Three of each may have an answer; in the runtime none has."""
    files, functions = long_ones(modules(FOLDERS))
    assert len(files) <= 3, files
    assert len(functions) <= 3, functions
    assert [name for name in (*files, *functions) if name.startswith("mmalign_runtime.")] == []


def test_export_and_evaluation_know_models_and_no_runs(graph: Graph) -> None:
    of_runs = {"mmalign.run", "mmalign.run.folder", "mmalign.run.model"}
    knowing = {name for name, imported in graph.items() if imported & of_runs}
    assert {name for name in knowing if name.startswith("mmalign_export.")} == {"mmalign_export.sources.run"}
    assert knowing.isdisjoint({"mmalign.evaluation.scoring", "mmalign.features", "mmalign.dual_model"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pack.b", {"pack.b"}),
        ("from pack.b import thing", {"pack.b"}),
        ("from pack import b", {"pack.b"}),
        ("class A:\n    from pack.b import thing", {"pack.b"}),
        ("try:\n    import pack.b\nexcept ImportError:\n    import pack.c", {"pack.b", "pack.c"}),
        ("import json, numpy", set()),
        ("def f():\n    import pack.b", {"pack.b"}),
        ("class A:\n    def f(self):\n        with x:\n            from pack import b", {"pack.b"}),
        ("def f(x):\n    match x:\n        case 1:\n            import pack.c", {"pack.c"}),
        ("if TYPE_CHECKING:\n    import pack.b\nelse:\n    import pack.c", {"pack.c"}),
    ],
)
def test_what_runs_at_import_or_in_a_call_is_what_counts(tmp_path: Path, source: str, expected: set[str]) -> None:
    for name, text in (("__init__", ""), ("a", source), ("b", ""), ("c", "")):
        (tmp_path / f"{name}.py").write_text(text)
    files = modules({"pack": tmp_path})
    assert import_graph(files)["pack.a"] == expected
    is_called = source.startswith("def") or "    def" in source
    assert import_graph(files, in_functions=False)["pack.a"] == (set() if is_called else expected)


def test_a_circle_and_an_import_upwards_are_found() -> None:
    with pytest.raises(CycleError, match="nodes are in a cycle"):
        TopologicalSorter({"p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p.a"}}).prepare()
    rooms = {"low": ("a", "b"), "high": ("a",)}
    graph = {"low.a": {"low.b"}, "low.b.c": {"high.a"}, "high.a": {"low.b"}, "low.b": {"low.a"}}
    assert against_order(graph, rooms) == ["low.a imports low.b", "low.b.c imports high.a"]


def test_a_long_file_and_a_long_function_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n" + "    pass\n" * 49 + "def g():\n" + "    pass\n" * 50)
    (tmp_path / "b.py").write_text("x = 1\n" * 351)
    (tmp_path / "c.py").write_text("x = 1\n" * 350)
    assert long_ones(modules({"pack": tmp_path})) == (["pack.b: 351"], ["pack.a.g: 51"])
