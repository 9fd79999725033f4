"""What all tests share: a time limit (`time_limit.py`), and foreign programs that some need.

A machine with only Python and pip may lack Chromium, OpenSSL's command or Serf. There, the tests
that need them are reported as not run, with the command that installs what is missing. CI sets
`COMPLETE_TESTS`, and then a missing program is a failure.
"""

import os
import shutil
from collections.abc import Callable

import pytest

from tests import time_limit
from tests.interop import nginx
from tests.interop.nats.go_programs import go
from tests.interop.rehearsal import namespaces
from tests.interop.serf.agents import CACHE
from tests.k8s.helm import helm
from tests.k8s.prometheus import program as prometheus_program

PROGRAMS: dict[str, tuple[Callable[[], bool], str]] = {
    "chromium": (
        lambda: shutil.which("chromium") is not None,
        "a browser: apt-get install chromium",
    ),
    "go": (
        lambda: go() is not None,
        "Go 1.26: on x86-64 it is fetched by itself, elsewhere put `go` on the PATH",
    ),
    "helm": (
        lambda: helm() is not None,
        "helm: on x86-64 it is fetched by itself, elsewhere put `helm` on the PATH",
    ),
    "iproute2": (lambda: shutil.which("ip") is not None, "ip: apt-get install iproute2"),
    "namespaces": (
        lambda: namespaces.obstacle() is None,
        "networks and mounts of their own, which this machine does not let us make",
    ),
    "nginx": (
        lambda: any(map(shutil.which, ("nginx", "apt-get"))) or nginx.nginx_root() is not None,
        "nginx: on Debian it is fetched by itself, elsewhere put `nginx` on the PATH",
    ),
    "node": (
        lambda: all(map(shutil.which, ("node", "npm"))),
        "Node with its package manager: apt-get install nodejs npm",
    ),
    "openssl": (lambda: shutil.which("openssl") is not None, "openssl: apt-get install openssl"),
    "prometheus": (
        lambda: prometheus_program("promtool") is not None,
        "Prometheus: on Debian it is fetched by itself, elsewhere put `promtool` on the PATH",
    ),
    "serf": (
        lambda: any(map(shutil.which, ("serf", "apt-get"))) or (CACHE / "usr/bin/serf").exists(),
        "a Serf agent: on Debian it is fetched by itself, elsewhere put `serf` on the PATH",
    ),
}
NOT_TO_BE_INSTALLED = {"namespaces"}
"""Whether a kernel, or the container that CI runs in, permits namespaces is nothing that CI could
mend by installing something: there these tests are reported as not run too."""
COMPLETE = bool(os.environ.get("COMPLETE_TESTS"))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(time_limit)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lines = []
    for program, (is_there, remedy) in PROGRAMS.items():
        needing = [item for item in items if item.get_closest_marker(program)]
        may_miss = not COMPLETE or program in NOT_TO_BE_INSTALLED
        if needing and may_miss and not is_there():
            items[:] = [item for item in items if item not in needing]
            config.hook.pytest_deselected(items=needing)
            lines.append(f"NOT RUN: {len(needing)} tests that need {remedy}")
    config.stash[_NOT_RUN] = lines


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash.get(_NOT_RUN, []):
        terminalreporter.write_line(line, yellow=True)


_NOT_RUN = pytest.StashKey[list[str]]()
