"""What Grafana's dashboard asks Prometheus for.

Enters: the file that the chart ships. Leaves: its panels and queries. Never: Grafana.
"""

import json
from functools import cache
from typing import Any, NamedTuple

from tests.k8s.rendering import CHART

FILE = CHART / "dashboards" / "noti.json"


class Query(NamedTuple):
    """One of a panel's."""

    panel: str
    expression: str
    legend: str

    def __str__(self) -> str:
        return f"{self.panel}: {self.legend}"


@cache
def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FILE.read_text())["panels"]
    return found


def queries() -> list[Query]:
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in panels()
        for target in panel.get("targets", [])
    ]
