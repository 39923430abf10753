"""`resilient explain`: what a policy builds, as text: the pipeline, the waits, the worst case, and what stands behind them."""

import argparse
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from resilient.cli.check import findings_of, lines_of
from resilient.cli.documents import Section, Source, read_document
from resilient.cli.explain_words import budget_words, classifier_words, plural, seconds, settings_changed, words
from resilient.cli.screen import Paint, Unusable, screen
from resilient.lint import worst_case
from resilient.lint.worst import delays_of, span_of
from resilient.policy.key import PolicyKey
from resilient.policy.names import nearest
from resilient.policy.normalise import policy_from_document
from resilient.policy.presets import PRESETS
from resilient.policy.schema import Policy
from resilient.strategies.backoff import Backoff

__all__ = ("add_to", "chosen")

_TEXT: Final = 84  # characters of a sentence in a line
_BAR: Final = 36
_UNSET: Final = {"timeout", "attempt_timeout", "fallback", "chaos"}
"""Parts that are all settings: nothing of them is a default."""


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explain",
        help="what a policy builds: its pipeline, its waits, its worst case",
        description="Shows what policies build: the pipeline, the waits between attempts, the worst case, and the rest in words.",
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="a document of policies (.toml, .yaml, .json)")
    parser.add_argument("key", nargs="?", metavar="KEY", help="only the policy that this key gets (default: all)")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="a preset in place of a file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if (options.file is None) == (options.preset is None):
        msg = "give either FILE or --preset"
        raise Unusable(msg)
    shown = screen()
    if options.preset is not None:
        section = Section((options.preset,), policy_from_document({"preset": options.preset}))
        shown.print(list(_policy(section, f"the preset {options.preset}", shown)))
        return 0
    source = read_document(options.file)
    if source.problems:
        errors = [one for one in findings_of(source) if one.severity == "error"]
        shown.print([*lines_of(errors, shown), "nothing is explained before that is mended"])
        return 1
    sections = source.sections if options.key is None else (chosen(source, options.key),)
    blocks = [list(_policy(section, _origin(source, section, options.key), shown)) for section in sections]
    if len(sections) > 1:
        blocks.insert(0, list(_overview(source, shown)))
    shown.print("\n\n\n".join("\n".join(block) for block in blocks).splitlines())
    return 0


def chosen(source: Source, key: str) -> Section:
    """The policy that a key gets: its own, or else the default.

    Raises:
        Unusable: it gets none.

    """
    own = {section.name: section for section in source.sections if not section.is_default}
    default = next((section for section in source.sections if section.is_default), None)
    found = own.get(PolicyKey.parse(key), default)
    if found is None:
        msg = f"{source.name}: no policy for the key {key!r}, and no default{nearest(key, own)}"
        raise Unusable(msg)
    return found


def _origin(source: Source, section: Section, key: str | None) -> str:
    line = source.line(section.path)
    asked = "" if key is None or section.name == PolicyKey.parse(key) else f"what {key!r} gets, "
    return f"{asked}{source.name}:{line}" if line else f"{asked}{source.name}"


def _overview(source: Source, paint: Paint) -> Iterator[str]:
    """A line for each policy."""
    version = "" if source.version is None else f", version {source.version}"
    yield paint(f"{source.name}{version}: {len(source.sections)} policies", "bold")
    yield ""
    width = max(len(section.name) for section in source.sections)
    yield paint(f"{'key':<{width}}  {'attempts':>8}  {'at most':>9}  parts, outermost first", "dim")
    for section in source.sections:
        attempts, longest = worst_case(section.policy.strategies)
        name = paint(f"{section.name:<{width}}", "cyan")
        yield f"{name}  {attempts:>8g}  {_time(longest):>9}  {' > '.join(section.policy.parts) or 'nothing'}"


def _time(value: float) -> str:
    return "no limit" if value == math.inf else seconds(value)


def _policy(section: Section, origin: str, paint: Paint) -> Iterator[str]:
    """Everything about one policy."""
    policy = section.policy
    named = f", id {policy.id!r}" if policy.id else ""
    yield f"{paint(section.name, 'bold')} {paint(f'({origin}{named})', 'dim')}"
    for title, lines in (
        ("the pipeline, outermost first (* is not the default)", list(_pipeline(policy, paint))),
        (*_waits(policy, paint),),
        ("the worst case of one call", list(_worst(policy, paint))),
        ("in words", list(_in_words(section, paint))),
    ):
        if lines:
            yield ""
            yield paint(title, "bold")
            yield from lines


def _pipeline(policy: Policy, paint: Paint) -> Iterator[str]:
    """The parts as a tree, each inside of the one above."""
    parts = policy.parts
    width = max((len(name) + 2 * depth for depth, name in enumerate([*parts, "the call"])), default=0) + 2
    for depth, (name, part) in enumerate(parts.items()):
        below = " " * (2 * depth) + "│"
        sentence = textwrap.wrap(words(name, part, policy), _TEXT)
        changed = list(_changed(name, part)) if name not in _UNSET else []
        marked = _listed(changed) if changed else []
        head = f"{_branch(depth)}{paint(name, 'cyan')}{' ' * (width - 2 * depth - len(name))}"
        yield head + paint(sentence[0], "default")
        for line in sentence[1:]:
            yield f"{below:<{width}}{paint(line, 'default')}"
        for line in marked:
            yield f"{below:<{width}}{paint(line, 'yellow')}"
    yield f"{_branch(len(parts))}the call"


def _listed(items: Sequence[str]) -> list[str]:
    """The items in lines; none is broken."""
    whole = ", ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)
    lines = textwrap.wrap(f"* {whole}", _TEXT, subsequent_indent="  ")
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _branch(depth: int) -> str:
    return "  " * (depth - 1) + "└ " if depth else ""


def _changed(name: str, part: Any) -> Iterator[str]:
    yield from settings_changed(part, name)
    for inner in ("backoff", "budget"):
        value = getattr(part, inner, None)
        if value is not None:
            yield from (f"{inner}.{setting}" for setting in settings_changed(value, f"{name}.{inner}"))


def _waits(policy: Policy, paint: Paint) -> tuple[str, list[str]]:
    """The schedule of the backoff, as a table and a chart of bars."""
    retry = policy.retry
    if retry is None or retry.attempts in {None, 1} or not isinstance(retry.backoff, Backoff):
        return "", []
    count = (retry.attempts or 1) - 1
    columns = [delays_of(retry.backoff, choose, count) for choose in (min, _middle, max)]
    rows = list(zip(*columns, strict=True))
    longest = max(columns[2])
    lines = [paint(f"{'retry':>5}  {'shortest':>9}  {'typical':>9}  {'longest':>9}", "dim")]
    for number, row in enumerate(rows, 1):
        lines.append(f"{number:>5}  {_row(row)}  {_bar(row, longest, paint)}".rstrip())
    lines.append(f"{'all':>5}  {_row([sum(column) for column in columns])}")
    kind = type(retry.backoff).__name__.lower()
    jitter = "no jitter" if retry.backoff.jitter == "none" else f"{retry.backoff.jitter} jitter"
    return f"the waits before retries: {kind}, {jitter}", lines


def _middle(low: float, high: float) -> float:
    return (low + high) / 2


def _row(delays: Sequence[float]) -> str:
    return "  ".join(f"{seconds(delay):>9}" for delay in delays)


def _bar(row: Sequence[float], longest: float, paint: Paint) -> str:
    """From the shortest wait to the longest one; the first part up to the typical one."""
    begin, middle, end = (round(delay / longest * _BAR) if longest else 0 for delay in row)
    typical, rest = ("█", "░") if paint.bars else ("=", "-")
    return " " * begin + paint(typical * (middle - begin), "green") + paint(rest * (end - middle), "green")


def _worst(policy: Policy, paint: Paint) -> Iterator[str]:
    attempts, longest = worst_case(policy.strategies)
    by_retry = 1 if policy.retry is None else policy.retry.attempts
    by_hedge = 0 if policy.hedge is None else policy.hedge.max_hedges
    made = f"{by_retry} by retry" if policy.retry is not None else "the call itself"
    hedged = f", each with up to {plural(by_hedge, 'hedge')}" if by_hedge else ""
    yield _fact("attempts", f"{attempts:g}: {made}{hedged}", paint)
    yield _fact("duration", f"{_time(longest)}: {_bound(policy, longest)}", paint)


def _bound(policy: Policy, longest: float) -> str:
    """What bounds the duration of a call."""
    if longest == math.inf:
        if span_of(policy.strategies).busy == math.inf:
            return "nothing here cuts off an attempt that hangs; a timeout of the callee's may"
        return "nothing limits the wait for a turn"
    without: dict[str, Policy] = {
        name: policy.replace(**{name: None}) for name in ("timeout", "attempt_timeout") if getattr(policy, name) is not None
    }
    if policy.retry is not None and policy.retry.timeout is not None:
        without["retry.timeout"] = policy.replace(retry=policy.retry.replace(timeout=None))
    bounds = [name for name, other in without.items() if worst_case(other.strategies).seconds > longest]
    return f"bounded by {' and '.join(bounds or without)}"


def _in_words(section: Section, paint: Paint) -> Iterator[str]:
    policy = section.policy
    yield _fact("outcomes", classifier_words(policy), paint)
    if policy.retry is not None:
        yield _fact("retry budget", budget_words(policy.retry_budget or policy.retry.budget), paint)
    if policy.hedge is not None:
        yield _fact("hedge budget", budget_words(policy.hedge_budget or policy.hedge.budget), paint)
    clamped = [f"{'.'.join(one.path)}: {one.message} {one.mend}" for one in section.clamped()]
    for text in clamped or ["nothing"]:
        yield _fact("clamped", text, paint)
    findings = [f"{one.severity} {one.code} at {one.where}: {one.message} {one.mend}" for one in policy.lint()]
    for text in findings or ["nothing found"]:
        yield _fact("lint", text, paint)


def _fact(name: str, text: str, paint: Paint) -> str:
    """A name, and what is to be said of it."""
    lines = textwrap.wrap(text, _TEXT)
    names = (name, *[""] * len(lines))
    return "\n".join(f"{paint(f'{name:<14}', 'cyan')}{paint(line, 'default')}" for name, line in zip(names, lines, strict=False))
