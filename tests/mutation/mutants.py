"""The ways to break a module: one small change each, the operators of mutmut.

A number that is one higher, `<` in place of `<=`, `and` in place of `or`, an argument that is None or missing, a string that is
another one, an assignment of None. What is not state machine is left alone: annotations, docstrings, imports, decorators,
`__slots__`, `__repr__`, `__all__`, abstract methods, and the words of messages.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

try:
    cst: Any = import_module("libcst")
    metadata: Any = import_module("libcst.metadata")
    mutators: Any = import_module("mutmut.mutation.mutators")
except ImportError:
    sys.exit("the operators are those of mutmut: pip install mutmut==3.8.1")

ROOT: Final = Path(__file__).resolve().parents[2]
_WORDS: Final = {"__slots__", "__all__", "msg", "_how_to_hold_more", "T", "P"}
_HEADED: Final = (ast.If, ast.While, ast.For, ast.AsyncFor, ast.With, ast.AsyncWith, ast.Try)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Mutant:
    """One way to break a module.

    Attributes:
        module: its name, without the package.
        number: which of the mutants of the module.
        line: where it is.
        lines: those of the whole statement; of the function, for what belongs to its signature. None: of the module or a class.
        change: how it reads before and after.
        source: the whole module.
        place: the names of where it is: of a class, of its member; of a function or of a value of the module.
        exact: whether it is inside of a function: nothing of it was copied to elsewhere at import.

    """

    module: str
    number: int
    line: int
    lines: range | None
    change: str
    source: str = field(repr=False)
    place: tuple[str, ...]
    exact: bool

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} [{self.number}]\n{self.change}"


def path(module: str) -> Path:
    """Where the source of a module is."""
    return ROOT / "resilient" / "strategies" / f"{module}.py"


def mutants(module: str) -> list[Mutant]:
    """Every way to break a module that changes what it compiles to, each once."""
    source = path(module).read_text()
    tree = ast.parse(source)
    wrapper = metadata.MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(metadata.WhitespaceInclusivePositionProvider)
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    made, seen = list[Mutant](), {ast.dump(tree)}
    for node, changed in _changes(wrapper.module):
        span = positions[node]
        begin, end = (starts[int(at.line) - 1] + int(at.column) for at in (span.start, span.end))
        code = source[:begin] + wrapper.module.code_for_node(changed) + source[end:]
        try:
            meaning = ast.dump(ast.parse(code))
            compile(code, module, "exec")
        except SyntaxError:
            continue
        if meaning not in seen:
            seen.add(meaning)
            line = span.start.line
            lines, exact = _statement(tree, line)
            made.append(Mutant(module, len(made), line, lines, _change(source, code, span), code, _place(tree, line), exact))
    return made


def _changes(node: Any) -> Iterator[tuple[Any, Any]]:
    """Each node that can be changed, and into what."""
    if _is_left_alone(node):
        return
    for kind, operator in mutators.mutation_operators:
        if isinstance(node, kind):
            yield from ((node, changed) for changed in operator(node))
    for child in node.children:
        yield from _changes(child)


def _is_left_alone(node: Any) -> bool:
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.FormattedString):
        return True
    if isinstance(node, cst.FunctionDef):
        decorators = {each.decorator.value for each in node.decorators if isinstance(each.decorator, cst.Name)}
        return node.name.value == "__repr__" or not decorators.isdisjoint({"abstractmethod", "overload"})
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.SimpleString | cst.ConcatenatedString | cst.Ellipsis)
    if isinstance(node, cst.Assign):
        name = node.targets[0].target
        return isinstance(name, cst.Name) and (name.value in _WORDS or _is_type(name.value))
    return isinstance(node, cst.If) and isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"


def _is_type(name: str) -> bool:
    """Whether it is spelled like a type: what it is assigned is an annotation under another name."""
    return name[:1].isupper() and not name.isupper()


def _change(before: str, after: str, span: Any) -> str:
    """The lines that differ in more than how they are indented, as they were and as they are."""
    old, new = before.splitlines(), after.splitlines()
    first, last = span.start.line - 1, span.end.line
    removed, added = old[first:last], new[first : len(new) - len(old) + last]
    kept = {line.strip() for line in removed} & {line.strip() for line in added}
    told = [*(f"    -{line}" for line in removed), *(f"    +{line}" for line in added)]
    return "\n".join(line for line in told if line[5:].strip() not in kept)


def _statement(tree: ast.Module, line: int) -> tuple[range | None, bool]:
    """The lines of the smallest statement there, without what is nested in it, and whether it is inside of a function."""
    around = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= _last(node)]
    smallest = max(around, key=lambda node: node.lineno)
    whole = range(smallest.lineno, _last(smallest) + 1)
    if isinstance(smallest, _FUNCTIONS):
        return whole, False
    if not any(isinstance(node, _FUNCTIONS) for node in around):
        return None, False
    return range(smallest.lineno, smallest.body[0].lineno) if isinstance(smallest, _HEADED) else whole, True


def _place(node: ast.AST, line: int) -> tuple[str, ...]:
    """See `Mutant.place`."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt) or not child.lineno <= line <= _last(child):
            continue
        if isinstance(child, ast.ClassDef):
            return child.name, *_place(child, line)
        if isinstance(child, _FUNCTIONS):
            return (child.name,)
        if isinstance(child, ast.Assign | ast.AnnAssign):
            target = child.target if isinstance(child, ast.AnnAssign) else child.targets[0]
            return (target.id,) if isinstance(target, ast.Name) else ()
    return ()


def _last(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno
