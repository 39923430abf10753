"""Parts: all that has a state in a composition, one by one, with the key that it is the state of.

A breaker stands alone, in a pipeline, once for each key, in a policy, or in the transport of a client. Whoever shows states
(metrics, a health check, a page of one's own) asks `parts_of`, and need not know which. What is made of parts in a way of its
own has a method `parts()`; a transport, whatever its client, has a `pipeline`. Nothing is kept here.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from resilient.keyed import Keyed
from resilient.pipeline import Pipeline
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry

__all__ = ("Part", "parts_of")


class Part(NamedTuple):
    """Something that has a state.

    Attributes:
        key: whose state it is; "" where all calls share it.
        name: what it is called: the name of the strategy, in a policy that of the field.
        state: the strategy or the budget itself. It has `statistics()`.

    """

    key: str
    name: str
    state: Any


def parts_of(thing: Any) -> Iterator[Part]:
    """All that has a state in there.

    `for key, name, state in parts_of(transport): print(key, name, state.statistics())`

    Args:
        thing: a strategy, a budget, a `Keyed`, a `Pipeline`, a `Resilience`, or a `ResilientTransport`; whatever has
            `statistics()`, a method `parts()`, or a `pipeline`.

    Raises:
        TypeError: at once, where there is nothing to be read of it.

    To look changes nothing, and makes no state for a key that was not used. It must be done in the thread of the event loop.

    """
    if isinstance(thing, type):
        msg = f"{thing!r} is a class and has no state: pass an instance of it"
        raise TypeError(msg)
    pipeline = thing if isinstance(thing, Pipeline) else getattr(thing, "pipeline", None)
    own: Callable[[], Iterable[Part]] | None = getattr(thing, "parts", None)
    if callable(own):
        return iter(own())
    if isinstance(pipeline, Pipeline):
        return _of_pipeline(pipeline)
    if isinstance(thing, Keyed):
        return _of_keyed(thing)  # pyright: ignore[reportUnknownArgumentType]  of whatever template
    if isinstance(thing, Retry) or hasattr(thing, "statistics"):
        return iter([Part("", _name_of(part), part) for part in (thing, getattr(thing, "budget", None)) if _has_state(part)])
    msg = f"{thing!r} has no statistics: pass a strategy, a Keyed, a Pipeline, a Resilience, or a transport"
    raise TypeError(msg)


def _of_keyed(keyed: Keyed[Any]) -> Iterator[Part]:
    name = _name_of(keyed.template)
    return (Part(key, name, keyed[key]) for key in keyed)


def _of_pipeline(pipeline: Pipeline) -> Iterator[Part]:
    """What a pipeline with keys has for each of them; else its strategies."""
    siblings = pipeline.siblings
    if siblings is not None:
        for key in siblings:
            for template, part in zip(siblings.templates, siblings[key], strict=True):
                if _has_state(part):
                    yield Part(key, _name_of(template), part)
    for strategy in pipeline.strategies:
        if isinstance(strategy, Pipeline) or (siblings is None and (isinstance(strategy, Retry) or _has_state(strategy))):
            yield from parts_of(strategy)


def _has_state(part: object) -> bool:
    return hasattr(part, "statistics")


def _name_of(part: object) -> str:
    return getattr(part, "name", "") or ("hedge" if isinstance(part, Hedge) else type(part).__name__.lower())
