"""A tower that reads one token of its last block computes the rest of that block for that token alone.

The row that is pooled (the class token, the end of a text) is taken as early as it can be: before the last block's
scores, output projection, residual sums, norms and MLP. Its keys and values are of all tokens still. Of ViT-B/32 this
is a twentieth of the operations. Numbers are the same but for the order of sums in a product of other sides.

A value is taken by its row where all that reads it reads that row: from the pooling upwards, through operators that
treat rows alike. A graph without such a pooling, or with no product with weights before it, stays as it is.
Shapes: B batch, L tokens, M tokens attended to, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from mmalign_export.rewrite.onnx_interface import constant

_UNARY = frozenset(
    {"Cast", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Log"}
    | {"Neg", "Not", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh"}
)
_ELEMENTWISE = frozenset({"Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where"})
_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_TOKENS = 1


class Pooling(msgspec.Struct, frozen=True):
    """The node that takes a row of tokens (B, L, D), and which: the same of all items, or one of each, (B,)."""

    node: ir.Node
    row: int | ir.Value

    @property
    def tokens(self) -> ir.Value:
        """(B, L, D)."""
        found = self.node.inputs[0]
        assert found is not None
        return found


class Use(msgspec.Struct, frozen=True):
    """An input of a node, and the axis of it that counts tokens."""

    node: ir.Node
    index: int
    axis: int

    @property
    def value(self) -> ir.Value:
        """What is read."""
        found = self.node.inputs[self.index]
        assert found is not None
        return found


def take_pooled_row_early(model: ir.Model) -> int:
    """Take the pooled rows of a graph as early as can be, in place, and return how many products with weights have one
    row now; 0 where the graph was left as it is."""
    graph, num_products = model.graph, 0
    for pooling in list(_poolings(graph)):
        uses, axes = _by_row(graph, pooling)
        products = [node for node in axes if node.op_type == "MatMul" and _constant(node.inputs[1]) is not None]
        if products:
            _rewrite(graph, pooling, uses, axes)
            num_products += len(products)
    if num_products:
        passes.RemoveUnusedNodesPass()(model)
        graph.sort()
    return num_products


def _poolings(graph: ir.Graph) -> Iterator[Pooling]:
    for node in graph:
        data = node.inputs[0] if node.inputs else None
        if data is None or data.shape is None or len(data.shape) != 3 or data.shape[_TOKENS] == 1:
            continue
        row: int | ir.Value | None = _same_row(node) if node.op_type == "Gather" else None
        if node.op_type == "GatherND":
            row = _own_rows(node)
        if row is not None:
            yield Pooling(node, row)


def _same_row(node: ir.Node) -> int | None:
    index = _constant(node.inputs[1])
    is_one = index is not None and index.ndim == 0 and node.attributes.get_int("axis", 0) in (_TOKENS, _TOKENS - 3)
    return int(index) if index is not None and is_one else None


def _own_rows(node: ir.Node) -> ir.Value | None:
    """Return k (B,) of indices (B, 2) that are [0, k[0]], [1, k[1]] and so on, or None for others."""
    batch = (_dims(node.inputs[0]) or [None])[0]
    joined = node.inputs[1].producer() if node.inputs[1] is not None else None
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return None
    if "batch_dims" in node.attributes and node.attributes["batch_dims"].as_int():
        return None
    columns = [each.producer() if each is not None else None for each in joined.inputs]
    if not all(each is not None and each.op_type == "Unsqueeze" for each in columns):
        return None
    items, rows = (each.inputs[0] for each in columns if each is not None)
    counted = items.producer() if items is not None else None
    if rows is None or counted is None or counted.op_type != "Range" or batch is None:
        return None
    start, step = _constant(counted.inputs[0]), _constant(counted.inputs[2])
    is_counted = start is not None and step is not None and (int(start), int(step)) == (0, 1)
    return rows if is_counted and _dims(items) == _dims(rows) == [batch] else None


def _by_row(graph: ir.Graph, pooling: Pooling) -> tuple[list[Use], dict[ir.Node, int]]:
    """Return all uses that are of the row alone, and the nodes whose output is, with its axis of tokens."""
    whole: set[ir.Node] = set()  # what reads something that a row cannot be taken of
    while True:
        uses, axes = _row_alone(graph, pooling, whole)
        blocked = {use.node for use in uses if use.value.producer() not in axes and not _can_be_taken(use, pooling)}
        if not blocked:
            return uses, axes
        whole |= blocked


def _row_alone(graph: ir.Graph, pooling: Pooling, whole: set[ir.Node]) -> tuple[list[Use], dict[ir.Node, int]]:
    uses = [Use(pooling.node, 0, _TOKENS)]
    axes: dict[ir.Node, int] = {}
    for node in reversed(graph):
        own = [use for use in uses if use.value is node.outputs[0]]
        is_row = own and len({use.axis for use in own}) == 1 and len(own) == len(node.outputs[0].uses())
        if not is_row or node in whole or any(each.uses() for each in node.outputs[1:]):
            continue
        inner = None if node.outputs[0].is_graph_output() else _inner_uses(node, own[0].axis)
        if inner:
            axes[node] = own[0].axis
            uses += inner
    return uses, axes


def _inner_uses(node: ir.Node, axis: int) -> list[Use] | None:
    """Return which inputs may be cut to one row where the output is, with their axes; None where none can."""
    dims, first = _dims(node.outputs[0]), _dims(node.inputs[0])
    if dims is None or first is None:
        return None
    last, name = len(dims) - 1, node.op_type
    if name in _UNARY:
        return [Use(node, 0, axis)]
    if name in _ELEMENTWISE:
        return _elementwise_uses(node, axis, len(dims))
    if name in _NORMS or name == "Softmax":
        is_of_rows = axis < last and node.attributes.get_int("axis", -1) in (-1, last)
        return [Use(node, 0, axis)] if is_of_rows else None
    if name == "MatMul":
        return [Use(node, 0, axis)] if axis == last - 1 and len(first) == len(dims) else None
    if name == "Transpose":
        return [Use(node, 0, node.attributes["perm"].as_ints()[axis])] if "perm" in node.attributes else None
    if name == "Reshape":
        is_of_rows = axis == _TOKENS and first[:2] == dims[:2] and _are_known(first[2:]) and _are_known(dims[2:])
        return [Use(node, 0, axis)] if is_of_rows and None not in dims[:2] else None
    return None


def _elementwise_uses(node: ir.Node, axis: int, rank: int) -> list[Use] | None:
    """Return the inputs that have the axis at all; the others are broadcast along it."""
    found = []
    for index, value in enumerate(node.inputs):
        dims = None if value is None else _dims(value)
        if dims is None:
            return None
        own = axis - (rank - len(dims))
        if own >= 0 and dims[own] is None:
            return None
        if own >= 0 and dims[own] != 1:
            found.append(Use(node, index, own))
    return found


def _can_be_taken(use: Use, pooling: Pooling) -> bool:
    """Say whether `_taken` can cut this input to the row."""
    dims = _dims(use.value)
    return dims is not None and (isinstance(pooling.row, int) or _has_batch(use, pooling) or _has_no_batch(use))


def _has_batch(use: Use, pooling: Pooling) -> bool:
    batch = (_dims(pooling.tokens) or [None])[0]
    return use.axis > 0 and batch is not None and (_dims(use.value) or [None])[0] == batch


def _has_no_batch(use: Use) -> bool:
    """Say whether an input is the same for all items: a mask (L, M), with ones before it or without."""
    dims = _dims(use.value) or []
    return use.node.op_type in _ELEMENTWISE and dims[: use.axis] == [1] * use.axis


def _rewrite(graph: ir.Graph, pooling: Pooling, uses: list[Use], axes: dict[ir.Node, int]) -> None:
    writer = _Writer(graph, pooling)
    for use in uses:
        if use.value.producer() not in axes:
            use.node.replace_input_with(use.index, writer.taken(use))
    for node, axis in axes.items():
        dims = list(node.outputs[0].shape or ())
        dims[axis] = 1
        node.outputs[0].shape = ir.Shape(dims)
        if node.op_type == "Reshape":
            node.replace_input_with(1, writer.integers([-1, *(each for each in dims[1:] if isinstance(each, int))]))
            node.attributes.pop("allowzero", None)
    row = writer.add("Squeeze", [pooling.tokens, writer.integers([_TOKENS])], pooling.node.outputs[0])
    ir.convenience.replace_all_uses_with(pooling.node.outputs[0], row)


class _Writer:
    """Writes what takes rows, before the node that pooled."""

    def __init__(self, graph: ir.Graph, pooling: Pooling) -> None:
        self._graph, self._pooling = graph, pooling
        self._found: dict[tuple[ir.Value, int, int], ir.Value] = {}
        self._name = f"{pooling.node.outputs[0].name}_early"

    def taken(self, use: Use) -> ir.Value:
        """Return an input of a node with its row alone: 1 on its axis of tokens, or (B, 1, ..., 1, M) of a mask."""
        rank = len(use.node.outputs[0].shape or ())
        key = (use.value, use.axis, rank)
        if key not in self._found:
            row = self._pooling.row
            self._found[key] = self._same_row(use, row) if isinstance(row, int) else self._own_rows(use, row, rank)
        return self._found[key]

    def add(self, operator: str, inputs: list[ir.Value], like: ir.Value, **attributes: int | list[int]) -> ir.Value:
        """Write a node and return its output, of another one's type."""
        node = ir.node(operator, inputs, attributes)
        node.name = node.outputs[0].name = f"{self._name}_{len(self._graph)}"
        node.outputs[0].type = like.type
        self._graph.insert_before(self._pooling.node, node)
        return node.outputs[0]

    def integers(self, values: list[int]) -> ir.Value:
        """Return a constant, int64."""
        name = f"{self._name}_{'_'.join(map(str, values))}"
        if name not in self._graph.initializers:
            constant(self._graph, name, np.array(values, np.int64))
        return self._graph.initializers[name]

    def _same_row(self, use: Use, row: int) -> ir.Value:
        found = self.add("Gather", [use.value, self.integers([row])], use.value, axis=use.axis)
        return self._shaped(found, [1 if at == use.axis else each for at, each in enumerate(use.value.shape or ())])

    def _own_rows(self, use: Use, rows: ir.Value, rank: int) -> ir.Value:
        value, axis, dims = use.value, use.axis, list(use.value.shape or ())
        batch = (self._pooling.tokens.shape or [None])[0]
        if _has_batch(use, self._pooling):
            if axis != 1:
                order = [0, axis, *(at for at in range(1, len(dims)) if at != axis)]
                value = self.add("Transpose", [value], use.value, perm=order)
            indices = self._pooling.node.inputs[1]
            assert indices is not None
            found = self.add("GatherND", [value, indices], use.value)
            found = self.add("Unsqueeze", [found, self.integers([axis])], use.value)
            return self._shaped(found, [1 if at == axis else each for at, each in enumerate(dims)])
        if axis:
            value = self.add("Squeeze", [value, self.integers(list(range(axis)))], use.value)
        found = self.add("Gather", [value, rows], use.value, axis=0)  # (B, M)
        rest = dims[axis + 1 :]
        ones = list(range(1, rank - len(rest)))
        found = self.add("Unsqueeze", [found, self.integers(ones)], use.value)
        return self._shaped(found, [batch, *(1 for _ in ones), *rest])

    @staticmethod
    def _shaped(value: ir.Value, dims: list[object]) -> ir.Value:
        value.shape = ir.Shape(dims)  # type: ignore[arg-type]
        return value


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _dims(value: ir.Value | None) -> list[int | str | None] | None:
    """Return the dims of a value: numbers, names, and None for what has neither; None where nothing is known of it."""
    if value is None or value.shape is None:
        return None
    return [each if isinstance(each, int) else each.value for each in value.shape]


def _are_known(dims: list[int | str | None]) -> bool:
    return all(isinstance(each, int) for each in dims)
