"""The chart, rendered by the real `helm` for each of several values.

Enters: a file of values. Leaves: text, and objects. Never: a cluster. Run as a program, it writes
the golden renderings anew; then read the difference.
"""

import base64
import re
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.k8s.helm import helm

Manifest: TypeAlias = dict[str, Any]

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "k8s" / "chart"
GOLDEN = HERE / "golden"
VALUES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
RELEASE = "demo"
NAMESPACE = "events"
RANDOM_KEY = re.compile(r'(?<=^  keys: ")[A-Za-z0-9+/=]{60}(?="$)', re.MULTILINE)
"""The gossip key that helm makes: 32 bytes in base64, and that in base64, as secrets hold it."""
SOME_KEY = base64.b64encode(base64.b64encode(bytes(32))).decode()


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; what it says is in the result."""
    program = helm()
    assert program is not None
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60)


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `helm template` on the chart."""
    return run_helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *arguments)


def values_file(name: str) -> str:
    return str(HERE / "values" / f"{name}.yaml")


@cache
def rendered_text(name: str) -> str:
    """Return what the chart makes of a file of values."""
    done = render("--values", values_file(name))
    assert done.returncode == 0, done.stderr
    return RANDOM_KEY.sub(SOME_KEY, done.stdout)


def rendered(name: str) -> list[Manifest]:
    """Return the objects that the chart makes of a file of values, new ones at each call."""
    return objects(rendered_text(name))


def rendered_with(*settings: str) -> list[Manifest]:
    """Return the objects for values as `--set` takes them."""
    done = render(*(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def objects(text: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def the(manifests: Iterable[Manifest], kind: str, suffix: str = "") -> Manifest:
    """Return the one object of a kind; of several, the one whose name ends so."""
    [found] = [
        each for each in of_kind(manifests, kind) if each["metadata"]["name"].endswith(suffix)
    ]
    return found


def pods(manifests: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield name and spec of whatever makes pods."""
    for each in manifests:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["spec"]
        elif each["kind"] in ("StatefulSet", "Deployment", "DaemonSet", "Job"):
            yield name, each["spec"]["template"]["spec"]


def environment(container: Manifest) -> dict[str, str]:
    """Return the plain variables of a container."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.yaml"):
        old.unlink()
    for values in VALUES:
        (GOLDEN / f"{values}.yaml").write_text(rendered_text(values))
