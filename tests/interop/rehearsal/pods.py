"""Pods: a container's process in its sandbox, probed, and stopped as the kubelet does it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import trio

from tests.interop.rehearsal.chart import NAMESPACE, Manifest, arguments, environment
from tests.interop.rehearsal.machines import Mount, Network, Sandbox

IMAGE_PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
"""Where the image has `noti`."""
PROBE_DEFAULTS = {
    "initialDelaySeconds": 0,
    "periodSeconds": 10,
    "timeoutSeconds": 1,
    "failureThreshold": 3,
    "successThreshold": 1,
}
"""Those of Kubernetes, for what a probe leaves open."""
SHOWN_LINES = 30


class Pod:
    """One life of one pod of a StatefulSet: it has an address that no other life had."""

    def __init__(
        self,
        name: str,
        template: Manifest,
        network: Network,
        mounts: Sequence[Mount],
        resolver: str,
        variables: Mapping[str, str],
        log: Path,
    ) -> None:
        """Prepare. `variables` are those that Kubernetes sets in every container."""
        self.name = name
        self.address = network.next_address()
        self.ready = trio.Event()
        self.terminating = False
        self.problems: list[str] = []
        """What the kubelet would have written events about."""
        self._spec: Manifest = template["spec"]
        [self._container] = self._spec["containers"]
        fields = {
            "metadata.name": name,
            "metadata.namespace": NAMESPACE,
            "status.podIP": self.address,
        }
        own = environment(self._container, fields)
        self._environment = {"PATH": IMAGE_PATH, "HOME": "/", **variables, **own}
        self._network = network
        self._sandbox = Sandbox(name, mounts, resolver)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._changed: Callable[[], None] = lambda: None

    @property
    def is_ready(self) -> bool:
        """Whether services may send anybody here."""
        return self.ready.is_set() and not self.terminating

    def port(self, wanted: int | str) -> int:
        """Return a port of the container by its name, or the number that it is."""
        if isinstance(wanted, int):
            return wanted
        [found] = [p["containerPort"] for p in self._container["ports"] if p["name"] == wanted]
        return int(found)

    async def run(
        self,
        changed: Callable[[], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start it and probe it until cancelled; `changed` is called when its readiness changes.

        Whatever happens, nothing of it is left afterwards.
        """
        self._changed = changed
        try:
            await self._sandbox.open()
            await self._network.connect(self._sandbox.pid, self.address)
            self._process = self._spawn(arguments(self._container, self._environment))
            task_status.started()
            await self._probe("startupProbe", until_good=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_readiness)
                nursery.start_soon(self._watch_liveness)
        finally:
            self._kill()
            await self._sandbox.close()

    async def terminate(self) -> float:
        """Stop it as the kubelet does; return how many seconds its preStop took.

        The grace period counts from the beginning of preStop; at its end comes SIGKILL.
        """
        self.terminating = True
        self._changed()
        assert self._process is not None
        asked_at, pre_stop_s = trio.current_time(), 0.0
        grace_s = self._spec["terminationGracePeriodSeconds"]
        with trio.move_on_after(grace_s):
            if hook := self._container.get("lifecycle", {}).get("preStop"):
                status = await self._wait_for(self._spawn(hook["exec"]["command"]))
                pre_stop_s = trio.current_time() - asked_at
                if status != 0:
                    self.problems.append(f"{self.name}: FailedPreStopHook, status {status}")
            self._process.send_signal(signal.SIGTERM)
            status = await self._wait_for(self._process)
            if status != 0:
                self.problems.append(f"{self.name}: ended with status {status}")
        if self._process.poll() is None:
            self.problems.append(f"{self.name}: killed after its grace period of {grace_s} s")
        return pre_stop_s

    def log_text(self) -> str:
        """Return all that it said, in all its lives, and its preStop too."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def last_lines(self) -> str:
        """Return the end of its log, for a person."""
        return "\n".join(self.log_text().splitlines()[-SHOWN_LINES:])

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._sandbox.enter(command),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _wait_for(self, process: subprocess.Popen[bytes]) -> int:
        return await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    # --- probes -----------------------------------------------------------------------------------

    async def _watch_readiness(self) -> None:
        while True:
            await self._probe("readinessProbe", until_good=True)
            self.ready.set()
            self._changed()
            await self._probe("readinessProbe", until_good=False)
            self.ready = trio.Event()
            self._changed()

    async def _watch_liveness(self) -> None:
        await self._probe("livenessProbe", until_good=False)
        if not self.terminating:
            self.problems.append(f"{self.name}: its liveness probe failed")

    async def _probe(self, kind: str, *, until_good: bool) -> None:
        """Ask again and again; return when as many answers as the probe says were good, or bad."""
        probe = {**PROBE_DEFAULTS, **self._container[kind]}
        needed = probe["successThreshold"] if until_good else probe["failureThreshold"]
        seen = failures = 0
        await trio.sleep(probe["initialDelaySeconds"])
        while True:
            good = await self._asks_well(probe)
            failures = 0 if good else failures + 1
            if kind == "startupProbe" and failures >= probe["failureThreshold"]:
                raise AssertionError(f"{self.name} does not start:\n{self.last_lines()}")
            seen = seen + 1 if good is until_good else 0
            if seen >= needed:
                return
            await trio.sleep(probe["periodSeconds"])

    async def _asks_well(self, probe: Manifest) -> bool:
        """Send one HTTP probe; 200 to 399 is good, and anything else is not."""
        get = probe["httpGet"]
        request = f"GET {get['path']} HTTP/1.1\r\nHost: {self.address}\r\nConnection: close\r\n\r\n"
        with trio.move_on_after(probe["timeoutSeconds"]):
            try:
                stream = await trio.open_tcp_stream(self.address, self.port(get["port"]))
                async with stream:
                    await stream.send_all(request.encode())
                    head = bytes(await stream.receive_some(1024))
            except (OSError, trio.BrokenResourceError):
                return False
            return head[:9] == b"HTTP/1.1 " and 200 <= int(head[9:12]) < 400
        return False
