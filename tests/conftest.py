"""What all tests share: foreign programs that some of them need.

A machine with only Python and pip may lack Chromium, OpenSSL's command or Serf. There, the tests
that need them are reported as not run, with the command that installs what is missing. CI sets
`COMPLETE_TESTS`, and then a missing program is a failure.
"""

import os
import shutil
from collections.abc import Callable

import pytest

from tests.interop import nginx
from tests.interop.serf_agent import CACHE

PROGRAMS: dict[str, tuple[Callable[[], bool], str]] = {
    "chromium": (
        lambda: shutil.which("chromium") is not None,
        "a browser: apt-get install chromium",
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
    "serf": (
        lambda: any(map(shutil.which, ("serf", "apt-get"))) or (CACHE / "usr/bin/serf").exists(),
        "a Serf agent: on Debian it is fetched by itself, elsewhere put `serf` on the PATH",
    ),
}
COMPLETE = bool(os.environ.get("COMPLETE_TESTS"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lines = []
    for program, (is_there, remedy) in PROGRAMS.items():
        needing = [item for item in items if item.get_closest_marker(program)]
        if needing and not COMPLETE and not is_there():
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
