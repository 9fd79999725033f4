"""`just monitoring`: a real Prometheus watches three real nodes, and an operator, through faults.

First each query of the dashboard must find data. Then one fault after the other is made, and ended:
its alert must fire, and rest again. Ranges and waits of the rules are shortened to seconds, and
nothing else of them is changed.
"""

import base64
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jwt
import trio
import yaml

from noti.cli.children import Child
from noti.kubernetes.api import CHECKERS
from tests.interop.cluster import running_cluster
from tests.interop.faults import CLIENTS_MAX, FAULTS, NODES, Stage
from tests.interop.processes import (
    HOST,
    written,
)
from tests.interop.test_tls import Files
from tests.k8s.dashboard import queries
from tests.k8s.prometheus import program
from tests.k8s.rendering import CHART
from tests.kubernetes.stage import NS
from tests.kubernetes.test_process import scene
from tests.ports import free_port

RANGE_S = 20
WAIT_S = 4
"""What stands for the minutes of the rules."""
FIRES_WITHIN_S = 60.0


class Prometheus:
    """A server that scrapes nodes and an operator every second."""

    def __init__(self, path: Path, directory: Path, nodes: Sequence[str], operator: str) -> None:
        self.address = written((HOST, free_port()))
        rules = []
        for file in sorted((CHART / "rules").glob("*.yaml")):
            rules.append(directory / file.name)
            rules[-1].write_text(shortened(file.read_text()))
        scraped = {"noti": list(nodes), "noti-operator": [operator]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": targets}]}
                for job, targets in scraped.items()
            ],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            *(str(path), f"--config.file={directory / 'prometheus.yaml'}"),
            *(f"--storage.tsdb.path={directory / 'series'}", "--log.level=warn"),
            f"--web.listen-address={self.address}",
        ]
        self.child = Child("prometheus", command, directory / "prometheus.log")

    async def ask(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series that an expression has now."""
        async with httpx.AsyncClient() as http:
            url = f"http://{self.address}/api/v1/query"
            answer = (await http.get(url, params={"query": expression})).json()
        assert answer["status"] == "success", answer
        return [series["metric"] for series in answer["data"]["result"]]

    async def firing(self) -> set[str]:
        """Return the alerts that fire now."""
        found = await self.ask('ALERTS{alertstate="firing"}')
        return {labels["alertname"] for labels in found}

    async def until(self, alert: str, *, fires: bool) -> float | None:
        """Wait until an alert fires, or rests; return after how many seconds, None if never."""
        began = time.monotonic()
        while time.monotonic() - began < FIRES_WITHIN_S:
            if (alert in await self.firing()) is fires:
                return time.monotonic() - began
            await trio.sleep(0.5)
        return None


def shortened(rules: str) -> str:
    """Return rules that look at seconds where these look at minutes."""
    rules = re.sub(r"\[\d+[mh]\]", f"[{RANGE_S}s]", rules)
    return re.sub(r"^( +for:) \d+[mh]$", rf"\1 {WAIT_S}s", rules, flags=re.MULTILINE)


async def without_data(prometheus: Prometheus) -> list[str]:
    """Return the queries of the dashboard that find nothing."""
    empty = []
    for query in queries():
        expression = query.expression.replace("$__rate_interval", f"{RANGE_S}s")
        expression = expression.replace("$job", "noti").replace("$namespace", ".*")
        if not await prometheus.ask(expression.replace("$instance", ".*")):
            empty.append(f"{query}: {query.expression}")
    return empty


async def rehearse(stage: Stage, prometheus: Prometheus, alerts: Sequence[str]) -> list[str]:
    """Make faults; return what went otherwise than it should."""
    problems = []
    for alert in alerts:
        async with FAULTS[alert](stage):
            fired = await prometheus.until(alert, fires=True)
            others = sorted(await prometheus.firing() - {alert})
        rested = await prometheus.until(alert, fires=False)
        print(f"{alert}: {_in(fired, 'fires')}, {_in(rested, 'rests')}; beside it: {others}")
        if fired is None or rested is None:
            problems.append(alert)
    return problems


def _in(seconds: float | None, what: str) -> str:
    return f"never {what}" if seconds is None else f"{what} after {seconds:.0f} s"


@asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    """Run three nodes under load, with all that has metrics, and an operator."""
    files = Files(directory, *NODES)
    keys = directory / "gossip.keys"
    keys.write_text(base64.b64encode(bytes(range(32))).decode())
    keys.chmod(0o600)
    secret = "a secret of at least thirty-two bytes"
    (directory / "jwt.key").write_text(secret)
    settings = directory / "noti.toml"
    settings.write_text("sse_heartbeat_s = 10.0\n")
    flags = [
        *("--config", str(settings)),
        *("--gossip-key-file", str(keys), "--publisher-jwt-key-file", str(directory / "jwt.key")),
        *("--web-workers", "1", "--subscriptions", "--sse-clients-max", str(CLIENTS_MAX)),
    ]
    token = jwt.encode({"mercure": {"publish": ["*"]}}, secret, "HS256")
    async with (
        running_cluster(directory, lambda name: [*files.flags(name), *flags]) as cluster,
        scene(directory) as kubernetes,
    ):
        operator = kubernetes.operate("operator")
        yield Stage(cluster, files, kubernetes, operator, token, settings)


async def main(alerts: Sequence[str]) -> int:
    """Run it all; return the exit status."""
    path = program("prometheus")
    if path is None:
        print("NOT RUN: it needs Prometheus: apt-get install prometheus", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="noti-monitoring-") as name:
        directory = Path(name)
        async with staged(directory) as stage:
            nodes = [written(node.ops) for node in stage.cluster.nodes]
            prometheus = Prometheus(path, directory, nodes, written(stage.operator.ops))
            prometheus.child.start()
            try:
                await trio.sleep(5)
                for node in stage.cluster.nodes:
                    await stage.publish(node)
                stage.kubernetes.cluster.found(0)
                await trio.sleep(RANGE_S)
                empty = await without_data(prometheus)
                print(f"{len(queries())} queries of the dashboard, {len(empty)} without data")
                print("\n".join(empty))
                stage.kubernetes.server.delete(CHECKERS, NS, stage.kubernetes.cluster.name)
                problems = await rehearse(stage, prometheus, alerts)
                await trio.sleep(RANGE_S + WAIT_S)
                left = await prometheus.firing()
                print(f"fire in the end, without a fault: {sorted(left) or 'none'}")
            finally:
                with trio.CancelScope(shield=True):
                    await prometheus.child.stop(5)
    return 1 if empty or problems or left else 0


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:] or list(FAULTS)))
