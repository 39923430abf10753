"""The guard: how a call goes through gates.

The hard contracts live in one place, `guarded()`: permits are taken in order and settled in reverse, on every way out (value,
exception, cancellation), once each. What does not linger is settled when the call returns, what does when the value has ended.
Events that a gate left in its outbox are told after that, never inside. All state is that of the one call.
"""

from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from resilient import clock
from resilient.context import Attempt, attempt_of, make_current, put_back
from resilient.errors import Rejected
from resilient.outcome import ABANDONED, SUCCESS, Classifier, Health, Verdict
from resilient.strategies.base import Step
from resilient.strategies.lingering import Lingering
from resilient.strategies.outbox import announce, leave_rejection, outboxes

if TYPE_CHECKING:
    from resilient.strategies.gate import Gate, Permit

__all__ = ("guarded",)


async def guarded(  # noqa: C901, PLR0912, PLR0915  the hard contracts, in one place
    gates: "Sequence[Gate]",
    judged: bool,  # noqa: FBT001  steps are called by position
    call: Step,
    attempt: Any,  # an Attempt, or Plain
) -> Any:
    """Enter the gates in order, run the call, settle in reverse on every way out. See the top of this module.

    `judged` says that a gate has a classifier of its own. An attempt that has something to say is current from here on: the
    callee needs no frame of its own for that.
    """
    held: list[Permit] = []
    outcome: Any = None
    outer: Any = attempt
    classifier: Classifier | None = None
    failed = False
    started = clock.now()
    if type(attempt) is Attempt:
        classifier = attempt.classifier
        if not attempt.plain:
            outer = make_current(attempt)
    try:
        for gate in gates:
            permit = gate.admit(started)
            if permit is None:
                held = [gates[place].kept(granted, started) for place, granted in enumerate(held)]
                permit = await _wait(gate, attempt_of(attempt))
                started = clock.now()
            held.append(permit)
            if outboxes and gate.outbox:
                announce(gate, attempt_of(attempt), granted=True)
        outcome = await call(attempt)
        return outcome  # noqa: TRY300  permits are settled in `finally`, once for every way out
    except BaseException as error:
        failed, outcome = True, error
        if len(held) < len(gates) and isinstance(error, Rejected):
            leave_rejection(gates[len(held)], error, attempt)
        raise
    finally:
        now = clock.now()
        latency = now - started
        if outer is not attempt:
            put_back(attempt, outer)
        verdict: Verdict | None = SUCCESS
        if held and (failed or judged or (classifier is not None and classifier.values is not None)):
            verdict = None  # it is asked for where a gate has no classifier of its own
            if type(attempt) is not Attempt:
                attempt = attempt_of(attempt)
        try:
            if isinstance(outcome, Lingering) and not outcome.has_ended:
                _settle_at_end(gates, held, attempt_of(attempt), outcome, latency, now)
            while held:
                permit = held.pop()
                own = gates[len(held)].classifier if judged else None
                if own is not None:
                    permit.settle(attempt.verdict(outcome, error=failed, classifier=own), latency, now)
                else:
                    verdict = common = verdict or attempt.verdict(outcome, error=failed)
                    permit.settle(common, latency, now)
        except BaseException:
            _settle_rest(gates, held, attempt_of(attempt), outcome, latency, now, failed=failed)
            raise
        finally:
            if outboxes:
                for gate in gates:
                    if gate.outbox:
                        announce(gate, attempt_of(attempt))
            del outcome  # an exception refers to its frames: no cycle


def _wait(gate: "Gate", attempt: Attempt) -> "Coroutine[Any, Any, Permit]":
    """Wait for a permit; a hedge stands in no line."""
    return (gate.at_once if attempt.kind == "hedge" else gate.wait)(attempt.deadline)


def _settle_rest(
    gates: "Sequence[Gate]", held: "Sequence[Permit]", attempt: Attempt, outcome: Any, latency: float, now: float, *, failed: bool
) -> None:
    """A permit of a user's own raised when it was settled: that must not keep those further out."""
    with ExitStack() as stack:
        for place, permit in enumerate(held):
            verdict = attempt.verdict(outcome, error=failed, classifier=gates[place].classifier)
            stack.callback(permit.settle, verdict, latency, now)


def _settle_at_end(
    gates: "Sequence[Gate]", held: "list[Permit]", attempt: Attempt, value: Lingering, latency: float, now: float
) -> None:
    """Settle what does not linger now, and see that the rest is settled when the value has ended. Empties `held`."""
    lingering: list[tuple[Gate, Permit, Verdict]] = []

    def settle_lingering(error: BaseException | None) -> None:
        now = clock.now()
        with ExitStack() as stack:  # the last in is the first out, and one that raises does not keep the others
            for gate, _, _ in lingering:
                stack.callback(announce, gate, attempt)
            for gate, permit, verdict in reversed(lingering):
                stack.callback(permit.settle, _verdict_at_end(gate, attempt, verdict, error), latency, now)

    try:
        while held:
            permit = held.pop()
            gate = gates[len(held)]
            verdict = attempt.verdict(value, error=False, classifier=gate.classifier)
            if permit.lingers:
                lingering.append((gate, permit, verdict))
            else:
                rest = permit.settle(verdict, latency, now)
                if rest is not None:
                    lingering.append((gate, rest, verdict))
    except BaseException:
        settle_lingering(GeneratorExit())  # nobody gets the value
        raise
    if lingering:
        value.on_end(settle_lingering)


def _verdict_at_end(gate: "Gate", attempt: Attempt, at_return: Verdict, error: BaseException | None) -> Verdict:
    if error is None or at_return.health is Health.UNHEALTHY:
        return at_return  # what was bad when it was returned is not better for having been thrown away
    if isinstance(error, GeneratorExit):
        return ABANDONED
    return attempt.verdict(error, error=True, classifier=gate.classifier)
