"""Lint of source code: what is made for each call, and all that looks like it and is not."""

import textwrap

import pytest

from resilient.lint.source import CODE, lint_source

IMPORTS = """
import httpx
import resilient
import resilient as r
import resilient_integrations.httpx
from resilient import *
from resilient import AdaptiveLimit, AdaptiveRate, Bulkhead, CircuitBreaker, Hedge, Keyed, LeakyBucket, Pipeline, Resilience
from resilient import Retry, RetryBudget, SlidingWindow, Throttle, Timeout, TokenBucket, TokenBudget
from resilient import CircuitBreaker as Breaker
from resilient_integrations import httpx2 as integration
from resilient_integrations.httpx import ResilientTransport, wrap
"""


def found(code: str, imports: str = IMPORTS) -> list[tuple[str, str]]:
    """The severities, and the classes that messages are about."""
    located = lint_source(imports + textwrap.dedent(code))
    return [(one.finding.severity, one.finding.message.split()[1]) for one in located]


def inside(statement: str) -> str:
    """A function with this statement."""
    return "async def fetch(x):\n" + textwrap.indent(textwrap.dedent(statement), "    ")


SURE = {
    "await CircuitBreaker().call(x)": "CircuitBreaker",
    "await Breaker(minimum_calls=3).call(x)": "CircuitBreaker",
    "await resilient.CircuitBreaker().call(x)": "CircuitBreaker",
    "await r.CircuitBreaker().call(x)": "CircuitBreaker",
    "await CircuitBreaker()(x)(42)": "CircuitBreaker",
    "with await Bulkhead(10).acquire(): pass": "Bulkhead",
    "SlidingWindow(10).acquire_nowait()": "SlidingWindow",
    "async with CircuitBreaker().permit(): pass": "CircuitBreaker",
    "async with Bulkhead(10): pass": "Bulkhead",
    "async with TokenBucket(10) as permit: pass": "TokenBucket",
    "async with LeakyBucket(10), open(x): pass": "LeakyBucket",
    "async with AdaptiveLimit(): await x()": "AdaptiveLimit",
    "async with AdaptiveRate(10): await x()": "AdaptiveRate",
    "await Throttle().call(x)": "Throttle",
    "await Hedge().call(x)": "Hedge",
    "await Hedge(0.2, budget=TokenBudget(5)).call(x)": "TokenBudget",
    "await Pipeline(Timeout(10), Retry(on=OSError), CircuitBreaker()).call(x)": "CircuitBreaker",
    "await Pipeline(Pipeline(TokenBucket(5))).call(x)": "TokenBucket",
    "await Retry(on=OSError, budget=RetryBudget()).call(x)": "RetryBudget",
    "async for attempt in Retry(on=OSError, budget=RetryBudget()): pass": "RetryBudget",
    "await Keyed(TokenBucket(10))['user'].acquire()": "Keyed",
    "await Resilience().call('user-service.GetUser', x)": "Resilience",
    "return await httpx.AsyncClient(transport=ResilientTransport()).get(x)": "ResilientTransport",
    "return await httpx.AsyncClient(transport=resilient_integrations.httpx.ResilientTransport()).get(x)": "ResilientTransport",
    "return await httpx.AsyncClient(transport=integration.ResilientTransport()).send(x)": "ResilientTransport",
    "return await wrap(httpx.AsyncClient()).get(x)": "ResilientTransport",
    "if x:\n    for _ in range(3):\n        await CircuitBreaker().call(x)": "CircuitBreaker",
    "await x(lambda: Bulkhead(10).acquire_nowait())": "Bulkhead",
}

LIKELY = {
    """
    async with httpx.AsyncClient(transport=ResilientTransport()) as client:
        return await client.get(x)
    """: "ResilientTransport",
    """
    async with httpx.AsyncClient(transport=ResilientTransport()) as client:
        users = (await client.get(x)).json()
        return [user["id"] for user in users]
    """: "ResilientTransport",
    "client = wrap(httpx.AsyncClient())\nasync with client:\n    return await client.get(x)": "ResilientTransport",
    "breaker = CircuitBreaker()\nreturn await breaker.call(x)": "CircuitBreaker",
    "if x:\n    limit = Bulkhead(10)\n    async with limit:\n        await x()": "Bulkhead",
    "pipeline = Pipeline(Retry(on=OSError), CircuitBreaker())\nreturn await pipeline.call(x)": "CircuitBreaker",
}

SILENT = [
    "return CircuitBreaker()",
    "return Pipeline(Retry(on=OSError), CircuitBreaker())(x)",
    "return httpx.AsyncClient(transport=ResilientTransport())",
    "x.breaker = CircuitBreaker()",
    "x['breaker'] = breaker = CircuitBreaker()",
    "x.append(CircuitBreaker())",
    "yield CircuitBreaker()",
    "print(CircuitBreaker().statistics())",
    "print(Pipeline(CircuitBreaker()).lint())",
    "print(CircuitBreaker())",
    "await Retry(on=OSError).call(x)",
    "await Pipeline(Timeout(10), Retry(on=OSError)).call(x)",
    "await Hedge(0.2).call(x)",
    "await Hedge(delay=0.2).call(x)",
    "async for attempt in Retry(on=OSError): pass",
    "async with Timeout(10) as y: pass",
    "async with httpx.AsyncClient() as client:\n    return await client.get(x)",
    "async with httpx.AsyncClient(transport=x) as client:\n    return await client.get(x)",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    yield client",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    await serve(client)",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    x.client = client\n    await x.serve()",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    for y in x:\n        await client.get(y)",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    return [await client.get(y) for y in x]",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    await x.start_soon(client.get, 'a')",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    await x(lambda: client.get('a'))",
    "async with httpx.AsyncClient(transport=ResilientTransport()) as client:\n    await x.serve()",
    "async with httpx.AsyncClient(transport=ResilientTransport()):\n    await x.serve()",
    "breaker = CircuitBreaker()\nbreaker.isolate()\nreturn await breaker.call(x)",
    "breaker = CircuitBreaker()\nfor y in x:\n    await breaker.call(y)",
    "breaker = CircuitBreaker()\nbreaker = x or breaker\nreturn await breaker.call(x)",
    "breaker = CircuitBreaker()\nasync def inner():\n    await breaker.call(x)\nreturn inner",
    "global breaker\nbreaker = CircuitBreaker()\nreturn await breaker.call(x)",
    "first = second = CircuitBreaker()\nreturn await first.call(x)",
    "self.breaker, y = CircuitBreaker(), 1",
    "await x.CircuitBreaker().call(x)",
    "await x()().call(x)",
    "await AnotherBreaker().call(x)",
]


@pytest.mark.parametrize("statement", SURE)
def test_what_is_made_and_used_in_one_expression_is_a_warning(statement: str) -> None:
    """Inside of a function; the message is about what has state."""
    assert found(inside(statement)) == [("warning", SURE[statement])]


@pytest.mark.parametrize("statement", LIKELY)
def test_what_has_a_name_and_is_used_on_the_spot_is_a_note(statement: str) -> None:
    """It is wrong where the function is called often, which the file does not tell."""
    assert found(inside(statement)) == [("note", LIKELY[statement])]


@pytest.mark.parametrize("statement", SILENT)
def test_what_lives_on_or_has_no_state_is_no_finding(statement: str) -> None:
    """Returned, stored, passed on, repeated: it is not made for one call, as far as one can tell."""
    assert found(inside(statement)) == []


@pytest.mark.parametrize(
    "code",
    [
        "breaker = CircuitBreaker()",
        "asyncio.run(CircuitBreaker().call(fetch))",
        "@CircuitBreaker()\nasync def fetch(x): ...",
        "async def fetch(x, *, breaker=CircuitBreaker()): ...",
        "async def main():\n    await CircuitBreaker().call(fetch)",
        "async def main():\n    breaker = CircuitBreaker()\n    await breaker.call(fetch)",
        "async def test_it():\n    await CircuitBreaker().call(fetch)",
        "class Service:\n    limit = Bulkhead(10)\n    def __init__(self):\n        self.breaker = CircuitBreaker()",
        "class Service:\n    async def fetch(self):\n        await self.breaker.call(fetch)",
        "call = lambda: CircuitBreaker().call(fetch)",
    ],
)
def test_what_runs_once_is_no_finding(code: str) -> None:
    """Modules, decorators, defaults, `main`, tests, instances."""
    assert found(code) == []


def test_the_code_of_a_function_in_main_runs_for_each_call() -> None:
    """And so does that of a method. `where` is the way to the function, the line is that of the expression."""
    code = """\
    from resilient import CircuitBreaker as Breaker
    class Service:
        async def fetch(self):
            await Breaker().call(x)
    async def main():
        async def handler():
            await Breaker().call(x)
    """
    located = lint_source(textwrap.dedent(code))

    assert [(one.line, one.finding.where, one.finding.code) for one in located] == [
        (4, "Service.fetch", CODE),
        (7, "main.handler", CODE),
    ]
    assert str(located[0].finding) == (
        "warning constructed-per-call at Service.fetch: This CircuitBreaker is made anew for each call of fetch(), so it "
        "never opens. Make it once, at module level or in the set-up of the application, and use that; for state per user or "
        "host: key=."
    )


@pytest.mark.parametrize(
    "imports",
    [
        "",
        "from pybreaker import CircuitBreaker",
        "from .resilient import CircuitBreaker",
        "from . import CircuitBreaker",
        "from resilient import CircuitBreaker\nfrom pybreaker import CircuitBreaker",
        "from resilient import CircuitBreaker\nclass CircuitBreaker: ...",
        "from resilient import CircuitBreaker\ndef CircuitBreaker(): ...",
        "from resilient import CircuitBreaker\ndef f(CircuitBreaker): ...",
        "from resilient import CircuitBreaker\nCircuitBreaker = print",
    ],
)
def test_a_name_that_may_mean_something_else_is_no_finding(imports: str) -> None:
    """Other libraries have breakers too."""
    assert found(inside("await CircuitBreaker().call(x)"), imports + "\n") == []


@pytest.mark.parametrize("source", ["def f(:", "x = '", b"\xff\xfe\x00", "x = 1\0", "(" * 300 + ")" * 300, "-" * 100_000 + "1"])
def test_what_is_no_python_is_a_syntax_error(source: str | bytes) -> None:
    """Whatever the parser makes of it."""
    with pytest.raises(SyntaxError):
        lint_source(source)


def test_nothing_is_found_in_an_empty_module() -> None:
    """As an `__init__.py` often is."""
    assert lint_source("") == ()
    assert lint_source(b"# a comment\n") == ()
