"""The demo's result as lines of text.

All of it goes through a `Paint`, which colours and draws bars on a terminal and leaves plain text alone elsewhere.
"""

from collections.abc import Callable, Iterator
from typing import Final

from resilient.cli.figures import CLIENTS, Figures, Phase, Promise, Result
from resilient.cli.screen import Paint
from resilient.observe.text import milliseconds

__all__ = ("progress", "report")

_GOOD: Final = 0.97
_FAIR: Final = 0.5
_STEPS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 10
_SLICES: Final = 64
_STATES: Final = {"closed": ("━", "green"), "half_open": ("▒", "yellow"), "open": ("█", "red")}


def progress(result: Result, paint: Paint) -> list[str]:
    """What there is while the demo runs."""
    return [*_head(result, paint), "", *_table(result, paint), "", *_over_time(result, paint)]


def report(result: Result, paint: Paint) -> list[str]:
    """All of it, at the end."""
    return [
        *progress(result, paint),
        "",
        paint("one call of the flaky phase, from its timeline", "bold"),
        *(paint(line, "default") for line in result.waterfall.splitlines()),
        "",
        paint(f"what an operator saw: {len(result.log_lines)} lines of the logger 'resilient', among them", "bold"),
        *_log_lines(result, paint),
        "",
        paint("what this run shows", "bold"),
        *(_promise(promise, paint) for promise in result.promises()),
    ]


def _head(result: Result, paint: Paint) -> list[str]:
    return [
        paint(f"resilient demo, seed {result.seed}", "bold")
        + ": one flaky server on loopback, the same calls and the same faults for two httpx clients",
        paint("plain      httpx.AsyncClient()", "dim"),
        paint("resilient  httpx.AsyncClient(transport=ResilientTransport(policy=Policy.http().replace(...)))", "dim"),
    ]


def _table(result: Result, paint: Paint) -> Iterator[str]:
    bar = f"{'':{_WIDTH + 1}}" if paint.bars else ""
    yield paint(
        f"{'phase':<10}{'client':<11}{'calls':>5}  {'success':>8} {bar}{'attempts/call':>14}{'p50':>11}{'p95':>11}{'p99':>11}",
        "dim",
    )
    for phase in result.phases:
        for client in CLIENTS:
            figures = result.figures(client, phase.name)
            if figures.calls:
                yield _row(phase, client, figures, paint)


def _row(phase: Phase, client: str, figures: Figures, paint: Paint) -> str:
    name = phase.name if client == CLIENTS[0] else ""
    rate = paint(f"{figures.success_rate:>8.1%}", _colour(figures.success_rate))
    filled = round(figures.success_rate * _WIDTH)
    bar = paint("█" * filled, _colour(figures.success_rate)) + paint("░" * (_WIDTH - filled), "dim") + " " if paint.bars else ""
    times = "".join(f"{milliseconds(figures.percentile(share)):>11}" for share in (0.5, 0.95, 0.99))
    return f"{name:<10}{client:<11}{figures.calls:>5}  {rate} {bar}{figures.attempts_per_call:>14.2f}{times}"


def _over_time(result: Result, paint: Paint) -> Iterator[str]:
    """Successes and the breaker's states over time: as ribbons on a terminal, else in words."""
    states = [f"{state.at:.1f} s {state.state.replace('_', '-')}" for state in result.states]
    if not paint.bars:
        yield f"breaker: {', '.join(states)}"
        return
    yield _ribbon(result, "", lambda phase, cell: phase.name[cell : cell + 1] or " ", paint("│", "dim"))
    for client in CLIENTS:
        yield _ribbon(result, client, _successes(result, client, paint), paint("│", "dim"))
    yield _ribbon(result, "breaker", _breaker(result, paint), paint("│", "dim"))
    legend = ", ".join(paint(f"{mark} {name.replace('_', '-')}", colour) for name, (mark, colour) in _STATES.items())
    yield f"{'':<11}{legend}"


def _slice(result: Result) -> float:
    return result.planned / _SLICES


def _ribbon(result: Result, title: str, cell_of: Callable[[Phase, int], str], border: str) -> str:
    cells = [round(phase.seconds / _slice(result)) for phase in result.phases]
    parts = ("".join(cell_of(phase, cell) for cell in range(count)) for phase, count in zip(result.phases, cells, strict=True))
    return f"{title:<11}{border.join(parts)}"


def _successes(result: Result, client: str, paint: Paint) -> Callable[[Phase, int], str]:
    """The share of the calls begun in a slice of time that succeeded."""
    calls = [call for call in result.calls if call.client == client]
    length = _slice(result)

    def cell_of(phase: Phase, cell: int) -> str:
        begin = phase.begin + cell * length
        figures = Figures.of([call for call in calls if begin <= call.begin < begin + length])
        step = _STEPS[round(figures.success_rate * (len(_STEPS) - 1))]
        return paint(step, _colour(figures.success_rate)) if figures.calls else " "

    return cell_of


def _breaker(result: Result, paint: Paint) -> Callable[[Phase, int], str]:
    """The state at the end of a slice of time; half-open where it was that at any moment of it."""
    length = _slice(result)
    known_until = max((call.begin for call in result.calls), default=0.0)

    def cell_of(phase: Phase, cell: int) -> str:
        begin = phase.begin + cell * length
        if begin > known_until:
            return " "
        within = [state.state for state in result.states if begin < state.at <= begin + length]
        before = [state.state for state in result.states if state.at <= begin]
        state = "half_open" if "half_open" in within else (before + within)[-1]
        return paint(*_STATES[state])

    return cell_of


def _log_lines(result: Result, paint: Paint) -> Iterator[str]:
    """The first line of each kind; a change of state is a kind of its own."""
    seen: set[str] = set()
    for line in result.log_lines:
        kind = line.split()[0] + next((word for word in line.split() if word.startswith("new=")), "")
        if kind not in seen:
            seen.add(kind)
            yield paint(line, "default")


def _promise(promise: Promise, paint: Paint) -> str:
    return f"{paint('yes', 'green') if promise.kept else paint('NO ', 'red')}  {promise}"


def _colour(rate: float) -> str:
    return "green" if rate >= _GOOD else "yellow" if rate >= _FAIR else "red"
