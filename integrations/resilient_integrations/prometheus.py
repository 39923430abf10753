"""Metrics for Prometheus.

    metrics = Metrics()
    add_listener(metrics)
    metrics.watch(transport, "payments")

`Metrics` is a listener that counts what happens, and a collector whose gauges are read at each scrape. Names, units and labels
are on the page on Prometheus, with a dashboard and rules for alerts. Needs the extra `prometheus`.

All mutable state: the metrics of the client, and the series of them that were found.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from resilient_integrations._telemetry.instruments import BUCKETS, INSTRUMENTS, Instrument
from resilient_integrations._telemetry.recorder import Recorder

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.metrics_core import GaugeMetricFamily
except ModuleNotFoundError as error:
    _MISSING: Final = "metrics for Prometheus need prometheus_client: pip install 'resilient-anyio[prometheus]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

__all__ = ("Metrics",)

_UNITS: Final = {"s": "_seconds"}
"""What a unit adds to a name; what is counted, and shares, add nothing."""


def _name(instrument: Instrument) -> str:
    """`resilience_call_duration_seconds` for `call.duration`. The client adds `_total` to counters by itself."""
    return f"resilience_{instrument.name.replace('.', '_')}{_UNITS.get(instrument.unit, '')}"


class Metrics(Recorder):
    """A listener that counts for Prometheus, and a collector of levels.

    Args:
        registry: where its metrics are registered (default: the registry of the process); None for nowhere.
        buckets: the bounds of its histograms, in seconds, ascending (default: 5 ms to 30 s).
        max_keys: how many keys are labels of their own, at least 1 (default 200); all others share `(others)`, and have no
            gauges.

    Raises:
        TypeError, ValueError: an argument is out of its range, or the registry has such metrics already.

    """

    def __init__(
        self,
        registry: CollectorRegistry | None = REGISTRY,
        *,
        buckets: Iterable[float] = BUCKETS,
        max_keys: int = 200,
    ) -> None:
        super().__init__(max_keys)
        bounds = tuple(buckets)
        self._metrics: dict[Instrument, Counter | Histogram] = {}
        for each in INSTRUMENTS:
            if each.kind == "counter":
                self._metrics[each] = Counter(_name(each), each.text, each.labels, registry=registry)
            elif each.kind == "histogram":
                self._metrics[each] = Histogram(_name(each), each.text, each.labels, registry=registry, buckets=bounds)
        self._series: dict[tuple[Instrument, tuple[str, ...]], Any] = {}  # looking one up in a metric takes longer than counting
        if registry is not None:
            registry.register(self)

    def _add(self, instrument: Instrument, labels: tuple[str, ...]) -> None:
        self._one(instrument, labels).inc()

    def _record(self, instrument: Instrument, value: float, labels: tuple[str, ...]) -> None:
        self._one(instrument, labels).observe(value)

    def _one(self, instrument: Instrument, labels: tuple[str, ...]) -> Any:
        """The series of these labels."""
        one = self._series.get((instrument, labels))
        if one is None:
            one = self._series[instrument, labels] = self._metrics[instrument].labels(*labels)
        return one

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without their values: a registry asks for their names."""
        return iter(self._families().values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, as they are now: a registry asks at each scrape."""
        families = self._families()
        for instrument, value, labels in self._read():
            families[instrument].add_metric(labels, value)
        return iter(families.values())

    def _families(self) -> dict[Instrument, GaugeMetricFamily]:
        return {
            each: GaugeMetricFamily(_name(each), each.text, labels=each.labels) for each in INSTRUMENTS if each.kind == "gauge"
        }
