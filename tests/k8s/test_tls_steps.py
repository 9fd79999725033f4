"""The chart's TLS, which pods that run get, and lose, in two steps."""

from collections.abc import Sequence

import pytest

from tests import promises
from tests.k8s.cluster import installed, render_in
from tests.k8s.rendering import Manifest, environment, rendered_with, the

pytestmark = pytest.mark.helm

TLS = ("tls.enabled=true", "tls.existingSecret=t", "operator.tls.existingSecret=o")
HTTP_TLS = ("httpTls.enabled=true", "httpTls.existingSecret=h")
BOTH = (*TLS, *HTTP_TLS)
PERMISSIVE = (*BOTH, "tls.mode=permissive", "httpTls.mode=permissive")


def modes_of(manifests: Sequence[Manifest]) -> tuple[str | None, ...]:
    """Return what the pods are told, of TLS between them and for browsers; None for no TLS."""
    [container] = the(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    variables = environment(container)
    return variables.get("NOTI_TLS_MODE"), variables.get("NOTI_HTTP_TLS_MODE")


def scheme_of(manifests: Sequence[Manifest]) -> str:
    """Return how the service of browsers says that its pods are spoken to."""
    ports = the(manifests, "Service", "-follower")["spec"]["ports"]
    [found] = [port["appProtocol"] for port in ports if port["name"] == "http"]
    return str(found)


def test_first_installation_requires_what_is_on() -> None:
    assert modes_of(rendered_with(*BOTH)) == ("required", "required")
    assert modes_of(rendered_with()) == (None, None)


@promises.TLS_IS_SWITCHED_ON_AND_OFF
def test_pods_without_get_it_in_two_upgrades_and_lose_it_in_two() -> None:
    release = installed(render_in([]))
    steps: list[tuple[str | None, str]] = []
    for settings in (BOTH, BOTH, BOTH, PERMISSIVE, PERMISSIVE, ()):
        release = installed(render_in(release, *settings))
        [mode] = set(modes_of(release))
        steps.append((mode, scheme_of(release)))
    assert steps == [
        ("permissive", "http"),
        ("required", "https"),
        ("required", "https"),
        ("permissive", "https"),
        ("permissive", "https"),
        (None, "http"),
    ], "spoken to so that pods of the step before understand it too"


def test_second_step_waits_until_all_pods_are_rolled() -> None:
    release = installed(render_in(installed(render_in([])), *BOTH), ready=2)
    assert modes_of(render_in(release, *BOTH)) == ("permissive", "permissive")
    for settings in ((*BOTH, "tls.mode=required"), ()):
        with pytest.raises(AssertionError, match=r"wait until they are rolled .*helm rollback"):
            render_in(release, *settings)


@promises.TLS_IS_SWITCHED_ON_AND_OFF
def test_step_that_would_split_the_cluster_is_refused_with_the_next_one() -> None:
    for value, settings in (("tls", TLS), ("httpTls", HTTP_TLS)):
        with pytest.raises(AssertionError, match=f"next one is --set {value}.mode=permissive"):
            render_in(installed(rendered_with()), *settings, f"{value}.mode=required")
        with pytest.raises(AssertionError, match=f"next one is --set {value}.mode=permissive"):
            render_in(installed(rendered_with(*settings)))


def test_release_of_a_chart_without_modes_requires() -> None:
    before = installed(rendered_with(*TLS))
    [container] = the(before, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    container["env"] = [one for one in container["env"] if one["name"] != "NOTI_TLS_MODE"]
    assert modes_of(render_in(before, *TLS)) == ("required", None)


def test_what_is_beside_the_pods_follows_their_mode_or_is_told() -> None:
    for scheme, told in (("http", ()), ("https", ("httpTls.scheme=https",))):
        manifests = rendered_with(*PERMISSIVE, "ingress.enabled=true", *told)
        [operator] = the(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert "--tls-mode=permissive" in operator["args"]
        assert scheme_of(manifests) == scheme
        annotations = the(manifests, "Ingress")["metadata"]["annotations"]
        assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == scheme.upper()
