"""The code of a function, in a form that comments, docstrings and annotations do not change."""

from __future__ import annotations

import ast
import functools
import hashlib
import linecache
from collections.abc import Iterator
from types import CodeType, FunctionType

from ..payload.reads import code_text

_MAX_TEXT = 4_000
"""Characters of a function's source that are noted."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_Place = tuple[str, int]


def code_of(function: FunctionType) -> tuple[str, str]:
    """Return fingerprints of a function's code, separated by a space, and its source.

    There is one of the bytecode, and one of the source if that is the one that runs: a file may have been
    edited since it was imported. Two functions have the same code if they have one of them in common.
    """
    text = _source(function.__code__)
    hashes = [_hash(code_text(function.__code__)), *([_hash(text)] if text else [])]
    return " ".join(hashes), text[:_MAX_TEXT]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _source(code: CodeType) -> str:
    """Return the source of a code object as ``ast.unparse`` writes it; empty if it is not at hand."""
    linecache.checkcache(code.co_filename)
    nodes, codes = _parse(code.co_filename, "".join(linecache.getlines(code.co_filename)))
    place = code.co_name, code.co_firstlineno
    # Two lambdas may stand in one line.
    if len(nodes.get(place, ())) != 1 or len(codes.get(place, ())) != 1:
        return ""
    if code_text(codes[place][0]) != code_text(code):
        return ""
    node = Plain().visit(ast.parse(ast.unparse(nodes[place][0])).body[0])
    if isinstance(node, _Function):
        # They run where the function is made: what they come to is looked at, not how it is written.
        node.decorator_list, node.args.defaults = [], []
        node.args.kw_defaults = [None] * len(node.args.kwonlyargs)
    return ast.unparse(ast.fix_missing_locations(node))


@functools.lru_cache(maxsize=64)
def _parse(file: str, text: str) -> tuple[dict[_Place, list[ast.AST]], dict[_Place, list[CodeType]]]:
    """Return the functions in a file by where they stand: their syntax, and their code."""
    nodes: dict[_Place, list[ast.AST]] = {}
    codes: dict[_Place, list[CodeType]] = {}
    try:
        module, compiled = ast.parse(text), compile(text, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return nodes, codes
    for node in ast.walk(module):
        if place := _place(node):
            nodes.setdefault(place, []).append(node)
    for code in _codes_in(compiled):
        codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)
    return nodes, codes


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_in(constant)


def _place(node: ast.AST) -> _Place | None:
    """Return the name and the first line that the code object of a function or lambda has."""
    if isinstance(node, _Function):
        return node.name, min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return ("<lambda>", node.lineno) if isinstance(node, ast.Lambda) else None


class Plain(ast.NodeTransformer):
    """Takes out docstrings and annotations of functions. Those of classes stay: a program may read them."""

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        before = self._in_class
        if isinstance(node, (_Function, ast.ClassDef)):
            self._in_class = isinstance(node, ast.ClassDef)
        if isinstance(node, _Function):
            node.returns = None
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.arg):
            node.annotation = None
        super().generic_visit(node)
        self._in_class = before
        if isinstance(node, ast.AnnAssign) and not self._in_class:
            return ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
        return node
