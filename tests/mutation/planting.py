"""Puts a broken module in the place of the right one.

`plant` does so in a process that has imported everything: the code of the function that differs is exchanged in place, so who
imported or inherited it has the broken one, and all else stays the same. That is exact for what is inside of functions.
What is made at import (a default, a constant, a base of a class) may have been copied elsewhere already: `from_the_start` breaks
the module before it is imported. It takes seconds, and is asked about the few mutants of that kind which `plant` did not kill.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any

PACKAGE = "resilient.strategies"


def plant(name: str, source: str, path: Path, place: Sequence[str]) -> None:
    """Break one place of a module that is imported already, `("Slots", "admit")` say. What the broken source raises is raised."""
    owner: Any = sys.modules[f"{PACKAGE}.{name}"]
    new: Any = ModuleType(owner.__name__)
    new.__dict__.update(__file__=str(path), __package__=PACKAGE, __spec__=owner.__spec__)
    exec(compile(source, str(path), "exec"), new.__dict__)  # noqa: S102  that is what it is for
    for key in place[:-1]:
        owner, new = getattr(owner, key), getattr(new, key)
    for key in place[-1:]:
        old, changed = owner.__dict__.get(key), new.__dict__.get(key)
        if not _exchange_code(old, changed) and not _is_alike(old, changed):
            setattr(owner, key, _at_home(old, changed))


def _exchange_code(old: Any, new: Any) -> bool:
    """Give a function, or those of a property or decorator, the code and the defaults of another one, where that is possible."""
    if type(old) is not type(new):
        return False
    if isinstance(old, FunctionType):
        if old.__code__.co_freevars != new.__code__.co_freevars:
            return False
        old.__code__ = new.__code__
        for defaults in ("__defaults__", "__kwdefaults__"):
            olds, news = getattr(old, defaults), getattr(new, defaults)
            if len(_values(olds)) != len(_values(news)) or not all(map(_is_alike, _values(olds), _values(news))):
                setattr(old, defaults, news)
        wrapped = getattr(old, "__wrapped__", None)
        return wrapped is None or _exchange_code(wrapped, new.__wrapped__)
    if isinstance(old, property):
        return all(_exchange_code(getattr(old, each), getattr(new, each)) for each in ("fget", "fset") if getattr(old, each))
    if hasattr(old, "__func__"):  # a class method, a static method
        return _exchange_code(old.__func__, new.__func__)
    return False


def _at_home(old: Any, new: Any) -> Any:
    """A function that sees other variables of those around it than the right one (no `super()`, say), in the place of that."""
    if isinstance(old, FunctionType):
        cells = dict(zip(old.__code__.co_freevars, old.__closure__ or (), strict=True))
        closure = tuple(cells[name] for name in new.__code__.co_freevars)
        made = FunctionType(new.__code__, old.__globals__, old.__name__, new.__defaults__, closure)
        made.__kwdefaults__ = new.__kwdefaults__
        return made
    if isinstance(old, property):
        return property(*(one and _at_home(one, other) for one, other in ((old.fget, new.fget), (old.fset, new.fset))))
    if type(old) in {classmethod, staticmethod}:
        return type(new)(_at_home(old.__wrapped__, new.__wrapped__))
    return new


def _values(defaults: Any) -> list[Any]:
    return list(defaults.values() if hasattr(defaults, "values") else defaults or ())


def _is_alike(old: Any, new: Any) -> bool:
    """Whether nothing is gained by taking the new one: it is the same, or nobody could tell (a sentinel, a slot)."""
    if type(old) is not type(new) or isinstance(old, FunctionType | property | classmethod | staticmethod):
        return False
    compares: object = type(old).__eq__
    return isinstance(old, MemberDescriptorType) or compares is object.__eq__ or bool(old == new)


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from another source."""

    def __init__(self, name: str, source: str, path: Path) -> None:
        self._name, self._source, self._path = name, source, path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102  that is what it is for


def from_the_start(name: str, source: str, path: Path) -> None:
    """Break a module that nobody has imported yet."""
    sys.meta_path.insert(0, _Broken(f"{PACKAGE}.{name}", source, path))
