import itertools
from datetime import timedelta
from random import Random
from typing import Any

import anyio
import pytest

from helpers import BUSY, RETRY, SECOND, VALUES, Failure, Fatal, Script, on_errors
from resilient import clock
from resilient.errors import RetryableError
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import ByVerdict, Constant
from resilient.strategies.lingering import Lingering
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio


class Response(Lingering):
    """A value that is still in use after the call returned."""

    def __init__(self) -> None:
        self.discarded = 0

    async def discard(self) -> None:
        self.discarded += 1
        await super().discard()


def on_response(value: Any) -> Verdict | None:
    return BUSY if isinstance(value, Response) else None


# What is tried again, and when


async def test_a_success_is_called_once() -> None:
    """And takes no time."""
    callee = Script("value")

    assert await RETRY.call(callee) == "value"
    assert callee.at == [0.0]


async def test_what_may_work_is_tried_again_after_the_backoff() -> None:
    """Until it works."""
    callee = Script(Failure(), Failure(), "value")

    assert await RETRY.call(callee) == "value"
    assert callee.at == [0, 1, 2]


async def test_the_arguments_are_the_same_each_time() -> None:
    """Positional ones and keywords, whatever their names: `fn`, `self` and `call` are not taken."""
    seen: list[tuple[Any, ...]] = []

    async def callee(*args: Any, **kwargs: Any) -> None:
        seen.append((args, kwargs))
        if len(seen) == 1:
            raise Failure

    await RETRY.call(callee, 1, fn=2, self=3, call=4, attempt=5)

    assert seen == [((1,), {"fn": 2, "self": 3, "call": 4, "attempt": 5})] * 2


async def test_the_last_error_surfaces_as_it_is() -> None:
    """The same object, without a cause or context that the callee did not give it, and nothing is slept after it."""
    errors = [Failure(1), Failure(2), Failure(3)]
    with pytest.raises(Failure) as caught:
        await RETRY.call(Script(*errors))

    assert caught.value is errors[2]
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert clock.now() == 2


async def test_an_error_that_was_raised_from_another_keeps_its_cause() -> None:
    """Also the context that it had."""
    cause = Fatal()

    async def callee() -> None:
        try:
            raise cause
        except Fatal as error:
            raise Failure from error

    with pytest.raises(Failure) as caught:
        await RETRY.call(callee)

    assert (caught.value.__cause__, caught.value.__context__) == (cause, cause)


async def test_an_error_that_cannot_be_helped_surfaces_at_once() -> None:
    """Without a note: nothing was tried again."""
    callee = Script(Fatal())
    with pytest.raises(Fatal) as caught:
        await RETRY.call(callee)

    assert callee.calls == 1
    assert not hasattr(caught.value, "__notes__")


async def test_a_failure_of_another_kind_ends_the_retries() -> None:
    """The note tells of the attempts before it."""
    callee = Script(Failure(), Fatal())
    with pytest.raises(Fatal) as caught:
        await RETRY.call(callee)

    assert callee.calls == 2
    assert caught.value.__notes__ == ["resilient: 2 attempts in 1 s (retryable_error, permanent_error); stopped: not_retryable"]


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_there_are_as_many_attempts_as_it_says(attempts: int) -> None:
    """In total, the first one included."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await RETRY.replace(attempts=attempts).call(callee)

    assert callee.calls == attempts


async def test_never_beats_on() -> None:
    """For exceptions that are a kind of what is retried."""

    class WrongPassword(Failure):
        pass

    callee = Script(WrongPassword())
    with pytest.raises(WrongPassword):
        await RETRY.replace(never=WrongPassword).call(callee)

    assert callee.calls == 1


async def test_a_decorated_function_is_retried_and_keeps_its_name() -> None:
    """It can be called like the one that it wraps."""
    calls = 0

    @RETRY
    async def fetch(user: int, *, fields: str = "all") -> str:
        """Fetch it."""
        nonlocal calls
        calls += 1
        if calls < 2:
            raise Failure
        return f"{user} {fields}"

    assert await fetch(7, fields="name") == "7 name"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")


async def test_a_method_can_be_decorated() -> None:
    """`self` is an argument like others."""

    class Client:
        calls = 0

        @RETRY
        async def fetch(self) -> int:
            self.calls += 1
            if self.calls < 2:
                raise Failure
            return self.calls

    assert await Client().fetch() == 2


@pytest.mark.parametrize("wrapped", [classmethod, staticmethod])
async def test_a_decorator_in_the_wrong_order_is_refused(wrapped: Any) -> None:
    """At decoration, not when it is called, with the right order."""

    async def fetch() -> None: ...

    with pytest.raises(TypeError, match=f"put @{wrapped.__name__} above the strategy"):
        RETRY(wrapped(fetch))


# Time


async def test_the_wait_of_the_loop_ends_where_its_time_is_used_up() -> None:
    """A retry that cannot begin in time is not waited for, and an attempt that runs is not cut."""
    callee = Script(Failure(), seconds=1)
    with pytest.raises(Failure) as caught:
        await RETRY.replace(attempts=None, timeout=timedelta(seconds=4.5)).call(callee)

    assert callee.at == [0, 2, 4]
    assert clock.now() == 5
    assert caught.value.__notes__[0].endswith("stopped: deadline")


async def test_a_retry_that_would_begin_at_the_very_deadline_is_not_made() -> None:
    """There would be no time for it."""
    callee = Script(Failure())
    with pytest.raises(Failure), anyio.fail_after(2):
        await RETRY.replace(attempts=None).call(callee)

    assert callee.at == [0, 1]
    assert clock.now() == 1


async def test_inside_of_a_timeout_the_real_error_surfaces_in_time() -> None:
    """No useless wait for the timeout (a Retry-After beyond it is waited for by others)."""
    callee = Script(RetryableError("later", retry_after=10))
    with pytest.raises(RetryableError, match="later"):
        await Pipeline(Timeout(5), RETRY).call(callee)

    assert (callee.calls, clock.now()) == (1, 0)


async def test_an_outer_retry_bounds_an_inner_one() -> None:
    """The deadline of the call around counts for waits inside."""
    callee = Script(Failure())
    outer = Retry(on=Fatal, timeout=2.5)
    with pytest.raises(Failure):
        await outer.call(RETRY.replace(attempts=None)(callee))

    assert callee.at == [0, 1, 2]


async def test_a_server_is_never_asked_earlier_than_it_said() -> None:
    """The jitter is on one side: at most a tenth, and a second, is added."""
    waits: list[float] = []
    for seed in range(100):
        callee, start = Script(RetryableError(retry_after=5), 1), clock.now()
        await Retry(on=Failure, backoff=Constant(delay=0), random=Random(seed)).call(callee)
        waits.append(callee.at[1] - start)

    assert min(waits) >= 5
    assert max(waits) <= 5.5
    assert len({round(wait, 6) for wait in waits}) > 90


@pytest.mark.parametrize(("hint", "most"), [(1, 0.1), (5, 0.5), (60, 1)])
async def test_the_jitter_of_a_long_hint_is_at_most_a_second(hint: float, most: float) -> None:
    """Of a shorter one it is a tenth, also where the backoff is as long: all clients were told the same."""
    waits = list[float]()
    for seed in range(40):
        callee = Script(RetryableError(retry_after=hint), 1)
        await RETRY.replace(random=Random(seed)).call(callee)
        waits.append(callee.at[1] - callee.at[0])

    assert all(hint <= wait <= hint + most for wait in waits)
    assert max(waits) > hint + 0.8 * most


async def test_a_backoff_that_is_longer_than_the_hint_stays() -> None:
    """Both are lower bounds."""
    callee = Script(RetryableError(retry_after=0.5), 1)
    await RETRY.call(callee)

    assert callee.at == [0, 1]


async def test_a_hint_beyond_the_limit_ends_the_call_at_once() -> None:
    """It is not shortened: that would be asking too early."""
    with pytest.raises(RetryableError) as caught:
        await Retry(on=Failure, max_retry_after=30).call(Script(RetryableError(retry_after=31)))

    assert clock.now() == 0
    assert caught.value.__notes__[0].endswith("stopped: retry_after_too_long")


async def test_each_class_of_outcomes_has_a_schedule_of_its_own() -> None:
    """A throttled attempt does not move the backoff of the others on."""
    throttled, transient = Constant(delay=10, maximum=10, jitter="none"), [1.0, 2.0, 3.0]
    schedules = {True: throttled, False: Retry(on=Failure, backoff=transient).backoff}

    def judge(error: Exception) -> Verdict:
        return Verdict(Kind.RETRYABLE, Health.NEUTRAL, "any", throttled=isinstance(error, Fatal))

    backoff = ByVerdict(lambda verdict: schedules[verdict.throttled])  # type: ignore[arg-type,return-value]
    callee = Script(Failure(), Fatal(), Failure(), Fatal(), "value")
    await Retry(classify=Classifier(judge), attempts=9, backoff=backoff).call(callee)

    assert [later - earlier for earlier, later in itertools.pairwise(callee.at)] == [1, 10, 2, 10]


# Values


async def test_a_value_may_ask_for_a_retry() -> None:
    """By a classifier of values."""
    callee = Script(503, 503, 200)

    assert await Retry(classify=VALUES, backoff=SECOND).call(callee) == 200
    assert callee.calls == 3


async def test_a_good_value_is_returned_at_once() -> None:
    """A classifier that looks at it changes nothing."""
    callee = Script(200)

    assert await Retry(classify=VALUES, backoff=SECOND).call(callee) == 200
    assert callee.calls == 1


async def test_the_last_value_is_returned_as_it_is() -> None:
    """No exception is made of it."""
    assert await Retry(classify=VALUES, backoff=SECOND).call(Script(503)) == 503


async def test_a_value_after_an_error_and_an_error_after_a_value() -> None:
    """Each surfaces if it is the last."""
    retry = Retry(classify=VALUES | on_errors(BUSY), backoff=SECOND, attempts=2)
    value = await retry.call(Script(Failure(), 503))
    with pytest.raises(Failure):
        await retry.call(Script(503, Failure()))

    assert value == 503


async def test_values_that_are_retried_away_are_disposed_of() -> None:
    """By a function, sync or async; the one that is handed out is not."""
    disposed: list[int] = []

    async def dispose(value: int) -> None:
        disposed.append(value)

    for function in (disposed.append, dispose):
        await Retry(classify=VALUES, dispose=function, backoff=SECOND).call(Script(503))

    assert disposed == [503, 503, 503, 503]


async def test_values_that_linger_are_discarded() -> None:
    """Whether or not there is a function, and even if it raises."""
    responses = [Response(), Response()]

    def dispose(_: Response) -> None:
        raise Fatal

    retry = Retry(classify=Classifier(lambda _: None, on_response), backoff=SECOND)
    await retry.call(Script(responses[0], 1))
    with pytest.raises(Fatal):
        await retry.replace(dispose=dispose).call(Script(responses[1], 1))

    assert [response.discarded for response in responses] == [1, 1]


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on": Failure, "classify": VALUES}, "on= and classify= both say what to retry"),
        ({"never": Failure}, "never= needs on="),
        ({"on": 3}, "on=3: expected a type of exception"),
        ({"on": Failure, "attempts": 1.5}, "attempts=1.5: expected a whole number"),
        ({"on": Failure, "backoff": 3}, "backoff=3: expected a Backoff"),
        ({"on": Failure, "timeout": "1"}, "timeout='1': expected seconds"),
        ({"on": Failure, "max_retry_after": None}, "max_retry_after=None: expected seconds"),
    ],
)
async def test_arguments_of_the_wrong_type_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At construction, with what to do instead."""
    with pytest.raises(TypeError) as caught:
        Retry(**arguments)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "attempts=0 is out of range: expected a whole number of at least 1"),
        ({"timeout": -1}, "timeout=-1 is out of range"),
        ({"max_retry_after": -1}, "max_retry_after=-1 is out of range"),
    ],
)
async def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At construction, with their range."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what is compared
        Retry(on=Failure, **arguments)

    assert message in str(caught.value)


async def test_a_retry_that_nobody_tells_what_to_retry_says_so() -> None:
    """When it is used, in each form; and in a pipeline without a classifier at construction."""
    callee = Script(1)
    with pytest.raises(TypeError, match="does not know what to retry"):
        await Retry().call(callee)
    with pytest.raises(TypeError, match="does not know what to retry"):
        Retry().__aiter__()
    with pytest.raises(TypeError, match="does not know what to retry"):
        Pipeline(Retry())

    assert callee.calls == 0


async def test_a_retry_is_a_value() -> None:
    """It can be compared, shown and varied."""
    retry = Retry(on=Failure, attempts=5)

    assert retry == Retry(on=Failure, attempts=5)
    assert retry.replace(attempts=3) == Retry(on=Failure)
    assert "attempts=5" in repr(retry)
