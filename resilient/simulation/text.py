"""Results as text and as plain data: rows of strings for tables, and what goes into JSON."""

import math
from collections.abc import Sequence
from typing import Any, Final

from resilient.simulation.claims import Verification
from resilient.simulation.measures import MEASURES
from resilient.simulation.study import Band, Study
from resilient.simulation.sweep import Sweep

__all__ = ("as_data", "claim_line", "rows", "sweep_line", "sweep_rows", "value")

_VERSION: Final = 1  # of the shape of the data
_ZERO_IS_NOTHING: Final = {"rejected", "degraded", "flaps", "hedges", "queue_peak", "wasted"}


def value(number: float, unit: str) -> str:
    """A number with its unit; a dash where it makes no sense."""
    if math.isnan(number):
        return "-"
    if math.isinf(number):
        return "never"
    if unit == "share":
        return f"{100 * number:.1f} %"
    text = f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004  three digits either way
    return f"{text} s" if unit == "s" else text


def _shown(band: Band, unit: str, *, bands: bool) -> str:
    if not bands or band.low == band.high or math.isnan(band.median):
        return value(band.median, unit)
    low, high = value(band.low, unit), value(band.high, unit)
    return f"{value(band.median, unit)} ({low.removesuffix(' %').removesuffix(' s')} – {high})"


def rows(study: Study, *, bands: bool = True) -> list[tuple[str, ...]]:
    """A table of all that makes sense: first a header, then a row for each number, with a column for each policy.

    With several seeds a cell holds the median, and with `bands` in brackets the least and the greatest.
    """
    table: list[tuple[str, ...]] = [("", *study.runs)]
    for name, measure in MEASURES.items():
        cells = [study.band(policy, name) for policy in study.runs]
        nothing = all(math.isnan(band.median) or (not band.high and name in _ZERO_IS_NOTHING) for band in cells)
        if not nothing:
            table.append((name, *(_shown(band, measure.unit, bands=bands) for band in cells)))
    return table


def claim_line(claim: Verification) -> str:
    """What became of a claim, in one line."""
    found = "" if claim.holds else f"   (found: {claim.left:.4g} against {claim.right:.4g})"
    return f"{'holds' if claim.holds else 'FAILS'}  {claim.claim}{found}"


def sweep_line(sweep: Sweep) -> str:
    """Where it collapses and recovers, in one line."""
    if math.isinf(sweep.collapse):
        return f"{sweep.policy}: no collapse up to {max(level.load for level in sweep.levels):.0%} of the capacity"
    back = f"is well again at {sweep.recovery:.0%}" if sweep.recovery else "is never well again"
    region = sweep.metastable
    end = "" if region is None else f"; metastable {f'from {region[0]:.0%} to' if region[0] else 'below'} {region[1]:.0%}"
    return f"{sweep.policy}: collapses at {sweep.collapse:.0%} of the capacity, {back}{end}"


def sweep_rows(sweeps: Sequence[Sweep]) -> list[tuple[str, ...]]:
    """A table of goodput by load, with two columns for each policy: the load rises, and falls."""
    loads = sorted({level.load for sweep in sweeps for level in sweep.levels})
    found = {(sweep.policy, level.load, level.rising): level.goodput for sweep in sweeps for level in sweep.levels}
    table: list[tuple[str, ...]] = [("load", *(f"{sweep.policy}, {way}" for sweep in sweeps for way in ("rising", "falling")))]
    for load in loads:
        cells = [
            value(found.get((sweep.policy, load, rising), math.nan), "share") for sweep in sweeps for rising in (True, False)
        ]
        table.append((f"{load:.0%}", *cells))
    return table


def as_data(study: Study, sweeps: Sequence[Sweep] = ()) -> dict[str, Any]:
    """All of it as plain data for JSON. What makes no sense, or never happened, is None."""
    return {
        "version": _VERSION,
        "scenario": study.scenario.name,
        "seeds": [run.seed for run in next(iter(study.runs.values()))],
        "policies": {
            policy: {
                "measures": {name: _plain_band(study.band(policy, name)) for name in MEASURES},
                "series": {name: [_plain(band.median) for band in study.series(policy, name)] for name in runs[0].series},
                "step": runs[0].step,
            }
            for policy, runs in study.runs.items()
        },
        "claims": [
            {"claim": claim.claim, "holds": claim.holds, "left": _plain(claim.left), "right": _plain(claim.right)}
            for claim in study.claims
        ],
        "sweeps": [
            {
                "policy": sweep.policy,
                "collapse": _plain(sweep.collapse),
                "recovery": sweep.recovery,
                "metastable": sweep.metastable,
                "levels": [level._asdict() for level in sweep.levels],
            }
            for sweep in sweeps
        ],
        "passed": study.passed,
    }


def _plain(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _plain_band(band: Band) -> dict[str, float | None]:
    return {name: _plain(number) for name, number in band._asdict().items()}
