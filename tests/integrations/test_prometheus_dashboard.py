"""The dashboard and the rules for alerts in `docs/prometheus/` name what there is: metrics, labels, and events."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from resilient.observe import events
from resilient.observe.events import HedgeResult
from resilient_integrations._telemetry.instruments import BREAKER_STATES, INSTRUMENTS
from resilient_integrations.prometheus import Metrics

PLACE: Final = Path(__file__).parent.parent.parent / "docs" / "prometheus"
DASHBOARD: Final[dict[str, Any]] = json.loads((PLACE / "dashboard.json").read_text())
RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load((PLACE / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def series() -> dict[str, set[str]]:
    """The names of all series, as Prometheus stores them, and their labels: from the metrics themselves."""
    registry = CollectorRegistry()
    metrics: Any = Metrics(registry)
    labels = {family.name: set(family._labelnames) for family in metrics.describe()}
    labels |= {each.describe()[0].name: set(each._labelnames) for each in metrics._metrics.values()}
    named: dict[str, set[str]] = {}
    for family in registry.collect():
        match family.type:
            case "counter":
                named[f"{family.name}_total"] = labels[family.name]
            case "histogram":
                named |= {f"{family.name}_{part}": labels[family.name] for part in ("count", "sum")}
                named[f"{family.name}_bucket"] = labels[family.name] | {"le"}
            case _:
                named[family.name] = labels[family.name]
    return named


SERIES: Final = series()
KNOWN_EVENTS: Final = (
    {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in events.__all__}
    | {f"breaker_{state}" for state in BREAKER_STATES}
    | {f"hedge_{result}" for result in get_args(HedgeResult)}
    | {"budget_allowed", "budget_denied"}
)


def panels() -> Iterator[tuple[str, str, str]]:
    """Each query of the dashboard: the title of its panel, the expression, and the legend."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]


QUERIES: Final = [
    *((title, expr, re.findall(r"{{\s*(\w+)\s*}}", legend)) for title, expr, legend in panels()),
    *((rule["alert"], rule["expr"], re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) for rule in RULES),
]
"""Of each query: where it is, the expression, and the labels that are shown of it."""


def nodes_of(expr: str) -> list[promql_parser.Expr]:
    """An expression taken apart as Prometheus does it. What Grafana puts in is stood in for."""
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expr.replace("$__rate_interval", "1m").replace("$key", ".*")), nodes.append)
    return nodes


def selectors_in(expr: str) -> list[promql_parser.VectorSelector]:
    """What an expression reads."""
    return [node for node in nodes_of(expr) if isinstance(node, promql_parser.VectorSelector)]


def names_in(expr: str) -> set[str]:
    """The metrics that an expression names."""
    return {str(selector.name) for selector in selectors_in(expr)}


def matchers_in(expr: str) -> list[tuple[str, str, str]]:
    """The metric, the label and the value of each matcher."""
    return [(str(each.name), matcher.name, matcher.value) for each in selectors_in(expr) for matcher in each.matchers.matchers]


def groups_in(expr: str) -> set[str]:
    """The labels by which an expression sums or joins."""
    labels: set[str] = set()
    for node in nodes_of(expr):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels |= {*node.modifier.labels}
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier and node.modifier.matching:
            labels |= {*node.modifier.matching.labels, *(node.modifier.group_labels or ())}
    return labels


@pytest.mark.parametrize(("where", "expr", "shown"), QUERIES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_metric_and_label_that_is_named_exists(where: str, expr: str, shown: list[str]) -> None:
    """A panel of a metric that is gone is empty for ever, and an alert on one never fires."""
    names = names_in(expr)
    assert names, where
    assert names - set(SERIES) == set()
    assert [(metric, label) for metric, label, _ in matchers_in(expr) if label not in SERIES[metric]] == []

    known = set[str]().union(*(SERIES[name] for name in names))
    assert groups_in(expr) - known == set()
    assert set(shown) - known == set()
    if groups_in(expr):
        assert set(shown) - groups_in(expr) == set()


@pytest.mark.parametrize(("where", "expr", "_shown"), QUERIES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_value_that_is_named_can_occur(where: str, expr: str, _shown: list[str]) -> None:
    """An event, a state, an outcome or a result that does not exist matches nothing."""
    values = {
        "event": KNOWN_EVENTS,
        "outcome": {"success", "degraded", "cancelled", "failure"},
        "result": {"reloaded", "refused", "unavailable"},
        "state": set(BREAKER_STATES),
    }
    matched = [(label, value) for _, label, value in matchers_in(expr) if label in values]

    assert [pair for pair in matched if not any(re.fullmatch(pair[1], each) for each in values[pair[0]])] == [], where


def test_every_metric_is_on_the_dashboard() -> None:
    """What is measured can be looked at."""
    shown = set[str]().union(*(names_in(expr) for _, expr, _ in panels()))

    assert {name for name in SERIES if not name.endswith(("_count", "_sum"))} - shown == set()


def test_every_metric_is_on_the_page() -> None:
    """Under both names, with its labels."""
    page = (PLACE.parent / "integrations" / "prometheus.md").read_text()
    other = (PLACE.parent / "integrations" / "opentelemetry.md").read_text()
    names = {name.removesuffix("_bucket") for name in SERIES if not name.endswith(("_count", "_sum"))}
    missing = [name for name in names if not re.search(rf"^\| `{name}` \|.*{labels_in_page(name)} \|", page, re.MULTILINE)]

    assert missing == []
    assert [each.name for each in INSTRUMENTS if f"`resilience.{each.name}`" not in other] == []


def labels_in_page(name: str) -> str:
    labels = next(each.labels for each in INSTRUMENTS if name.removeprefix("resilience_").startswith(each.name.replace(".", "_")))
    return ", ".join(f"`{label}`" for label in labels)


def test_every_alert_is_on_the_page() -> None:
    """With what to do about it."""
    page = (PLACE.parent / "integrations" / "prometheus.md").read_text()

    assert [rule["alert"] for rule in RULES if f"| `{rule['alert']}` |" not in page] == []


def test_panels_have_places_of_their_own() -> None:
    """Grafana refuses twins, and draws over what overlaps."""
    all_panels = DASHBOARD["panels"]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in all_panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    assert len(cells) == len(set(cells))
