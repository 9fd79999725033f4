"""The chart's key of gossip: made once, and given to pods that run without one step by step."""

import base64
from collections.abc import Sequence

import pytest

from noti.swim.core.keyring import parse_key
from noti.swim.core.sealing import Encryption
from tests import promises
from tests.k8s.cluster import installed, render_in
from tests.k8s.rendering import Manifest, environment, rendered_with, the

pytestmark = pytest.mark.helm

STEPS = ["understood", "sent", "required"]


def step_of(manifests: Sequence[Manifest]) -> str:
    """Return what the pods are told of encryption."""
    [container] = the(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return environment(container)["NOTI_GOSSIP_ENCRYPTION"]


def without_key(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return a release as charts of before made it."""
    nodes = the(manifests, "StatefulSet")
    [container] = nodes["spec"]["template"]["spec"]["containers"]
    container["env"] = [one for one in container["env"] if "GOSSIP_" not in one["name"]]
    return [one for one in manifests if one["kind"] != "Secret"]


@promises.GOSSIP_HAS_KEYS
def test_first_installation_makes_a_random_key_and_requires_it() -> None:
    keys = set()
    for _ in range(2):
        manifests = render_in([])
        assert step_of(manifests) == "required"
        [coded] = the(manifests, "Secret")["data"].values()
        keys.add(parse_key(base64.b64decode(coded).decode()))
    assert [len(key) for key in keys] == [32, 32]


def test_key_stays_over_upgrades_also_when_a_person_changed_it() -> None:
    before = installed(render_in([]))
    the(before, "Secret")["data"] = {"keys": "bmV3", "note": "bW9yZQ=="}
    after = render_in(before, "config.history_size=7")
    assert the(after, "Secret")["data"] == {"keys": "bmV3", "note": "bW9yZQ=="}
    renamed = the(render_in(before, "gossip.key=ring"), "Secret")["data"]
    assert {"keys", "note", "ring"} == set(renamed)


@promises.GOSSIP_HAS_KEYS
def test_pods_without_a_key_get_it_in_three_upgrades() -> None:
    release = installed(without_key(render_in([])))
    taken = []
    for _ in range(4):
        release = installed(render_in(release))
        taken.append(step_of(release))
    assert taken == [*STEPS, "required"]
    assert set(STEPS) == set(Encryption)


def test_next_step_waits_until_all_pods_are_rolled() -> None:
    release = installed(without_key(render_in([])), ready=2)
    release = installed(render_in(release), ready=2)
    assert step_of(release) == "understood"
    release = installed(render_in(release), ready=3)
    assert step_of(release) == "understood"
    assert step_of(render_in(release)) == "sent"


@promises.GOSSIP_HAS_KEYS
@pytest.mark.parametrize("step", ["sent", "required"])
def test_step_that_would_split_the_cluster_is_refused(step: str) -> None:
    plain = installed(without_key(render_in([])))
    with pytest.raises(AssertionError, match=r"would not understand each other.*one step after"):
        render_in(plain, f"gossip.encryption={step}")
    required = installed(render_in([]))
    with pytest.raises(AssertionError, match="would not understand each other"):
        render_in(required, "gossip.encryption=understood")
    half = installed(render_in(plain, "gossip.encryption=understood"), ready=2)
    with pytest.raises(AssertionError, match=r"wait until they are rolled|not understand"):
        render_in(half, f"gossip.encryption={step}")


def test_own_secret_is_mounted_and_none_is_made() -> None:
    manifests = rendered_with("gossip.existingSecret=ours", "gossip.key=ring")
    assert not [one for one in manifests if one["kind"] == "Secret"]
    volumes = the(manifests, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
    [mounted] = [volume["secret"] for volume in volumes if volume["name"] == "gossip"]
    assert mounted["secretName"] == "ours"
    assert mounted["items"] == [{"key": "ring", "path": "keys"}]
