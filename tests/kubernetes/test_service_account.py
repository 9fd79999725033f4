"""What a pod asks the API with nothing but what the kubelet gave it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noti.errors import ConfigInvalid, KubernetesFailed, KubernetesForbidden, ObjectAbsent
from noti.kubernetes.api import STATEFUL_SETS
from noti.kubernetes.service_account import get
from tests.cli.kubernetes_api import StatefulSetApi


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatefulSetApi]:
    served = StatefulSetApi()
    with served.serving(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield served


def ask(directory: Path, name: str = "noti") -> Any:
    return get(STATEFUL_SETS, "default", name, 5.0, directory)


def test_object_is_read_with_the_token_over_tls(api: StatefulSetApi, tmp_path: Path) -> None:
    api.spec = {"replicas": 7}
    assert ask(tmp_path)["spec"]["replicas"] == 7


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, KubernetesForbidden), (403, KubernetesForbidden), (503, KubernetesFailed)],
)
def test_rejections_have_their_own_errors(
    api: StatefulSetApi, tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    api.failing = status
    with pytest.raises(kind, match=f"GET .*statefulsets/noti: {status} rejected with {status}"):
        ask(tmp_path)
    api.failing = None
    with pytest.raises(ObjectAbsent):
        ask(tmp_path, "another")


def test_server_that_another_ca_signed_gets_no_token(api: StatefulSetApi, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with StatefulSetApi().serving(other):
        (tmp_path / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    with pytest.raises(KubernetesFailed, match="CERTIFICATE_VERIFY_FAILED"):
        ask(tmp_path)
    assert api.asked == []


def test_pod_without_a_token_may_not_ask(api: StatefulSetApi, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(KubernetesForbidden, match="no token and CA"):
        ask(tmp_path)


def test_outside_of_a_pod_there_is_no_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigInvalid, match="this is no pod"):
        ask(tmp_path)


def test_server_that_is_gone_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StatefulSetApi().serving(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(KubernetesFailed, match="Connection refused"):
        ask(tmp_path)
