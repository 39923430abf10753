"""Fallbacks that are not needed."""

from collections.abc import Iterable

from benchmarks.harness import Case, Group, called, fn, peer
from resilient import Fallback

ERRORS_ONLY = "a look at the value"


def own() -> Iterable[Case]:
    yield called("resilient @Fallback", Fallback(0)(fn), ours=True)


def hyx() -> Iterable[Case]:
    async def handler(*_: object, **__: object) -> int:
        return 0

    yield called("hyx @fallback", peer("hyx.fallback").fallback(handler)(fn), without=ERRORS_ONLY)


def nopanic() -> Iterable[Case]:
    yield called("nopanic @fallback", peer("nopanic").fallback(0)(fn), without=ERRORS_ONLY)


def grit() -> Iterable[Case]:
    yield called("grit @fallback", peer("grit").fallback(0)(fn), without=ERRORS_ONLY + ", events")


def pyresilience() -> Iterable[Case]:
    module = peer("pyresilience")
    yield called(
        "pyresilience @resilient(fallback)", module.resilient(fallback=module.FallbackConfig(0))(fn), without=ERRORS_ONLY
    )


GROUPS = [
    Group(
        "fallback",
        "Fallback: not needed",
        own,
        {"hyx": hyx, "nopanic": nopanic, "grit-toolkit": grit, "pyresilience": pyresilience},
    )
]
