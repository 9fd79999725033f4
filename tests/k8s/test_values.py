"""Values that other charts have too end where their users expect them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.rendering import Manifest, objects, pods, render, rendered_with, the
from tests.k8s.test_chart import check

pytestmark = pytest.mark.helm


def rendered_for(values: dict[str, Any]) -> list[Manifest]:
    """Return the objects for values as JSON has them; Kubernetes takes each."""
    given = (f"--set-json={name}={json.dumps(value)}" for name, value in values.items())
    done = render(*given)
    assert done.returncode == 0, done.stderr
    manifests = objects(done.stdout)
    for manifest in manifests:
        check(manifest)
    return manifests


def containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for _, spec in pods(manifests):
        yield from spec["containers"]


def test_a_mirror_of_the_registry_serves_all_images() -> None:
    manifests = rendered_for(
        {
            "global": {"imageRegistry": "mirror.example.com/", "imagePullSecrets": [{"name": "a"}]},
            "imagePullSecrets": [{"name": "b"}],
        }
    )
    assert {one["image"].partition("/")[0] for one in containers(manifests)} == {
        "mirror.example.com"
    }
    for _, spec in pods(manifests):
        assert spec["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_common_labels_are_on_all_objects_and_pods_and_select_nothing() -> None:
    manifests = rendered_for({"commonLabels": {"team": "web"}})
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["team"] == "web", manifest["kind"]
    for kind in ("StatefulSet", "Deployment"):
        spec = the(manifests, kind)["spec"]
        assert spec["template"]["metadata"]["labels"]["team"] == "web"
        assert "team" not in spec["selector"]["matchLabels"], "which could not change later"
    done = render("--set-json", 'commonLabels={"app.kubernetes.io/name": "mine"}')
    assert "app.kubernetes.io/name" in done.stderr, "services would find no pod"


def test_all_pods_are_placed_and_resolve_as_asked() -> None:
    asked = {
        "schedulerName": "mine",
        "runtimeClassName": "gvisor",
        "priorityClassName": "high",
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.10"]},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["nats"]}],
    }
    found = list(pods(rendered_for(asked)))
    assert len(found) == 3, "nodes, operator, test"
    for name, spec in found:
        assert asked.items() <= spec.items(), name


def test_containers_beside_and_before_the_node() -> None:
    beside = {"name": "beside", "image": "busybox"}
    manifests = rendered_for({"sidecars": [beside], "initContainers": [{**beside, "name": "init"}]})
    spec = the(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert [one["name"] for one in spec["containers"]] == ["noti", "beside"]
    assert [one["name"] for one in spec["initContainers"]] == ["init"]


def test_services_are_reached_from_outside_as_asked() -> None:
    asked = {
        "type": "LoadBalancer",
        "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
    }
    manifests = rendered_for({"service": asked})
    assert asked.items() <= the(manifests, "Service", "demo-noti")["spec"].items()
    headless = the(manifests, "Service", "-headless")["spec"]
    assert headless["ipFamilies"] == asked["ipFamilies"]
    assert "externalTrafficPolicy" not in headless
    assert the(manifests, "Service", "-follower")["spec"]["type"] == "ClusterIP"
    manifests = rendered_for({"followerService": asked})
    assert asked.items() <= the(manifests, "Service", "-follower")["spec"].items()
    inside = rendered_for({"service": {**asked, "type": "ClusterIP"}})
    assert "loadBalancerClass" not in the(inside, "Service", "demo-noti")["spec"]


def test_a_new_version_can_be_tried_on_the_last_pods_first() -> None:
    strategy = the(rendered_with("updateStrategy.rollingUpdate.partition=2"), "StatefulSet")[
        "spec"
    ]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    by_hand = rendered_with("updateStrategy.type=OnDelete")
    assert the(by_hand, "StatefulSet")["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_pods_ask_for_the_room_that_their_lines_take() -> None:
    for one in containers(rendered_with()):
        assert "ephemeral-storage" in one["resources"]["requests"]
