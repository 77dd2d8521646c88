"""Expressions of sizes, as text that somebody else will evaluate: which of them are harmless."""

from __future__ import annotations

import ast
import re
from typing import Final

_MAX_CHARACTERS: Final = 4096
_MAX_POWER: Final = 8
_SYMBOL: Final = re.compile(r"[a-z]{1,2}[0-9]{1,9}")
_CONSTANTS: Final = frozenset({"oo", "int_oo", "true", "false"})
# Of sympy and of PyTorch's additions to it; all take numbers and give a number.
_FUNCTIONS: Final = frozenset(
    {
        *("Abs", "Add", "Float", "Identity", "Integer", "Max", "Min", "Mod", "Mul", "Rational"),
        *("And", "Eq", "Equality", "Ge", "GreaterThan", "Gt", "Le", "LessThan", "Lt", "Ne", "Not"),
        *("Or", "StrictGreaterThan", "StrictLessThan", "Unequality", "Where"),
        *("CeilDiv", "CleanDiv", "FloatTrueDiv", "FloorDiv", "IntTrueDiv", "ModularIndexing"),
        *("CeilToInt", "FloorToInt", "PythonMod", "RoundToInt", "ToFloat", "TruncToInt"),
        *("ceiling", "floor"),
    }
)
_ASSUMPTIONS: Final = frozenset({"positive", "nonnegative", "negative", "integer", "real"})
_OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)


def is_harmless(text: str) -> bool:
    """Whether evaluating ``text`` can do no more than a little arithmetic."""
    if len(text) > _MAX_CHARACTERS:
        return False
    try:
        return _is_fine(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_fine(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            fine = isinstance(value, (bool, int, float))
        case ast.Name(id=name):
            fine = _SYMBOL.fullmatch(name) is not None or name in _CONSTANTS
        case ast.UnaryOp(operand=operand):
            fine = _is_fine(operand)
        case ast.BinOp(left=left, op=op, right=right):
            fine = isinstance(op, _OPERATORS) and _is_fine(left) and _is_fine(right)
        case ast.Compare(left=left, comparators=others):
            fine = all(map(_is_fine, (left, *others)))
        case ast.Call(func=ast.Name(id=name)):
            fine = _is_fine_call(name, node)
        case _:
            fine = False
    return fine


def _is_fine_call(name: str, node: ast.Call) -> bool:
    match name, node.args:
        case "Symbol", [ast.Constant(value=str(symbol))]:
            return _SYMBOL.fullmatch(symbol) is not None and all(
                k.arg in _ASSUMPTIONS and isinstance(k.value, ast.Constant) for k in node.keywords
            )
        case "Pow", [base, power]:
            return not node.keywords and _is_fine(base) and _is_small(power)
    return name in _FUNCTIONS and not node.keywords and all(map(_is_fine, node.args))


def _is_small(power: ast.expr) -> bool:
    """Towers of powers take for ever."""
    found = re.fullmatch(r"(?:Integer\()?(-?[0-9]{1,2})\)?", ast.unparse(power))
    return found is not None and abs(int(found[1])) <= _MAX_POWER
