"""Controllers: which pods there are, who is behind a service, which names they have."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from noti.address import Address
from tests.interop.processes import get_json
from tests.interop.rehearsal.apiserver import ClusterApi
from tests.interop.rehearsal.chart import NAMESPACE, Manifest, Rendered, selects
from tests.interop.rehearsal.machines import GATEWAY, Mount, Network
from tests.interop.rehearsal.pods import Pod

DOMAIN = f"{NAMESPACE}.svc.cluster.local"
RESOLVER = (
    f"nameserver {GATEWAY}\\nsearch {DOMAIN} svc.cluster.local cluster.local\\noptions ndots:5\\n"
)
"""What the kubelet writes into every pod's /etc/resolv.conf."""
ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
API_ADDRESS = (GATEWAY, 6443)
KEY_VARIABLES = ("NOTI_GOSSIP_KEY_FILE", "NOTI_GOSSIP_ENCRYPTION")
READY_S_MAX = 60.0


class Controllers:
    """The pods of the rendered StatefulSet and Deployment, and what follows from them."""

    def __init__(
        self,
        rendered: Rendered,
        network: Network,
        api: ClusterApi,
        directory: Path,
        nursery: trio.Nursery,
    ) -> None:
        """Prepare; nothing runs yet."""
        self.stateful_set: Manifest = {}
        self._variables: list[Manifest] = []
        self.take(rendered)
        self.name: str = self.stateful_set["metadata"]["name"]
        self.nodes: dict[int, Pod] = {}
        """The StatefulSet's pods, by their numbers."""
        self.past: list[Pod] = []
        """All lives of all pods."""
        self.changed: Callable[[], None] = lambda: None
        """Called whenever another pod may be behind a service."""
        self._network = network
        self._api = api
        self._directory = directory
        self._nursery = nursery
        self._lives: dict[Pod, trio.CancelScope] = {}
        self._operator: Pod | None = None
        self._generation = 0
        api.server.on_write = lambda _resource, _name: self.changed()

    def take(self, rendered: Rendered) -> None:
        """Make pods of this from now on."""
        self._rendered = rendered
        self.stateful_set = rendered.one("StatefulSet")
        [container] = self.stateful_set["spec"]["template"]["spec"]["containers"]
        self._variables = container["env"]

    # --- pods -------------------------------------------------------------------------------------

    def set_gossip(self, step: str) -> None:
        """Have pods that start from now on encrypt so: `plain` for no key, or as the chart says."""
        [container] = self.stateful_set["spec"]["template"]["spec"]["containers"]
        if step == "plain":
            kept = [one for one in self._variables if one["name"] not in KEY_VARIABLES]
            container["env"] = [*kept, {"name": "NOTI_GOSSIP_INSECURE", "value": "true"}]
        else:
            container["env"] = [
                {**one, "value": step} if one["name"] == KEY_VARIABLES[1] else one
                for one in self._variables
            ]

    async def start_node(self, number: int) -> Pod:
        """Start the pod of a number, with its disk and another address than it ever had."""
        pod = await self._start(f"{self.name}-{number}", self.stateful_set, owner=self.name)
        self.nodes[number] = pod
        return pod

    async def stop_node(self, number: int) -> float:
        """Stop a pod in its grace period; return how long its preStop took, in seconds."""
        pod = self.nodes[number]
        pre_stop_s = await self._stop(pod)
        del self.nodes[number]
        return pre_stop_s

    async def _stop(self, pod: Pod) -> float:
        self._api.pod_terminating(pod.name)
        pre_stop_s = await pod.terminate()
        self._lives.pop(pod).cancel()
        self._api.pod_deleted(pod.name)
        return pre_stop_s

    async def start_deployment(self) -> Pod:
        """Start the pod of the Deployment: the operator."""
        deployment = self._rendered.one("Deployment")
        assert deployment["spec"]["replicas"] == 1
        self._generation += 1
        name = f"{deployment['metadata']['name']}-{self._generation}-x2x4z"
        self._operator = await self._start(name, deployment)
        return self._operator

    async def roll_deployment(self) -> None:
        """Replace the operator by another one, when that is ready."""
        old = self._operator
        assert old is not None
        new = await self.start_deployment()
        await self.until_available(new, 0)
        await self._stop(old)

    async def until_available(self, pod: Pod, wanted_s: float) -> None:
        """Return when a pod has been ready for so long."""
        with trio.fail_after(READY_S_MAX):
            while True:
                await pod.ready.wait()
                ready = pod.ready
                await trio.sleep(wanted_s)
                if pod.ready is ready:
                    return

    async def _start(self, name: str, workload: Manifest, owner: str | None = None) -> Pod:
        template = workload["spec"]["template"]
        variables = {
            "KUBERNETES_SERVICE_HOST": API_ADDRESS[0],
            "KUBERNETES_SERVICE_PORT": str(API_ADDRESS[1]),
        }
        mounts = self._mounts(workload, name)
        log = self._directory / f"{name}.log"
        pod = Pod(name, template, self._network, mounts, RESOLVER, variables, log)
        self.past.append(pod)
        self._api.pod_created(name, template, pod.address, owner)
        await self._nursery.start(self._live, pod)
        return pod

    async def _live(self, pod: Pod, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._lives[pod]:
            await pod.run(lambda: self._note_readiness(pod), task_status=task_status)

    def _note_readiness(self, pod: Pod) -> None:
        self._api.pod_ready(pod.name, pod.address, ready=pod.is_ready)
        self.changed()

    def _mounts(self, workload: Manifest, pod: str) -> list[Mount]:
        """Return what the container sees of its volumes, each made here as a directory."""
        spec = workload["spec"]["template"]["spec"]
        [container] = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounts = []
        if spec["automountServiceAccountToken"]:
            account = self._api.account(spec["serviceAccountName"])
            mounts.append(Mount(account, ACCOUNT_MOUNT, read_only=True))
        for mount in container.get("volumeMounts", []):
            source = self._directory / "volumes" / f"{pod}-{mount['name']}"
            source.mkdir(parents=True, exist_ok=True)
            match volumes.get(mount["name"]):
                case None:
                    claims = workload["spec"]["volumeClaimTemplates"]
                    assert mount["name"] in [claim["metadata"]["name"] for claim in claims]
                case {"emptyDir": _}:
                    pass
                case {"configMap": {"name": str(name)}}:
                    for file, text in self._rendered.one("ConfigMap", name)["data"].items():
                        (source / file).write_text(text)
                case {"secret": {"secretName": str(name)} as secret}:
                    data = self._rendered.one("Secret", name)["data"]
                    for item in secret.get("items", [{"path": key, "key": key} for key in data]):
                        (source / item["path"]).write_bytes(b64decode(data[item["key"]]))
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
            for pod in self.nodes.values()
            if pod.is_ready and selects(spec["selector"], self._api.labels_of(pod.name))
        ]

    def addresses_of(self, name: str) -> list[str] | None:
        """Return the addresses of a name in DNS; None when there is no such name."""
        if name in (f"nats.{DOMAIN}", f"kubernetes.{DOMAIN}"):
            return [GATEWAY]
        service = self._rendered.one("Service", self.stateful_set["spec"]["serviceName"])
        assert service["spec"]["publishNotReadyAddresses"]
        headless = f"{service['metadata']['name']}.{DOMAIN}"
        if name == headless:
            return [pod.address for pod in self.nodes.values()]
        return next(
            ([pod.address] for pod in self.nodes.values() if name == f"{pod.name}.{headless}"), None
        )

    async def status(self, pod: Pod) -> Mapping[str, Any]:
        """Return what a pod's node says about itself."""
        status: Mapping[str, Any] | None = await get_json((pod.address, pod.port("ops")), "/status")
        assert status is not None, f"{pod.name} does not answer"
        return status
