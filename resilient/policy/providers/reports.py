"""What providers tell of documents: events, and by them log lines. Each thing is told once, until something else happens."""

from typing import Literal

from resilient import clock
from resilient.errors import InvalidPolicy
from resilient.observe.events import Event, PolicyRefused, PolicyReloaded, PolicyUnavailable
from resilient.observe.listeners import emit_notable, sink
from resilient.policy.providers.snapshot import Snapshot

__all__ = ("Reports",)


class Reports:
    """Tells of one document.

    Args:
        provider: `"file"`, `"remote"`, or `"lkg"`.
        origin: which file, or for which key.

    All mutable state: `_last`, what was told last.
    """

    __slots__ = ("_last", "_origin", "_provider")

    def __init__(self, provider: str, origin: str) -> None:
        self._provider = provider
        self._origin = origin
        self._last = ""

    def recovered(self, now: Snapshot, before: Snapshot | None) -> None:
        """`now` is valid. That is news where there was another one before, or trouble."""
        in_trouble, self._last = self._last != "", ""
        is_other = before is not None and now is not before
        if not in_trouble and not is_other:
            return
        document = now.document
        policies = [*document.policies.values(), *filter(None, [document.default])]
        _tell(
            PolicyReloaded(
                at=clock.now(),
                provider=self._provider,
                origin=self._origin,
                source=now.source,
                version=document.version,
                policies=len(policies),
                clamped=sum(len(policy.normalisation.fields) for policy in policies),
            )
        )

    def refused(self, error: Exception) -> None:
        """A document is not used."""
        problems = error.problems if isinstance(error, InvalidPolicy) else ()
        why = str(problems[0] if problems else error)
        if self._is_news(why):
            _tell(
                PolicyRefused(
                    at=clock.now(), provider=self._provider, origin=self._origin, why=why, problems=max(1, len(problems))
                )
            )

    def unavailable(self, why: str, serving: Literal["lkg", "none"], retry_in: float) -> None:
        """The source cannot be reached."""
        if self._is_news(why):
            _tell(
                PolicyUnavailable(
                    at=clock.now(), provider=self._provider, origin=self._origin, why=why, serving=serving, retry_in=retry_in
                )
            )

    def _is_news(self, why: str) -> bool:
        is_news, self._last = why != self._last, why
        return is_news


def _tell(event: Event) -> None:
    emit_notable(sink(), event)
