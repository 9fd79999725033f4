"""Each alert fires at what it is for and at nothing else, and an operator finds what to do."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.alert_cases import AFTER, CASES, ILL, WELL
from tests.k8s.prometheus import program
from tests.k8s.rendering import CHART, Manifest, rendered_with, the
from tests.readmes import metric_list

RULES = sorted((CHART / "rules").glob("*.yaml"))
JOBS = {"noti.yaml": "noti", "operator.yaml": "noti-operator"}
RUNBOOK = CHART.parent / "runbook.md"
README = CHART.parents[1] / "noti" / "README.md"


def alerts(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for group in manifest["groups"]:
        yield from group["rules"]


SHIPPED = {path: list(alerts(yaml.safe_load(path.read_text()))) for path in RULES}
NAMES = [rule["alert"] for rules in SHIPPED.values() for rule in rules]


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must find no fault, and return what it says."""
    path = program("promtool")
    assert path is not None
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    """As they are shipped, and as the chart makes them."""
    made = rendered_with("monitoring.prometheusRule.enabled=true")
    file = tmp_path / "made.yaml"
    file.write_text(yaml.safe_dump(the(made, "PrometheusRule")["spec"]))
    assert "SUCCESS" in promtool("check", "rules", file, *RULES)


@pytest.mark.prometheus
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_each_alert_rests_then_fires_then_rests_again(path: Path, tmp_path: Path) -> None:
    tests = []
    for rule in SHIPPED[path]:
        job = f'job="{JOBS[path.name]}"'
        series = [
            {"series": _with_label(name, job), "values": values}
            for name, values in CASES[rule["alert"]].items()
        ]
        counts = f'count(ALERTS{{alertname="{rule["alert"]}", alertstate="firing"}}) or vector(0)'
        expected = {WELL - 1: 0, WELL + ILL - 1: 1, WELL + ILL + AFTER - 1: 0}
        asked = [
            {"expr": counts, "eval_time": f"{minute}m", "exp_samples": [{"value": firing}]}
            for minute, firing in expected.items()
        ]
        tests.append(
            {
                "name": rule["alert"],
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": asked,
            }
        )
    file = tmp_path / "tests.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(path)], "evaluation_interval": "5m", "tests": tests})
    )
    promtool("test", "rules", file)


def _with_label(name: str, label: str) -> str:
    metric, _, labels = name.partition("{")
    return f"{metric}{{{label}, {labels or '}'}"


def test_every_alert_has_a_case() -> None:
    assert sorted(CASES) == sorted(NAMES)


@pytest.mark.parametrize("rule", [rule for rules in SHIPPED.values() for rule in rules], ids=NAMES)
def test_every_alert_says_how_bad_it_is_and_where_help_is(rule: Manifest) -> None:
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"].endswith(".")
    anchor = rule["alert"].lower()
    assert rule["annotations"]["runbook_url"] == f"k8s/runbook.md#{anchor}"


def test_the_runbook_has_each_alert_and_no_other() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE) == NAMES


def test_alerts_that_pages_name_exist() -> None:
    for page in (RUNBOOK, README):
        assert set(re.findall(r"`(Noti[A-Z]\w+)`", page.read_text())) <= set(NAMES)


def test_an_alert_of_the_chart_is_about_its_release_only() -> None:
    made = rendered_with("monitoring.prometheusRule.enabled=true")
    for rule in alerts(the(made, "PrometheusRule")["spec"]):
        asked = len(re.findall(r"noti_\w+", rule["expr"]))
        own = rule["expr"].count('namespace="events",service="demo-noti-headless"')
        assert asked == own + rule["expr"].count('job="events/demo-noti-operator"')
        assert rule["labels"]["namespace"] == "events"


def test_the_operators_alerts_are_left_out_without_an_operator() -> None:
    made = rendered_with("monitoring.prometheusRule.enabled=true", "operator.enabled=false")
    groups = the(made, "PrometheusRule")["spec"]["groups"]
    assert not [group for group in groups if group["name"] == "noti-operator"]


def test_the_runbook_is_where_the_values_say() -> None:
    made = rendered_with(
        "monitoring.prometheusRule.enabled=true",
        "monitoring.prometheusRule.runbookUrl=https://wiki.example.com/noti",
    )
    for rule in alerts(the(made, "PrometheusRule")["spec"]):
        url = rule["annotations"]["runbook_url"]
        assert url == f"https://wiki.example.com/noti#{rule['alert'].lower()}"


def test_series_that_an_alert_compares_are_of_the_same_streams() -> None:
    """`and`, `or` and `unless` find nothing where only one side has the label."""
    metrics = " ".join(metric_list()).split("- `noti_")[1:]
    by = {f"noti_{one.partition('`')[0]}": "`stream`" in one.partition(":")[0] for one in metrics}
    compared = 0
    for rules in SHIPPED.values():
        for rule in rules:
            if "by (stream)" in rule["expr"]:
                names = set(re.findall(r"\bnoti_\w+", rule["expr"]))
                compared += len(names) > 1
                assert len({by[name] for name in names}) == 1, rule["alert"]
    assert compared >= 1
