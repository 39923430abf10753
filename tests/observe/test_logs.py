"""What an operator sees: one line an event, with stable names and fields, and nothing where nothing is wrong."""

import logging
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
import structlog
from structlog.testing import LogCapture

from resilient.errors import CircuitOpen
from resilient.observe import configure_logging, listeners
from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    CallRejected,
    ChaosInjected,
    Event,
    FallbackUsed,
    RetryScheduled,
    RetryStopped,
    TimedOut,
)
from resilient.outcome import SUCCESS, Health, Kind, Verdict
from resilient.strategies.backoff import Constant
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

LOST = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "read_error")

RETRIED = RetryScheduled(
    at=1.0,
    key="https://api.example.com",
    call_id=7,
    number=1,
    attempts=3,
    verdict=LOST,
    error="ReadError",
    delay=0.21349,
    delay_source="backoff",
    time_left=28.75,
    budget_left=9.2,
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    configure_logging()
    structlog.reset_defaults()


@pytest.fixture
def structured() -> list[dict[str, object]]:
    """What structlog is told, where the application has configured it."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    return capture.entries  # type: ignore[return-value]  # an EventDict is a mutable mapping, here a dict


def lines(caplog: pytest.LogCaptureFixture, *events: Event) -> list[str]:
    with caplog.at_level(logging.DEBUG, logger="resilient"):
        for event in events:
            listeners.emit_notable((), event)
    return [record.getMessage() for record in caplog.records]


def test_a_retry_is_one_line_that_says_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Key, attempt, of how many, why, delay and where it came from, what remains of the deadline and the budget."""
    (told,) = lines(caplog, RETRIED)

    assert told == (
        "resilient.retry_scheduled key=https://api.example.com attempt=1 attempts=3 reason=read_error error=ReadError "
        "delay=0.213 delay_source=backoff time_left=28.75 budget_left=9.2 call_id=7"
    )
    assert caplog.records[0].levelno == logging.WARNING
    assert caplog.records[0].name == "resilient"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            RetryStopped(at=0.0, key="api", call_id=1, attempts=3, reason="attempts_exhausted", verdict=LOST, error="ReadError"),
            "resilient.retry_stopped key=api attempts=3 stopped=attempts_exhausted reason=read_error error=ReadError call_id=1",
        ),
        (
            CallRejected(at=0.0, key="api", call_id=1, strategy="breaker", reason="circuit_open", retry_after=4.0),
            "resilient.call_rejected key=api strategy=breaker reason=circuit_open retry_after=4.0 call_id=1",
        ),
        (
            BreakerStateChanged(
                at=0.0, key="api", call_id=1, strategy="breaker", old="closed", new="open", why="slow_rate", open_for=5.0
            ),
            "resilient.breaker_state_changed key=api strategy=breaker old=closed new=open why=slow_rate open_for=5.0 call_id=1",
        ),
        (
            BreakerStateChanged(at=0.0, strategy="breaker", old="open", new="closed", why="by_hand", monitor_only=True),
            "resilient.breaker_state_changed strategy=breaker old=open new=closed why=by_hand rejections=0 monitor_only=True",
        ),
        (
            TimedOut(at=0.0, key="api", call_id=1, seconds=2.0),
            "resilient.timed_out key=api seconds=2.0 call_id=1",
        ),
        (
            ChaosInjected(at=0.0, key="api", call_id=1, strategy="chaos", kind="latency", seconds=2.0),
            "resilient.chaos_injected key=api strategy=chaos kind=latency seconds=2.0 call_id=1",
        ),
        (
            ChaosInjected(at=0.0, key="api", call_id=1, strategy="chaos", kind="fault", error="OSError"),
            "resilient.chaos_injected key=api strategy=chaos kind=fault error=OSError call_id=1",
        ),
        (
            FallbackUsed(at=0.0, key="api", call_id=1, verdict=LOST, error="ReadError"),
            "resilient.fallback_used key=api reason=read_error error=ReadError call_id=1",
        ),
    ],
)
def test_each_kind_of_event_has_its_line(event: Event, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """The names and fields are stable: alerts are built on them."""
    assert lines(caplog, event) == [line]


def test_what_is_not_known_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """No `key=None`, no empty `error=`."""
    assert lines(caplog, TimedOut(at=0.0, seconds=2.0)) == ["resilient.timed_out seconds=2.0"]


def test_an_open_breaker_logs_its_first_rejection_and_their_number_when_it_closes(caplog: pytest.LogCaptureFixture) -> None:
    """An outage does not flood the log."""
    rejections = [CallRejected(at=0.0, strategy="breaker", reason="circuit_open", nth=nth) for nth in range(1, 1001)]
    half_open = BreakerStateChanged(at=5.0, strategy="breaker", old="open", new="half_open", why="open_elapsed")
    closed = BreakerStateChanged(
        at=5.0, strategy="breaker", old="half_open", new="closed", why="probes_succeeded", rejections=1000
    )

    assert lines(caplog, *rejections, half_open, closed) == [
        "resilient.call_rejected strategy=breaker reason=circuit_open",
        "resilient.breaker_state_changed strategy=breaker old=open new=half_open why=open_elapsed",
        "resilient.breaker_state_changed strategy=breaker old=half_open new=closed why=probes_succeeded rejections=1000",
    ]


async def test_an_outage_is_four_lines_from_its_beginning_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """The breaker itself, with fifty calls that it refuses: opened, the first refusal, half-open, closed and how many it were."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=5.0)

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.call(fail)
    for _ in range(50):
        with pytest.raises(CircuitOpen):
            await breaker.call(fail)
    await anyio.sleep(5.0)
    await breaker.call(callee_that_succeeds)

    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0].removeprefix("resilient.") for line in told] == [
        "breaker_state_changed",
        "call_rejected",
        "breaker_state_changed",
        "breaker_state_changed",
    ]
    assert "new=closed why=probes_succeeded rejections=50" in told[-1]


def test_events_that_nobody_must_see_have_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt is for listeners and timelines."""
    assert lines(caplog, AttemptFinished(at=0.0, number=1, kind="original", started=0.0, verdict=SUCCESS), Event(at=0.0)) == []


async def test_a_call_that_succeeds_logs_nothing_and_a_retried_one_a_line_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """The logs need no setting up."""
    failures = iter([ConnectionError(), ConnectionError()])

    async def callee() -> str:
        if error := next(failures, None):
            raise error
        return "value"

    with caplog.at_level(logging.DEBUG, logger="resilient"):
        await Timeout(1).call(callee_that_succeeds)
        assert caplog.records == []
        await Retry(on=ConnectionError, backoff=Constant(delay=0.5, jitter="none"), timeout=10).call(callee)

    why = "reason=retryable_error error=ConnectionError delay=0.5 delay_source=backoff"
    assert [record.getMessage().split(" call_id=")[0] for record in caplog.records] == [
        f"resilient.retry_scheduled attempt=1 attempts=3 {why} time_left=10.0",
        f"resilient.retry_scheduled attempt=2 attempts=3 {why} time_left=9.5",
    ]


async def callee_that_succeeds() -> str:
    return "value"


def test_names_cannot_forge_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Line breaks, escapes and direction marks are shown, not obeyed; spaces and quotes do not end a field."""
    told = lines(
        caplog,
        CallRejected(at=0.0, key='a b="c"\n2026-01-01 ERROR fake\x1b[2J\u202e\ud800', strategy="back\\slash", reason="no"),
    )

    assert told == [
        r'resilient.call_rejected key="a b=\"c\"\\n2026-01-01 ERROR fake\\x1b[2J\\u202e\\ud800" strategy=back\slash reason=no'
    ]


def test_a_key_that_was_made_from_a_url_loses_its_credentials_and_its_query(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the key function does, no secret of the URL reaches the log."""
    told = lines(caplog, TimedOut(at=0.0, key="https://user:pass@api.example.com/a?token=secret#x", seconds=1.0))

    assert told == ["resilient.timed_out key=https://api.example.com/a seconds=1.0"]


def test_a_very_long_name_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile key cannot fill the log."""
    (told,) = lines(caplog, TimedOut(at=0.0, key="k" * 100_000, seconds=1.0))

    assert len(told) < 300


def test_levels_can_be_chosen_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    """What is not named keeps the default, and None switches a line off."""
    configure_logging(levels={"retry_scheduled": "info", "timed_out": None})

    told = lines(caplog, RETRIED, TimedOut(at=0.0, seconds=1.0), FallbackUsed(at=0.0, verdict=LOST))

    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert len(told) == 2


def test_the_last_configuration_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Calling it again replaces all settings, and never doubles a line."""
    configure_logging(levels={"timed_out": None})
    configure_logging()
    configure_logging()

    assert len(lines(caplog, TimedOut(at=0.0, seconds=1.0))) == 1


def test_the_logs_can_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written then, by either way."""
    configure_logging(enabled=False)

    assert lines(caplog, RETRIED) == []


def test_the_level_of_the_standard_logger_is_heeded(caplog: pytest.LogCaptureFixture) -> None:
    """`logging.getLogger("resilient").setLevel(...)` works as everywhere."""
    with caplog.at_level(logging.ERROR, logger="resilient"):
        listeners.emit_notable((), RETRIED)

    assert caplog.records == []


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"retry": "info"}, "levels='retry': expected one of 'breaker_state_changed', 'call_rejected'"),
        ({"timed_out": "loud"}, "levels\\['timed_out'\\]='loud': expected one of 'debug', 'info'"),
    ],
)
def test_a_line_or_a_level_that_does_not_exist_is_refused(levels: dict[str, str], message: str) -> None:
    """The message lists what there is, and the settings stay as they were."""
    with pytest.raises(ValueError, match=message):
        configure_logging(levels=levels)  # type: ignore[arg-type]


def test_a_configured_structlog_gets_events_with_fields(
    structured: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    """The standard logger is not used then: each line is written once."""
    listeners.emit_notable((), RETRIED)

    assert structured == [
        {
            "event": "resilient.retry_scheduled",
            "log_level": "warning",
            "key": "https://api.example.com",
            "attempt": 1,
            "attempts": 3,
            "reason": "read_error",
            "error": "ReadError",
            "delay": 0.213,
            "delay_source": "backoff",
            "time_left": 28.75,
            "budget_left": 9.2,
            "call_id": 7,
        }
    ]
    assert caplog.records == []


def test_structlog_of_the_standard_library_flavour_works_too(caplog: pytest.LogCaptureFixture) -> None:
    """A structlog that hands its events to `logging` gives the logger its name."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )

    listeners.emit_notable((), TimedOut(at=0.0, seconds=1.0))

    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("resilient", "WARNING", "resilient.timed_out")
    ]


def test_a_logger_that_is_broken_does_not_break_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported as any listener that raises."""

    def broken(*_: object) -> str:
        msg = "no disk"
        raise OSError(msg)

    structlog.configure(processors=[broken])

    listeners.emit_notable((), RETRIED)

    assert "no disk" in caplog.text


def test_where_structlog_was_never_imported_the_standard_logger_is_used(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that has configured it has imported it."""
    monkeypatch.delitem(sys.modules, "structlog")

    told = lines(caplog, TimedOut(at=0.0, seconds=1.0))

    assert told == ["resilient.timed_out seconds=1.0"]
    assert "structlog" not in sys.modules


def test_importing_the_library_does_not_import_structlog() -> None:
    """It takes a third of a second; an application that has configured it has imported it. The line is written all the same."""
    program = """
import sys, resilient.observe
from resilient.observe import listeners
from resilient.observe.events import TimedOut
listeners.emit_notable((), TimedOut(at=0.0, seconds=1.0))
assert "structlog" not in sys.modules
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603  our own program

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "resilient.timed_out seconds=1.0\n")
