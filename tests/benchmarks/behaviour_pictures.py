"""The pictures of docs/benchmarks.md: one SVG for each scenario, the same text for the same runs.

Each is a card with a background of its own, light or dark as the reader's system is, so that it can be read on any page. Nothing
is told by colour alone: in small multiples each policy has its own panel, elsewhere its own row. Ours are blue, peers orange, of
the palette of Okabe and Ito, which colour-blind readers can tell apart.
"""

import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resilient.simulation.study import Study

__all__ = ("picture",)

_context: Any = getattr(mpl, "rc_context")  # noqa: B009  its type lists hundreds of settings, some of them unknown

_PAPER, _INK, _FAINT, _GRID, _TROUBLE = "#ffffff", "#222222", "#767676", "#e2e2e2", "#efefef"
_OURS, _PEER, _NOTHING = "#0072b2", "#d55e00", "#6e6e6e"
_AT_NIGHT: Final = {
    _PAPER: "#14181d",
    _INK: "#e8e8e8",
    _FAINT: "#a0a0a0",
    _GRID: "#353b42",
    _TROUBLE: "#262c33",
    _OURS: "#56b4e9",
    _PEER: "#f08a3c",
    _NOTHING: "#a8a8a8",
}
"""What each colour becomes where the reader's system is dark."""
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "resilient",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": _PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.color": _FAINT,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
_UNUSED: Final = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->| id=\"(?:axes|patch|line2d|text|[xy]tick|matplotlib|Fill|figure|legend|Poly)[^\"]*\"",
    re.DOTALL,
)
_FONTS: Final = re.compile(r"font-family: [^;\"]*")
_LONG: Final = re.compile(r"-?\d+\.\d{3,}")
_SPACE: Final = re.compile(r"\s*\n\s*")
_WIDTH: Final = 8.0
_COLUMNS: Final = 2
_SECONDS: Final = (0.03, 0.1, 0.3, 1, 3)
_QUANTILES: Final = {"p50": ("median", "|"), "p95": ("95 %", "o"), "p99": ("99 %", "s"), "p999": ("99.9 %", "D")}


def picture(found: Study) -> str:
    """The picture of a scenario, as the text of an SVG file."""
    with _context(_STYLE):
        text = _KINDS[found.scenario.name](found)
    rules = "".join(_rule(what, day, dark) for day, dark in _AT_NIGHT.items() for what in ("fill", "stroke"))
    return text.replace("<defs>", f"<style>@media (prefers-color-scheme: dark) {{{rules}}}</style>\n <defs>", 1)


def _rule(what: str, day: str, dark: str) -> str:
    return f'[style*="{what}: {day}"]{{{what}:{dark} !important}}'


def _over_time(found: Study) -> str:
    """Good answers over time, a panel for each policy."""
    names = list(found.runs)
    rows = math.ceil(len(names) / _COLUMNS)
    figure: Any = Figure(figsize=(_WIDTH, 0.5 + 1.05 * rows))
    figure.subplots_adjust(left=0.06, right=0.985, top=0.93, bottom=0.085, hspace=0.55, wspace=0.1)
    step = found.runs[names[0]][0].step
    highest = 2 * max(band.median for band in found.series(names[0], "offered"))  # what was held up may come in a rush
    for place, name in enumerate(names):
        axes: Any = figure.add_subplot(rows, _COLUMNS, place + 1)
        answered, offered = ([band.median for band in found.series(name, which)] for which in ("answered", "offered"))
        times = [index * step for index in range(len(answered))]
        for begin, end in _troubles(found):
            axes.axvspan(begin, end, color=_TROUBLE, linewidth=0)
        axes.plot(times, offered, color=_NOTHING, linewidth=0.7, linestyle=":")
        outline = [times[0], *times, times[-1]], [0, *answered, 0]
        axes.fill(*outline, facecolor=(_colour(name), 0.35), edgecolor=_colour(name), linewidth=1.2)
        axes.tick_params(length=0, labelsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.set_xlim(0, times[-1])
        axes.set_ylim(0, highest)
        axes.set_title(_plain(name), loc="left", fontsize=9, pad=3, fontweight="bold" if _is_ours(name) else "normal")
        if place < len(names) - _COLUMNS:
            axes.set_xticklabels([])
    figure.text(0.06, 0.985, "Good answers a second; dotted: calls made; shaded: the trouble", va="top")
    figure.text(0.985, 0.005, "seconds", ha="right", va="bottom", color=_FAINT)
    return _svg(figure)


def _tails(found: Study) -> str:
    """Latencies of calls, a row for each policy."""
    figure, axes = _rows(found)
    for place, name in enumerate(found.runs):
        values = [found.band(name, quantile).median for quantile in _QUANTILES]
        axes.plot(values, [place] * len(values), color=_colour(name), linewidth=1.3, zorder=2)
        for value, (_, mark) in zip(values, _QUANTILES.values(), strict=True):
            axes.plot([value], [place], color=_colour(name), marker=mark, markersize=7 if mark == "|" else 5, zorder=3)
        axes.annotate(f"{values[-1]:.2g} s", (values[-1], place), (7, -3), textcoords="offset points")
    for title, mark in _QUANTILES.values():
        axes.plot([], [], color=_NOTHING, marker=mark, linestyle="none", label=title)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=len(_QUANTILES), handletextpad=0.2)
    axes.set_xlabel("seconds until all twenty have answered")
    axes.set_xscale("log")
    axes.set_xticks(_SECONDS, [f"{seconds:g}" for seconds in _SECONDS])
    axes.set_xticks([], minor=True)
    axes.set_xlim(_SECONDS[0], _SECONDS[-1])
    return _svg(figure)


def _herd(found: Study) -> str:
    """Requests that a call took, and how long all took, a row for each policy."""
    figure, axes = _rows(found, panels=2)
    panels = {"amplification": (axes[0], "requests per call"), "finished": (axes[1], "seconds until all were done")}
    for measure, (panel, title) in panels.items():
        values = [found.band(name, measure).median for name in found.runs]
        right = 1.3 * max(value for value in values if math.isfinite(value))
        for place, (name, value) in enumerate(zip(found.runs, values, strict=True)):
            done = math.isfinite(value)
            panel.barh(place, value if done else right, color=_colour(name), height=0.62, alpha=1 if done else 0.35)
            text, at = (f"{value:.3g}", value) if done else ("never", 0)
            panel.annotate(text, (at, place), (4, -3), textcoords="offset points")
        panel.set_xlabel(title)
        panel.set_xlim(0, right)
    return _svg(figure)


def _rows(found: Study, *, panels: int = 1) -> tuple[Any, Any]:
    """A figure with a row for each policy."""
    names = [_plain(name) for name in found.runs]
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.26 * len(names)))
    figure.subplots_adjust(
        left=0.03 + 0.0088 * max(map(len, names)), right=0.97, top=0.9 if panels == 1 else 0.97, bottom=0.15, wspace=0.08
    )
    every: list[Any] = [figure.add_subplot(1, panels, panel + 1) for panel in range(panels)]
    for axes in every:
        axes.set_yticks(range(len(names)), names if axes is every[0] else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(names) - 0.4, -0.6)
    return figure, every if panels > 1 else every[0]


def _troubles(found: Study) -> list[tuple[float, float]]:
    """From when to when something is wrong."""
    spans: list[tuple[float, float]] = []
    for one in found.scenario.conditions:
        period, half = (one.period, one.period / 2) if one.period else (one.over - one.begin, one.over - one.begin)
        begin = one.begin
        while begin < one.over:
            spans.append((begin, min(begin + half, one.over)))
            begin += period
    return spans


def _is_ours(name: str) -> bool:
    return name.startswith("**")


def _plain(name: str) -> str:
    return name.replace("*", "").replace("`", "")


def _colour(name: str) -> str:
    if _is_ours(name):
        return _OURS
    return _NOTHING if name.startswith("no ") else _PEER


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = _UNUSED.sub("", text[text.index("<svg") :])
    text = _FONTS.sub("font-family: sans-serif", text)
    text = _LONG.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)
    return _SPACE.sub(_closer, text)


def _closer(space: re.Match[str]) -> str:
    """A line ends where an element does: differences of pictures stay readable."""
    return "\n" if space.string[space.start() - 1] == ">" else " "


_KINDS: Final[Mapping[str, Callable[[Study], str]]] = {
    "retry-storm": _over_time,
    "flapping": _over_time,
    "tail-at-scale": _tails,
    "thundering-herd": _herd,
}
