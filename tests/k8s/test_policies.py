"""Policies hold for whatever the chart renders, and each of them can fail."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import policies
from tests.k8s.cluster import render_in
from tests.k8s.policies import POLICIES, SERVES
from tests.k8s.rendering import VALUES, Manifest, of_kind, pods, rendered, rendered_with, the

pytestmark = pytest.mark.helm


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("values", VALUES)
def test_policy_holds_for_all_values(values: str, policy: Callable[..., Any]) -> None:
    assert list(policy(rendered(values))) == []


def nodes_of(manifests: list[Manifest]) -> Manifest:
    spec: Manifest = the(manifests, "StatefulSet")["spec"]
    return spec


def container_of(manifests: list[Manifest]) -> Manifest:
    container: Manifest = nodes_of(manifests)["template"]["spec"]["containers"][0]
    return container


def let_operator_be_root(manifests: list[Manifest]) -> None:
    dict(pods(manifests))["Deployment demo-noti-operator"]["securityContext"]["runAsUser"] = 0


def ask_for_a_quorum_in_liveness(manifests: list[Manifest]) -> None:
    container_of(manifests)["livenessProbe"]["httpGet"]["path"] = "/readiness"


def forget_limits(manifests: list[Manifest]) -> None:
    container_of(manifests)["resources"] = {"requests": {"cpu": 1, "memory": 1}}


def shorten_grace(manifests: list[Manifest]) -> None:
    nodes_of(manifests)["template"]["spec"]["terminationGracePeriodSeconds"] = 59


def give_the_test_a_token(manifests: list[Manifest]) -> None:
    the(manifests, "Pod")["spec"]["automountServiceAccountToken"] = True


def allow_anything(manifests: list[Manifest]) -> None:
    the(manifests, "Role", "-operator")["rules"][0]["verbs"] = ["*"]


def send_browsers_to_all(manifests: list[Manifest]) -> None:
    del the(manifests, "Service", "-follower")["spec"]["selector"][SERVES]


def start_in_order(manifests: list[Manifest]) -> None:
    nodes_of(manifests)["podManagementPolicy"] = "OrderedReady"


def name_the_chart_in_claims(manifests: list[Manifest]) -> None:
    claim = nodes_of(manifests)["volumeClaimTemplates"][0]
    claim["metadata"]["labels"]["helm.sh/chart"] = "noti-0.7.0"


def lengthen_a_name(manifests: list[Manifest]) -> None:
    the(manifests, "StatefulSet")["metadata"]["name"] = "x" * 53


def open_gossip(manifests: list[Manifest]) -> None:
    del the(manifests, "NetworkPolicy", "demo-noti")["spec"]["ingress"][0]["from"]


def lose_the_key(manifests: list[Manifest]) -> None:
    volumes = nodes_of(manifests)["template"]["spec"]["volumes"]
    volumes[:] = [volume for volume in volumes if volume["name"] != "gossip"]


def buffer_events(manifests: list[Manifest]) -> None:
    annotations = the(manifests, "Ingress")["metadata"]["annotations"]
    annotations["nginx.ingress.kubernetes.io/proxy-buffering"] = "on"


BREAKAGES = {
    policies.nobody_is_root: let_operator_be_root,
    policies.long_running_containers_are_probed: ask_for_a_quorum_in_liveness,
    policies.resources_are_bounded: forget_limits,
    policies.the_grace_period_fits: shorten_grace,
    policies.tokens_are_where_they_are_needed: give_the_test_a_token,
    policies.roles_name_what_they_allow: allow_anything,
    policies.services_find_the_nodes: send_browsers_to_all,
    policies.nodes_start_together_and_stay_apart: start_in_order,
    policies.what_cannot_change_names_no_version: name_the_chart_in_claims,
    policies.names_fit: lengthen_a_name,
    policies.gossip_is_private: open_gossip,
    policies.gossip_is_encrypted: lose_the_key,
    policies.streams_survive_the_ingress: buffer_events,
}


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_policy_sees_its_breakage(policy: Callable[..., Any]) -> None:
    manifests = rendered_with("ingress.enabled=true")
    assert list(policy(manifests)) == []
    BREAKAGES[policy](manifests)
    assert list(policy(manifests)) != []


def test_pod_leaves_within_what_the_values_give_it() -> None:
    for seconds, within in ((30, 25), (120, 115)):
        manifests = rendered_with(f"termination.leaveSeconds={seconds}")
        command = container_of(manifests)["lifecycle"]["preStop"]["exec"]["command"]
        assert command == ["noti", "leave", "--kubernetes", f"--within={within}"]
        assert list(policies.the_grace_period_fits(manifests)) == []


def test_a_lone_node_founds_its_cluster() -> None:
    """With --join it would wait for others for ever."""
    settings = {each["name"]: each.get("value") for each in container_of(rendered("single"))["env"]}
    assert settings["NOTI_BOOTSTRAP_EXPECT"] == "1"
    assert "NOTI_JOIN" not in settings


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_scaling_a_release_that_runs_with_three_rolls_no_pod(replicas: int) -> None:
    """Above all three to one: the last pod would be rolled while the others give up their votes."""
    three = render_in([], "replicas=3")
    scaled = render_in(three, f"replicas={replicas}")
    assert nodes_of(scaled)["template"] == nodes_of(three)["template"]
    assert nodes_of(scaled)["replicas"] == replicas


def test_without_a_cluster_to_ask_the_number_of_founders_can_be_kept_by_hand() -> None:
    """As Argo CD renders: `helm template` does not see what runs."""
    three, one = (rendered_with("bootstrapExpect=3", f"replicas={n}") for n in (3, 1))
    assert nodes_of(one)["template"] == nodes_of(three)["template"]


def test_founders_become_three_with_the_third_pod() -> None:
    """A lone founder that lost its disk would otherwise found a second cluster."""
    grown = render_in(render_in([], "replicas=1"), "replicas=3")
    settings = {each["name"]: each.get("value") for each in container_of(grown)["env"]}
    assert settings["NOTI_BOOTSTRAP_EXPECT"] == "3"


def test_a_changed_setting_rolls_the_pods() -> None:
    before, after = (rendered_with(f"config.history_size={size}") for size in (1000, 2000))
    assert nodes_of(before)["template"] != nodes_of(after)["template"]
    assert of_kind(before, "ConfigMap") != of_kind(after, "ConfigMap")


def test_browsers_come_to_where_the_leader_serves_or_not() -> None:
    for serves, service in (("true", "demo-noti"), ("false", "demo-noti-follower")):
        manifests = rendered_with("ingress.enabled=true", f"leaderServesBrowsers={serves}")
        [rule] = the(manifests, "Ingress")["spec"]["rules"]
        assert rule["http"]["paths"][0]["backend"]["service"]["name"] == service


def test_long_names_are_cut() -> None:
    manifests = rendered_with("nameOverride=" + "long-" * 20 + "name")
    assert list(policies.names_fit(manifests)) == []
    assert list(policies.services_find_the_nodes(manifests)) == []
