"""A report: one HTML file with tables and plots that needs no other file and no network. It needs the extra `simulate`.

Plots are drawn as SVG, so they are sharp on a phone and in print; their colours can be told apart without seeing red and green.
A line is the median of all seeds, the band around it goes from the least to the greatest; what is grey is the disturbance.
"""

import html
from collections.abc import Sequence
from typing import Final

from resilient.simulation.measures import MEASURES
from resilient.simulation.plots import Plots
from resilient.simulation.study import Study
from resilient.simulation.sweep import Sweep
from resilient.simulation.text import rows, sweep_line, value

__all__ = ("report",)

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.2; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .3rem; break-after: avoid; }}
p {{ max-width: 45rem; }}
.note {{ color: #666; font-size: .9rem; }}
figure {{ margin: 0; break-inside: avoid; }}
figure svg {{ width: 100%; max-width: 42rem; height: auto; display: block; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0; background: #fff; }}
td:first-child small {{ color: #666; display: block; white-space: normal; min-width: 11rem; }}
ul.claims {{ list-style: none; padding: 0; }}
.holds::before {{ content: "\\2713\\00a0"; color: #00734d; font-weight: bold; }}
.fails::before {{ content: "\\2717\\00a0"; color: #b34700; font-weight: bold; }}
code {{ font-size: .9em; }}
@media print {{
  :root {{ font-size: 11px; }} body, p {{ max-width: none; }} body {{ padding: 0; }}
  tr {{ break-inside: avoid; }} .table {{ overflow: visible; }} th, td {{ white-space: normal; }}
}}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{about}</p>
<p class="note">{note}</p>
{body}
</body>
</html>
"""


def report(study: Study, sweeps: Sequence[Sweep] = ()) -> str:
    """The report as the text of an HTML file.

    Args:
        study: what it tells of.
        sweeps: hysteresis sweeps of the same policies.

    """
    scenario = study.scenario
    seeds = len(next(iter(study.runs.values())))
    simulated = sum(run.simulated for runs in study.runs.values() for run in runs)
    many = f", each with the seeds 1 to {seeds}: lines and numbers are medians, bands the least and the greatest" * (seeds > 1)
    note = (
        f"Scenario {scenario.name}: {scenario.seconds:g} seconds of virtual time for each of {len(study.runs)} policies{many}. "
        f"{simulated:,} requests were simulated, with the real strategies."
        f"{' What is grey is the disturbance.' if scenario.conditions else ''}"
    )
    parts = [*_claims(study), *_figures(study, sweeps), *_sweeps(sweeps), "<h2>All numbers</h2>", _table(study)]
    return _PAGE.format(
        title=html.escape(scenario.title or scenario.name),
        about=html.escape(scenario.about.strip()),
        note=html.escape(note),
        body="\n".join(parts),
    )


def _claims(study: Study) -> list[str]:
    if not study.claims:
        return []
    lines = [
        f'<li class="{"holds" if claim.holds else "fails"}"><code>{html.escape(claim.claim)}</code> '
        f'<span class="note">{_found(claim.left)} against {_found(claim.right)}</span></li>'
        for claim in study.claims
    ]
    return ["<h2>What it shows</h2>", f'<ul class="claims">{"".join(lines)}</ul>']


def _found(number: float) -> str:
    return value(number, "")


def _figures(study: Study, sweeps: Sequence[Sweep]) -> list[str]:
    plots = Plots(study)
    shown = [
        ("Goodput", "Good answers, a second; dotted: the calls that were made.", plots.lines("answered", "calls / s")),
        ("Load", "Requests that reached the most loaded service, a second.", plots.lines("attempts", "requests / s")),
        ("Latency", "Of calls with an answer, 99th percentile.", plots.lines("p99", "seconds", log=True)),
        ("Waiting", "Requests in the longest queue.", plots.lines("queue", "requests")),
        ("Wasted work", "Work for requests that nobody waited for any more.", plots.lines("wasted", "share of the work")),
        ("Breakers", "Share of the breakers that were not closed.", plots.lines("open", "share")),
        ("Budgets", "Retries that the poorest budget would still have paid for.", plots.lines("budget", "retries")),
        ("Amplification and goodput", "Over the whole run.", plots.bars("amplification", "goodput")),
        ("Time", "Seconds that calls took, whatever their end: on average, and 99 of 100.", plots.bars("wait", "wait_p99")),
    ]
    told = [_figure(*each) for each in shown if each[2]]
    if sweeps:
        about = "Each load in its turn: rising (full line), then falling (dashed). Where the two differ both states are stable."
        told.append(_figure("Hysteresis", about, plots.hysteresis(sweeps)))
    return told


def _figure(title: str, about: str, svg: str) -> str:
    return f'<figure>\n<h2>{title}</h2>\n<p class="note">{about}</p>\n{svg}\n</figure>'


def _sweeps(sweeps: Sequence[Sweep]) -> list[str]:
    if not sweeps:
        return []
    return [f"<ul>{''.join(f'<li>{html.escape(sweep_line(sweep))}</li>' for sweep in sweeps)}</ul>"]


def _table(study: Study) -> str:
    header, *body = rows(study)
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines: list[str] = []
    for name, *cells in body:
        label = f"<td>{name}<small>{html.escape(MEASURES[name].about)}</small></td>"
        lines.append(f"<tr>{label}{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
