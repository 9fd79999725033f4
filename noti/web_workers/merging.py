"""Adds up the metrics of a node and of its web workers, as if all were one process.

Enters: what each process has measured. Leaves: the same of all together.
Never: I/O; a counter that falls when a worker ends.

Counters and histograms are added up. So are gauges, which are amounts as a rule; those that are
not are named here.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LARGEST: Final = frozenset(
    {
        "noti_build_info",
        "noti_presence_subscriptions",
        "noti_streams_backlog_bytes_max",
        "noti_streams_pressure",
        "python_info",
    }
)
"""Gauges of which the largest counts."""
SMALLEST: Final = frozenset({"noti_tls_certificate_expiry_seconds", "process_start_time_seconds"})
"""Gauges of which the smallest counts."""
SUMS: Final = frozenset({"counter", "histogram", "summary"})
"""Kinds that only grow."""
CREATED: Final = "_created"
"""Ends the sample of such a metric that says since when it counts."""

Sample: TypeAlias = tuple[str, dict[str, str], float]
"""Its name, labels, and value."""


class Family(NamedTuple):
    """A metric with all its samples."""

    name: str
    kind: str
    text: str
    """What it is, for people."""
    samples: list[Sample]


def families_of(registry: Collector) -> list[Family]:
    """Return what a registry has now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(one.name, dict(one.labels), float(one.value)) for one in metric.samples],
        )
        for metric in registry.collect()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """Return what still counts of a process that has ended."""
    return [
        family._replace(samples=[one for one in family.samples if not one[0].endswith(CREATED)])
        for family in families
        if family.kind in SUMS
    ]


def merged(
    processes: Iterable[Iterable[Family]], bounds: Mapping[str, float] | None = None
) -> list[Family]:
    """Return the metrics of several processes as those of one.

    `bounds` are the most that some gauges may be, by their names.
    """
    kinds: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for families in processes:
        for family in families:
            kinds.setdefault(family.name, family)
            mine = values.setdefault(family.name, {})
            for name, labels, value in family.samples:
                key = (name, tuple(labels.items()))
                before = mine.get(key)
                mine[key] = value if before is None else _joined(family, name, before, value)
    most = bounds or {}
    return [
        family._replace(
            samples=[
                (sample, dict(labels), min(value, most.get(name, value)))
                for (sample, labels), value in values[name].items()
            ]
        )
        for name, family in kinds.items()
    ]


def _joined(family: Family, sample: str, one: float, other: float) -> float:
    if family.name in SMALLEST or (family.kind in SUMS and sample.endswith(CREATED)):
        return min(one, other)
    if family.name in LARGEST:
        return max(one, other)
    return one + other


class MergedRegistry(Collector):
    """Metrics as `prometheus_client` writes them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric
