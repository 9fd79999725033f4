"""Controllers: which pods there are, who is behind a service, which names they have."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from noti.ports import Address
from tests.interop.processes import get_json
from tests.interop.rehearsal.chart import NAMESPACE, Manifest, Rendered, selects
from tests.interop.rehearsal.machines import GATEWAY, Mount, Network
from tests.interop.rehearsal.pods import Pod

DOMAIN = f"{NAMESPACE}.svc.cluster.local"
RESOLVER = (
    f"nameserver {GATEWAY}\\nsearch {DOMAIN} svc.cluster.local cluster.local\\noptions ndots:5\\n"
)
"""What the kubelet writes into every pod's /etc/resolv.conf."""
ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ROLE, SERVES = "node-role.bb-noti.io/role", "node-role.bb-noti.io/serve-sse"
LABEL_EVERY_S = 0.25
READY_S_MAX = 60.0


class StatefulSet:
    """The pods of the rendered StatefulSet, and what follows from them."""

    def __init__(
        self,
        rendered: Rendered,
        network: Network,
        directory: Path,
        account: Path,
        api: Address,
        nursery: trio.Nursery,
    ) -> None:
        """Prepare; `account` holds the token with which pods may ask the API at `api`."""
        self.manifest = rendered.one("StatefulSet")
        self.name: str = self.manifest["metadata"]["name"]
        self.replicas: int = self.manifest["spec"]["replicas"]
        self.pods: dict[int, Pod] = {}
        self.past: list[Pod] = []
        self.watch: Callable[[], None] = lambda: None
        """Called whenever another pod may be behind a service."""
        self._rendered = rendered
        self._network = network
        self._directory = directory
        self._account = account
        self._api = api
        self._nursery = nursery
        self._lives: dict[int, trio.CancelScope] = {}

    # --- pods -------------------------------------------------------------------------------------

    async def start(self, number: int) -> Pod:
        """Start the pod of a number, with its disk and another address than it ever had."""
        template = self.manifest["spec"]["template"]
        name = f"{self.name}-{number}"
        variables = {
            "POD_NAMESPACE": NAMESPACE,
            "KUBERNETES_SERVICE_HOST": self._api[0],
            "KUBERNETES_SERVICE_PORT": str(self._api[1]),
        }
        pod = self.pods[number] = Pod(
            name,
            template,
            self._network,
            self._mounts(template, name),
            RESOLVER,
            variables,
            self._directory / f"{name}.log",
        )
        self.past.append(pod)
        await self._nursery.start(self._live, number, pod)
        return pod

    async def _live(self, number: int, pod: Pod, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._lives[number]:
            await pod.run(self.watch, task_status=task_status)

    async def stop(self, number: int) -> float:
        """Stop a pod in its grace period; return how long its preStop took, in seconds."""
        pod = self.pods[number]
        pre_stop_s = await pod.terminate()
        del self.pods[number]
        self._lives.pop(number).cancel()
        return pre_stop_s

    async def until_available(self, pod: Pod) -> None:
        """Return when a pod has been ready for as long as the StatefulSet wants."""
        wanted_s = self.manifest["spec"].get("minReadySeconds", 0)
        with trio.fail_after(READY_S_MAX):
            while True:
                await pod.ready.wait()
                ready = pod.ready
                await trio.sleep(wanted_s)
                if pod.ready is ready:
                    return

    def _mounts(self, template: Manifest, pod: str) -> list[Mount]:
        """Return what the container sees of its volumes, each made here as a directory."""
        [container] = template["spec"]["containers"]
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        mounts = [Mount(self._account, ACCOUNT_MOUNT, read_only=True)]
        assert template["spec"]["automountServiceAccountToken"]
        for mount in container["volumeMounts"]:
            source = self._directory / "volumes" / f"{pod}-{mount['name']}"
            source.mkdir(parents=True, exist_ok=True)
            match volumes.get(mount["name"]):
                case None:
                    claims = self.manifest["spec"]["volumeClaimTemplates"]
                    assert mount["name"] in [claim["metadata"]["name"] for claim in claims]
                case {"configMap": {"name": str(name)}}:
                    for file, text in self._rendered.one("ConfigMap", name)["data"].items():
                        (source / file).write_text(text)
                case other:
                    raise AssertionError(f"a volume that the rehearsal does not have: {other}")
            mounts.append(Mount(source, mount["mountPath"], mount.get("readOnly", False)))
        return mounts

    # --- services and names -----------------------------------------------------------------------

    def endpoints(self, service: str, port: int) -> list[Address]:
        """Return the ready pods behind a port of a service."""
        spec = self._rendered.one("Service", service)["spec"]
        [target] = [p["targetPort"] for p in spec["ports"] if p["port"] == port]
        return [
            (pod.address, pod.port(target))
            for pod in self.pods.values()
            if pod.is_ready and selects(spec["selector"], pod.labels)
        ]

    def addresses_of(self, name: str) -> list[str] | None:
        """Return the addresses of a name in DNS; None when there is no such name."""
        if name in (f"nats.{DOMAIN}", f"kubernetes.{DOMAIN}"):
            return [GATEWAY]
        service = self._rendered.one("Service", self.manifest["spec"]["serviceName"])
        assert service["spec"]["publishNotReadyAddresses"]
        headless = f"{service['metadata']['name']}.{DOMAIN}"
        if name == headless:
            return [pod.address for pod in self.pods.values()]
        return next(
            ([pod.address] for pod in self.pods.values() if name == f"{pod.name}.{headless}"), None
        )

    # --- what the operator does -------------------------------------------------------------------

    async def keep_labels(self) -> None:
        """Label pods with their roles, so that the follower service has the followers behind it.

        It is never empty: a leader that is alone serves too. Played here; the real operator, with
        its watches, its gRPC and its elections, is tested in tests/kubernetes.
        """
        while True:
            roles = {pod: await self._role(pod) for pod in list(self.pods.values()) if pod.is_ready}
            followers = [pod for pod, role in roles.items() if role not in (None, "leader")]
            for pod, role in roles.items():
                pod.labels[ROLE] = "leader" if role == "leader" else "follower"
                pod.labels[SERVES] = "true" if pod in followers or not followers else "false"
            self.watch()
            await trio.sleep(LABEL_EVERY_S)

    async def _role(self, pod: Pod) -> str | None:
        status = await self.status(pod)
        return None if status is None else str(status["role"])

    async def status(self, pod: Pod) -> Mapping[str, Any] | None:
        """Return what a pod's node says about itself, if it answers."""
        status: Mapping[str, Any] | None = await get_json((pod.address, pod.port("ops")), "/status")
        return status
