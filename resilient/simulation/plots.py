"""The plots of a report, as SVG, by matplotlib. No display, no global state of matplotlib, the same text for the same run."""

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from resilient.simulation.study import Band, Study
from resilient.simulation.sweep import Sweep

__all__ = ("Plots",)

_context: Any = getattr(mpl, "rc_context")  # noqa: B009  its type lists hundreds of settings, some of them unknown

_COLOURS: Final = ("#555555", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito: they can be told apart by colour-blind readers, and in grey."""
_MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "resilient",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
}
_WIDTH, _HEIGHT = 5.8, 2.8  # inches: on a phone letters of 11 points become those of 9 pixels
_LETTER: Final = 0.0155  # how wide a letter of a name is
_LETTERS: Final = 44  # that a row of a legend has room for ...
_HANDLE: Final = 7  # ... where a handle takes as much as so many of them
_MARKED_AT: Final = 8  # marks on a line, so that lines can be told apart in print


class Plots:
    """Draws what came of a study.

    Args:
        study: the study. Its policies have the same colours in all plots.

    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._looks = {
            name: {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKS[index % len(_MARKS)]}
            for index, name in enumerate(study.runs)
        }

    def lines(self, name: str, unit: str, *, log: bool = False) -> str:
        """A series of all policies over time, as SVG; "" where there is nothing to show."""
        found = {policy: self._study.series(policy, name) for policy in self._study.runs}
        shown = {policy: bands for policy, bands in found.items() if _tells(bands)}
        if not shown:
            return ""
        with _context(_STYLE):
            figure, axes = self._axes()
            step = next(iter(self._study.runs.values()))[0].step
            for policy, bands in shown.items():
                times = [index * step for index in range(len(bands))]
                look = self._looks[policy]
                axes.plot(
                    times,
                    [_drawn(band.median) for band in bands],
                    label=policy,
                    linewidth=1.6,
                    markersize=4,
                    markevery=max(1, len(times) // _MARKED_AT),
                    **look,
                )
                lows, highs = [_drawn(band.low) for band in bands], [_drawn(band.high) for band in bands]
                axes.fill_between(times, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
            if name == "answered":
                offered = [band.median for band in self._study.series(next(iter(shown)), "offered")]
                axes.plot([index * step for index in range(len(offered))], offered, color="#888888", linestyle=":", linewidth=1)
            self._shade(axes)
            if log:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.set_xlabel("seconds")
            axes.set_ylabel(unit)
            return _svg(figure, axes)

    def bars(self, *names: str) -> str:
        """Numbers of all policies, side by side, as SVG."""
        with _context(_STYLE):
            figure = Figure(figsize=(_WIDTH, _HEIGHT))
            figure.subplots_adjust(
                left=0.03 + _LETTER * max(map(len, self._looks)), right=0.98, top=0.97, bottom=0.17, wspace=0.08
            )
            for index, name in enumerate(names):
                axes: Any = figure.add_subplot(1, len(names), index + 1)
                for place, (policy, look) in enumerate(self._looks.items()):
                    band = self._study.band(policy, name)
                    error = [[band.median - band.low], [band.high - band.median]]
                    axes.barh(place, band.median, color=look["color"], xerr=error, height=0.6)
                axes.set_yticks(range(len(self._looks)), list(self._looks) if index == 0 else [""] * len(self._looks))
                axes.invert_yaxis()
                axes.set_xlabel(name)
            return _svg(figure)

    def hysteresis(self, sweeps: Sequence[Sweep]) -> str:
        """Goodput by load, rising and falling, as SVG."""
        with _context(_STYLE):
            figure, axes = self._axes()
            for sweep in sweeps:
                for rising in (True, False):
                    levels = [level for level in sweep.levels if level.rising is rising]
                    loads, goodput = [level.load for level in levels], [level.goodput for level in levels]
                    label, line = (sweep.policy, "-") if rising else (None, "--")
                    axes.plot(loads, goodput, line, label=label, linewidth=1.6, markersize=4, **self._looks[sweep.policy])
            axes.set_ylim(0, 1.05)
            axes.set_xlabel("load, as a share of the capacity")
            axes.set_ylabel("goodput")
            return _svg(figure, axes)

    def _axes(self) -> tuple[Figure, Any]:
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        figure.subplots_adjust(left=0.14, right=0.98, top=0.82, bottom=0.18)  # by hand: a layout engine takes half of the time
        return figure, figure.add_subplot()

    def _shade(self, axes: Any) -> None:
        for condition in self._study.scenario.conditions:
            axes.axvspan(condition.begin, condition.over, color="#999999", alpha=0.18, linewidth=0)


def _tells(bands: Sequence[Band]) -> bool:
    """Whether a line can be drawn, and is not at the bottom all the time."""
    return sum(math.isfinite(band.high) for band in bands) > 1 and any(band.high > 0 for band in bands)


def _drawn(number: float) -> float:
    return number if math.isfinite(number) else math.nan


def _svg(figure: Any, axes: Any = None) -> str:
    if axes is not None:
        handles, names = axes.get_legend_handles_labels()
        columns = len(names) if sum(map(len, names)) + _HANDLE * len(names) <= _LETTERS else math.ceil(len(names) / 2)
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, ncols=columns, columnspacing=1.2)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
