"""Async generators as calls: re-opened only before their first item, guarded until they end.

To be written by its owner; the interface is fixed: `Stream(Lingering)` with `limit_items(seconds)`, `is_stream_function`,
`decorate_stream`.
"""

import inspect
from typing import Any
from resilient.strategies.base import Lingering


class Stream(Lingering):
    def limit_items(self, seconds: float) -> None: ...


def is_stream_function(fn: Any) -> bool:
    return inspect.isasyncgenfunction(fn)


def decorate_stream(strategy: Any, fn: Any) -> Any:
    raise NotImplementedError
