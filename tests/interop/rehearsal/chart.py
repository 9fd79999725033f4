"""What the chart renders, and what Kubernetes would read out of it."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.k8s.cluster import Cluster, installed, served

CHART = Path(__file__).parents[3] / "k8s" / "chart"
NAMESPACE, RELEASE = "default", "noti"

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """All objects of a release."""

    objects: Sequence[Manifest]

    def all(self, kind: str) -> list[Manifest]:
        """Return the objects of one kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Manifest:
        """Return the only object of a kind, or the one of a name."""
        [found] = [o for o in self.all(kind) if name in (None, o["metadata"]["name"])]
        return found

    @property
    def tls_modes(self) -> set[str]:
        """What pods do about TLS, between each other and for browsers."""
        [container] = self.one("StatefulSet")["spec"]["template"]["spec"]["containers"]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        return {variables.get(f"NOTI_{for_}TLS_MODE", "off") for for_ in ("", "HTTP_")}

    def allows(self, account: str, verb: str, group: str, resource: str, name: str) -> bool:
        """Whether the rendered Roles let a service account do this (RBAC)."""
        for binding in self.all("RoleBinding"):
            if not any(subject["name"] == account for subject in binding["subjects"]):
                continue
            for rule in self.one("Role", binding["roleRef"]["name"])["rules"]:
                named = rule.get("resourceNames")
                if (
                    group in rule["apiGroups"]
                    and resource in rule["resources"]
                    and verb in rule["verbs"]
                    and (named is None or name in named)
                ):
                    return True
        return False


def render(helm: Path, values: Mapping[str, Any], before: Rendered | None = None) -> Rendered:
    """Render the chart with these values beside its own, as an upgrade of what was there before.

    All its pods are rolled.
    """
    command = [str(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "-f", "-"]
    with ExitStack() as resources:
        if before is not None:
            cluster = Cluster(installed(deepcopy(before.objects)), RELEASE, NAMESPACE)
            url = resources.enter_context(served(cluster))
            command += ["--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", url]
        text = yaml.safe_dump(dict(values))
        ended = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    objects = [found for found in yaml.safe_load_all(ended.stdout) if found is not None]
    return Rendered(objects)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a service's selector takes a pod with these labels."""
    return all(labels.get(name) == value for name, value in selector.items())


def arguments(container: Manifest, variables: Mapping[str, str]) -> list[str]:
    """Return a container's command with its arguments, `$(NAME)` in them replaced."""
    words = [*container["command"], *container.get("args", [])]
    return [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word) for word in words]


def environment(container: Manifest, fields: Mapping[str, str]) -> dict[str, str]:
    """Return a container's variables; `fields` are what a fieldRef can ask for."""
    variables = {}
    for entry in container.get("env", []):
        match entry:
            case {"name": str(name), "value": str(value)}:
                variables[name] = value
            case {"name": str(name), "valueFrom": {"fieldRef": {"fieldPath": str(path)}}}:
                variables[name] = fields[path]
            case _:
                raise AssertionError(f"a variable that the rehearsal cannot resolve: {entry}")
    return variables
