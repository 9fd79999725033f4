"""Grafana's dashboard asks for what nodes and the operator have, and the chart ships it whole."""

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from tests.http.stage import client
from tests.interop.processes import running_node
from tests.k8s.dashboard import FILE, Query, panels, queries
from tests.k8s.rendering import rendered_with, the
from tests.k8s.test_alerts import SHIPPED, promtool
from tests.publishing.nats.nats_server import nats_server
from tests.readmes import metric_list

OURS = re.compile(r"- `(\w+)`(?: by ([^:]*))?:")
OF_PROMETHEUS = {"ALERTS"}
WITH_ALL_PARTS = ("--web-workers", "1", "--jwks-url", "https://127.0.0.1:1/none")
"""Their metrics come with them."""


@cache
def labels_by_metric() -> dict[str, set[str]]:
    """Return the labels of each metric, as the code declares them."""
    found = {}
    for item in re.split(r"\n(?=- )", "\n".join(metric_list())):
        match = OURS.match(" ".join(item.split()))
        assert match is not None
        found[match[1]] = set(re.findall(r"\w+", match[2] or ""))
    return found


def metrics_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of an expression, with the labels that it is selected by."""
    for name, selected in re.findall(r"\b((?:noti|process)_\w+|ALERTS)\b(\{[^}]*\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selected))


def family_of(metric: str) -> str:
    return metric.removesuffix("_bucket")


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_panel_asks_for_labels_that_its_metrics_have(query: Query) -> None:
    labels = labels_by_metric()
    grouped = set()
    for names in re.findall(r"\bby \(([^)]*)\)", query.expression):
        grouped |= set(names.split(", "))
    shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    everywhere = {"namespace", "job", "instance"}
    known = set(everywhere)
    for metric, selected in metrics_in(query.expression):
        if metric.startswith("noti_"):
            own = labels[family_of(metric)]
            assert selected - everywhere <= own, metric
            known |= own
    assert (grouped - {"le"}) | shown <= known


@pytest.mark.interop
async def test_panels_and_alerts_ask_for_metrics_of_a_real_node(tmp_path: Path) -> None:
    """And of the operator, as the code declares them: it needs Kubernetes to run."""
    async with (
        nats_server(tmp_path / "nats") as nats,
        running_node(tmp_path, "--nats-url", nats.url, *WITH_ALL_PARTS) as node,
        client(node.ops) as http,
    ):
        await http.request("/metrics")
        text = await http.read_all()
    there = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    there |= {name for name in labels_by_metric() if name.startswith("noti_operator_")}
    expressions = [query.expression for query in queries()]
    expressions += [rule["expr"] for rules in SHIPPED.values() for rule in rules]
    asked = {family_of(name) for each in expressions for name, _ in metrics_in(each)}
    assert len(asked) > 60
    assert asked - there == OF_PROMETHEUS


@pytest.mark.prometheus
def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.expression.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", file)


def test_panels_stand_side_by_side() -> None:
    """Each has a number and a place of its own, and an explanation where its title is none."""
    shown = panels()
    assert len({panel["id"] for panel in shown}) == len(shown) > 50
    cells = [(panel["title"], _cells(panel["gridPos"])) for panel in shown]
    for (one, taken), (other, wanted) in combinations(cells, 2):
        assert not taken & wanted, (one, other)


def _cells(place: dict[str, int]) -> set[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    across = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in across for y in range(place["y"], place["y"] + place["h"])}


def test_the_chart_ships_the_dashboard_as_it_is() -> None:
    """Grafana's own placeholders look like those of Helm."""
    made = rendered_with("monitoring.dashboards.enabled=true", "monitoring.dashboards.namespace=g")
    shipped = the(made, "ConfigMap", "-dashboards")
    assert json.loads(shipped["data"]["noti.json"]) == json.loads(FILE.read_text())
    assert shipped["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert shipped["metadata"]["namespace"] == "g"
