"""Mutants of a module: its source with one thing changed. cosmic-ray's operators, and two of our own.

Only what runs is changed: annotations of functions and docstrings are not evaluated. Needs cosmic-ray, which
`make mutation` installs into a folder of its own.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

PACKAGES_DIR = Path(__file__).resolve().parents[2] / ".mutation"  # behind the environment's own packages
sys.path.append(str(PACKAGES_DIR))

from cosmic_ray.ast import ast_nodes, get_ast, is_number  # noqa: E402
from cosmic_ray.mutating import mutate_code  # noqa: E402
from cosmic_ray.operators import (  # noqa: E402
    binary_operator_replacement,
    boolean_replacer,
    break_continue,
    comparison_operator_replacement,
    exception_replacer,
    number_replacer,
    remove_decorator,
    unary_operator_replacement,
    zero_iteration_for_loop,
)
from cosmic_ray.operators.operator import Example, Operator  # noqa: E402
from parso.tree import NodeOrLeaf  # noqa: E402

Position: TypeAlias = tuple[int, int]
Span: TypeAlias = tuple[Position, Position]

# Of the many replacements of one operator, its opposite and, where it compares, the one that moves the boundary.
_COMPARISONS = (
    *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
    *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
)
_BINARY = (
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul"),
    *("BitOr_BitAnd", "BitAnd_BitOr", "LShift_RShift", "RShift_LShift"),
)
_UNARY = ("Delete_Not", "Delete_USub", "Delete_Invert")


class Mutant(msgspec.Struct, frozen=True):
    """One change: the operator that made it, the line before and after, and the module's whole source with it."""

    operator: str
    line: int
    before: str
    after: str
    source: str


class NumberScaled(Operator):  # type: ignore[misc]
    """Doubles and halves a decimal number; of one between a half and 1, what it lacks of 1, as a bound on a cosine."""

    _FACTORS = (2.0, 0.5)

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Span]:
        """Yield each decimal number twice."""
        if is_number(node) and isinstance(ast.literal_eval(node.value), float):
            yield from [(node.start_pos, node.end_pos)] * len(self._FACTORS)

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """Scale it, in place."""
        value, factor = ast.literal_eval(node.value), self._FACTORS[index]
        node.value = repr(1 - factor * (1 - value) if 0.5 < value < 1 else factor * value)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what it does."""
        return (Example("x = 1e-4", "x = 0.0002"), Example("x = 0.75", "x = 0.875", occurrence=1))


class WordChanged(Operator):  # type: ignore[misc]
    """Changes a string that is one word: a key, an option, a name. Sentences are for people."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Span]:
        """Yield each word."""
        if node.type == "string" and not any(letter.isspace() for letter in node.value) and len(node.value) > 2:
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        """Change it, in place."""
        quote = node.value[-1]
        start = node.value.index(quote) + 1
        node.value = f"{node.value[:start]}XX{node.value[start:]}"
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what it does."""
        return (Example('x = "cpu"', 'x = "XXcpu"'),)


def operators() -> list[Operator]:
    named = [
        *(getattr(comparison_operator_replacement, f"ReplaceComparisonOperator_{name}") for name in _COMPARISONS),
        *(getattr(binary_operator_replacement, f"ReplaceBinaryOperator_{name}") for name in _BINARY),
        *(getattr(unary_operator_replacement, f"ReplaceUnaryOperator_{name}") for name in _UNARY),
        boolean_replacer.AddNot,
        boolean_replacer.ReplaceTrueWithFalse,
        boolean_replacer.ReplaceFalseWithTrue,
        boolean_replacer.ReplaceAndWithOr,
        boolean_replacer.ReplaceOrWithAnd,
        break_continue.ReplaceBreakWithContinue,
        break_continue.ReplaceContinueWithBreak,
        exception_replacer.ExceptionReplacer,
        number_replacer.NumberReplacer,
        remove_decorator.RemoveDecorator,
        zero_iteration_for_loop.ZeroIterationForLoop,
        NumberScaled,
        WordChanged,
    ]
    return [operator() for operator in named]


def mutants_of(source: str) -> list[Mutant]:
    """Return every mutant of a module, by line."""
    skipped, lines = _not_evaluated(source), source.splitlines()
    found = []
    for operator in operators():
        positions = [span for node in ast_nodes(get_ast(source)) for span in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            if any(first <= start and end <= last for first, last in skipped):
                continue
            if lines[start[0] - 1][start[1] :].startswith("*,"):  # before arguments by name; taken for a product
                continue
            mutated = mutate_code(source, operator, occurrence)
            if mutated is not None and mutated != source:
                before, after = (text.splitlines()[start[0] - 1].strip() for text in (source, mutated))
                found.append(Mutant(type(operator).__name__, start[0], before, after, mutated))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.after))


def _not_evaluated(source: str) -> list[Span]:
    """Return where annotations stand that nothing reads: those of functions, of local and of module variables."""
    tree = ast.parse(source)
    spans: list[Span] = []
    in_classes = {id(item) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for item in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            spans.append(_span(node.annotation))
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            spans.append(_span(node.returns))
        elif isinstance(node, ast.AnnAssign):
            spans += [_span(node.annotation)] if id(node) not in in_classes else _unions(node.annotation)
    return spans


def _unions(annotation: ast.expr) -> list[Span]:
    """Return the unions in a field's annotation: another operator there is an error at once."""
    return [_span(node) for node in ast.walk(annotation) if isinstance(node, ast.BinOp)]


def _span(node: ast.expr) -> Span:
    # Columns of ast are bytes of UTF-8, those of parso characters: annotations are ASCII.
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or 0)
