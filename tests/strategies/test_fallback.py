from typing import Any

import anyio
import pytest

from helpers import VALUES, Failure, Fatal, Script, cancelled_after
from resilient.errors import CircuitOpen
from resilient.observe.events import FallbackUsed
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Outcome, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.fallback import Fallback
from resilient.strategies.lingering import Lingering

pytestmark = pytest.mark.anyio


class Response(Lingering):
    """A value that is still in use after the call returned, and bad."""

    discarded = 0

    async def discard(self) -> None:
        self.discarded += 1
        await super().discard()


def all_bad(_: Any) -> Verdict:
    return Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")


BAD_VALUES = Classifier(all_bad, all_bad)


async def test_a_success_is_not_replaced() -> None:
    """The fallback is not even made."""
    assert await Fallback(function=Script(Fatal())).call(Script("fresh")) == "fresh"


@pytest.mark.parametrize("error", [Failure(), CircuitOpen(), TimeoutError()], ids=repr)
async def test_by_default_every_exception_is_replaced(error: Exception) -> None:
    """Rejections included."""
    assert await Fallback("cached").call(Script(error)) == "cached"


async def test_none_is_a_value() -> None:
    """It must be said to be given."""
    assert await Fallback(None).call(Script(Failure())) is None


async def test_only_what_matches_is_replaced() -> None:
    """The others surface as they are."""
    fallback = Fallback("cached", on=Failure)
    error = Fatal()
    with pytest.raises(Fatal) as caught:
        await fallback.call(Script(error))

    assert caught.value is error
    assert await fallback.call(Script(Failure())) == "cached"


async def test_a_predicate_that_raises_replaces_nothing() -> None:
    """It does not hide the error that it was asked about."""

    def broken(_: Exception) -> bool:
        raise ZeroDivisionError

    with pytest.raises(Failure):
        await Fallback("cached", on=broken).call(Script(Failure()))


async def test_it_may_be_made_from_the_outcome() -> None:
    """By a function, sync or async."""
    seen: list[Outcome[Any]] = []
    error = Failure()

    def at_once(outcome: Outcome[Any]) -> str:
        seen.append(outcome)
        return "at once"

    async def in_time(outcome: Outcome[Any]) -> str:
        await anyio.sleep(1)
        return at_once(outcome) + ", in time"

    values = [await Fallback(function=function).call(Script(error)) for function in (at_once, in_time)]

    assert values == ["at once", "at once, in time"]
    assert seen == [Outcome(None, error)] * 2


async def test_what_it_raises_surfaces_with_the_error_behind_it() -> None:
    """Both are seen in the traceback."""
    error, other = Failure(), Fatal()
    for function in (Script(other), _raise_fatal):
        with pytest.raises(Fatal) as caught:
            await Fallback(function=function).call(Script(error))

        assert caught.value.__context__ is error


async def test_it_may_raise_the_error_again() -> None:
    """It looked at it, and would not replace it."""

    def again(outcome: Outcome[Any]) -> None:
        assert outcome.error is not None
        raise outcome.error

    error = Failure()
    with pytest.raises(Failure) as caught:
        await Fallback(function=again).call(Script(error))

    assert caught.value is error
    assert error.__context__ is None


async def test_a_bad_value_is_replaced_where_a_classifier_says_that_it_is_bad() -> None:
    """The classifier is that of the pipeline; without one all values are good."""
    pipeline = Pipeline(Fallback("cached"), classify=VALUES)

    assert [await pipeline.call(Script(status)) for status in (503, 200)] == ["cached", 200]
    assert await Fallback("cached").call(Script(503)) == 503


async def test_a_value_that_lingers_is_discarded_when_it_is_replaced() -> None:
    """Also where making the replacement fails; not where it is the replacement."""
    replaced, failed, kept = Response(), Response(), Response()
    await Pipeline(Fallback("cached"), classify=BAD_VALUES).call(Script(replaced))
    with pytest.raises(Fatal):
        await Pipeline(Fallback(function=_raise_fatal), classify=BAD_VALUES).call(Script(failed))
    value = await Pipeline(Fallback(function=lambda outcome: outcome.value), classify=BAD_VALUES).call(Script(kept))

    assert value is kept
    assert (replaced.discarded, failed.discarded, kept.discarded) == (1, 1, 0)


async def test_cancellation_is_not_replaced() -> None:
    """It passes through."""
    async with cancelled_after(1) as scope:
        await Fallback("cached", on=BaseException).call(anyio.sleep, 10)

    assert scope.cancelled_caught


async def test_the_call_is_marked_as_degraded() -> None:
    """In an event, and in that of its end."""
    with record_timeline() as timeline:
        await Pipeline(Fallback("cached"), key=str).call(_raise_fatal, "users")
        await Fallback("cached").call(Script(1))

    used = [event for event in timeline.events if isinstance(event, FallbackUsed)]
    assert [(event.key, event.error, event.verdict.reason) for event in used] == [("users", "Fatal", "error")]
    assert [call.degraded for call in timeline.calls] == [True, False]


async def test_it_shows_what_it_gives() -> None:
    """In its repr."""
    assert repr(Fallback([])) == "Fallback([])"
    assert repr(Fallback(function=str)) == "Fallback(<class 'str'>)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either a value, Fallback([]), or a function of the outcome"),
        ({"value": 1, "function": str}, "give either a value"),
        (
            {"function": "cached"},
            "function='cached': expected a function of the outcome; a plain value goes first, Fallback('cached')",
        ),
        ({"value": 1, "on": 3}, "on=3: expected a type of exception"),
    ],
)
async def test_arguments_of_the_wrong_type_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At construction, with what to do instead."""
    with pytest.raises(TypeError) as caught:
        Fallback(**arguments)

    assert message in str(caught.value)


async def _raise_fatal(*_: object) -> None:
    raise Fatal
