"""Lint of source code: strategies with state that are made for each call, so that they never learn anything.

A breaker that is made, used once and thrown away never opens; a bulkhead of one caller never limits. A pipeline cannot see that
of itself, its source code shows it. What is made and used in one expression inside of a function is surely wrong (a warning);
what is bound to a name first, used through that name only, once, and given to nobody is wrong nearly always (a note).

Silent: module level, `main`, tests, what is returned, stored, yielded, passed on, or used in a loop. A name counts only where
all that the file says of it is that it is imported from here.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from resilient.lint.stack import Finding

__all__ = ("CODE", "Located", "lint_source")

CODE: Final = "constructed-per-call"

_LIMITS_NOTHING: Final = "limits nothing"
_EFFECTS: Final[Mapping[str, str]] = {
    "AdaptiveLimit": _LIMITS_NOTHING,
    "AdaptiveRate": _LIMITS_NOTHING,
    "Bulkhead": _LIMITS_NOTHING,
    "CircuitBreaker": "never opens",
    "Hedge": "never learns how long calls take, and never hedges",
    "Keyed": "knows nothing of any key",
    "LeakyBucket": _LIMITS_NOTHING,
    "Resilience": "keeps no state for any key",
    "ResilientTransport": "has breakers that never open and budgets that never run out",
    "RetryBudget": "never runs out",
    "SlidingWindow": _LIMITS_NOTHING,
    "Throttle": "never refuses",
    "TokenBucket": _LIMITS_NOTHING,
    "TokenBudget": "never runs out",
}
"""What has state, and what comes of it when it is made anew each time."""

_CARRIERS: Final = {"Hedge", "Pipeline", "Retry"}
"""What has the state of its arguments."""

_BLOCKS: Final = {"AdaptiveLimit", "AdaptiveRate", "Bulkhead", "LeakyBucket", "SlidingWindow", "TokenBucket"}
"""What is held in an `async with`."""

_USES: Final = {"acquire", "acquire_nowait", "call", "call_with_timeline", "permit", "run"}
_REQUESTS: Final = {"delete", "get", "head", "options", "patch", "post", "put", "request", "send", "stream"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_LASTING: Final = (
    *(ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef),
)
"""Where a name that is mentioned may be used more than once."""

_MEND: Final = (
    "Make it once, at module level or in the set-up of the application, and use that; for state per user or host: key=."
)


class Located(NamedTuple):
    """A finding, and the line of the source code that it is about, from 1."""

    line: int
    finding: Finding


class _Made(NamedTuple):
    """What an expression makes: the class that has state, and the methods that use it."""

    name: str
    uses: set[str] = _USES


def lint_source(source: str | bytes) -> tuple[Located, ...]:
    """What is made for each call in a Python module, in the order of its lines.

    Args:
        source: the text of the module; nothing of it is run.

    Raises:
        SyntaxError: it is not Python, or nested too deeply to be read.

    """
    try:
        tree = ast.parse(source)
        names = _imported(tree)
        if not names:
            return ()
        visitor = _Visitor(names)
        visitor.visit(tree)
    except (ValueError, RecursionError, MemoryError) as error:
        msg = "nested too deeply" if not isinstance(error, ValueError) else str(error)
        raise SyntaxError(msg) from error
    return tuple(sorted(visitor.found, key=lambda located: located.line))


def _imported(tree: ast.Module) -> dict[str, str]:
    """What names of this library mean in a file, as dotted paths. What is said to be something else too is left out."""
    meanings: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        for name, path in _bound(node):
            meanings.setdefault(name, set()).add(path)
    paths = {name: min(found) for name, found in meanings.items() if len(found) == 1}
    return {name: path for name, path in paths.items() if path.partition(".")[0] in {"resilient", "resilient_integrations"}}


def _bound(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names to which a node gives a meaning, with the dotted path of what is imported; it is empty for all else."""
    match node:
        case ast.Import():
            for one in node.names:
                top = one.name.partition(".")[0]
                yield (one.asname, one.name) if one.asname else (top, top)
        case ast.ImportFrom():
            for one in node.names:
                yield one.asname or one.name, f"{'.' * node.level}{node.module or ''}.{one.name}"
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            yield name, ""
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            yield name, ""
        case _:
            return


class _Visitor(ast.NodeVisitor):
    """Walks over a module, and knows in which function it is."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._path: list[str] = []  # classes and functions around
        self._inside = False  # whether the code that is looked at runs once for each call of a function
        self.found: list[Located] = []

    # Where it is

    def visit_FunctionDef(self, node: _Function) -> None:
        for outside in (*node.decorator_list, node.args):  # these run where the function is defined
            self.visit(outside)
        inside, self._inside = self._inside, node.name != "main" and not node.name.startswith("test")
        self._path.append(node.name)
        if self._inside:
            self._look_at_names(node.body)
        for statement in node.body:
            self.visit(statement)
        self._path.pop()
        self._inside = inside

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  as above

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """When it runs is not known, but it is not more often than what is around, as far as one can tell."""
        self.generic_visit(node)

    # What is used where it is made

    def visit_Call(self, node: ast.Call) -> None:
        func = node.func
        if isinstance(func, ast.Attribute):
            made = self._made(func.value)
            if made is not None and func.attr in made.uses:
                self._tell(node, made, sure=True)
        elif isinstance(func, ast.Call):  # CircuitBreaker()(fetch)(42)
            made = self._made(func.func)
            if made is not None:
                self._tell(node, made, sure=True)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        made = self._made(node.value)
        if made is not None:
            self._tell(node, made, sure=True)
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        made = self._made(node.iter)
        if made is not None:
            self._tell(node, made, sure=True)
        self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        for item in node.items:
            made, name = self._made(item.context_expr), item.optional_vars
            if made is not None and made.name in _BLOCKS:
                self._tell(node, made, sure=True)
            elif made is not None and isinstance(name, ast.Name) and _is_brief(name.id, node.body, made.uses):
                self._tell(node, made, sure=False)
        self.generic_visit(node)

    # What has a name

    def _look_at_names(self, body: Sequence[ast.stmt]) -> None:
        for node in _own(body):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                made = self._made(node.value)
                if made is not None and _is_brief(node.targets[0].id, body, made.uses):
                    self._tell(node, made, sure=False)

    # What is made

    def _made(self, node: ast.expr) -> _Made | None:
        """What an expression makes, where that has state and the code runs for each call of a function."""
        if not isinstance(node, ast.Call) or not self._inside:
            return None
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        name = self._class_of(node.func)
        transport = self._made(named["transport"]) if "transport" in named else None
        if name == "wrap" or (transport is not None and transport.name == "ResilientTransport"):
            return _Made("ResilientTransport", _REQUESTS)
        if name in _EFFECTS and not (name == "Hedge" and (node.args or "delay" in named)):  # a fixed delay learns nothing
            return _Made(name)
        if name in _CARRIERS:
            return next(filter(None, map(self._made, (*node.args, *named.values()))), None)
        return None

    def _class_of(self, node: ast.expr) -> str:
        """The last part of a dotted name that leads into this library; empty where it does not."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        path = self._names.get(node.id, "") if isinstance(node, ast.Name) else ""
        return ".".join((path, *reversed(parts))).rpartition(".")[2] if path else ""

    def _tell(self, node: ast.stmt | ast.expr, made: _Made, *, sure: bool) -> None:
        where = ".".join(self._path)
        effect = _EFFECTS[made.name]
        message = (
            f"This {made.name} is made anew for each call of {self._path[-1]}(), so it {effect}."
            if sure
            else f"This {made.name} is made in {self._path[-1]}() and used nowhere else: where that is called often, it {effect}."
        )
        self.found.append(Located(node.lineno, Finding(CODE, "warning" if sure else "note", where, message, _MEND)))


def _own(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions and classes in it."""
    rest: list[ast.AST] = list(body)
    while rest:
        node = rest.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node
            rest.extend(ast.iter_child_nodes(node))


def _is_brief(name: str, body: Sequence[ast.stmt], uses: set[str]) -> bool:
    """Whether a name is only used on the spot: nobody else gets what it stands for, and nothing repeats."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    if any(_lasts(node, name) for node in nodes):
        return False
    mentions = [node for node in nodes if isinstance(node, ast.Name) and node.id == name]
    loads = sum(isinstance(node.ctx, ast.Load) for node in mentions)
    return 0 < sum(_users(node, name, uses) for node in nodes) == loads >= len(mentions) - 1


def _lasts(node: ast.AST, name: str) -> bool:
    """Whether a node lets what a name stands for outlive its first use."""
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return name in node.names
    mentions = any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))
    return isinstance(node, (ast.Yield, ast.YieldFrom)) or (isinstance(node, _LASTING) and mentions)


def _users(node: ast.AST, name: str, uses: set[str]) -> int:
    """How often a node itself uses the name: `name.call(...)`, `async with name:`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return int(isinstance(node.func.value, ast.Name) and node.func.value.id == name and node.func.attr in uses)
    items = node.items if isinstance(node, ast.AsyncWith) else ()
    return sum(isinstance(item.context_expr, ast.Name) and item.context_expr.id == name for item in items)
