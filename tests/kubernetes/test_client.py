"""How the way to the API is found, and what is said when there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.errors import ConfigInvalid, KubernetesFailed, KubernetesForbidden, VersionGone
from noti.kubernetes.api import PODS, Selection
from noti.kubernetes.client import open_client
from noti.kubernetes.decoding import decode_change
from tests.kubernetes.http_api import serving
from tests.kubernetes.memory_api import ApiServer

CONTEXT = {"name": "c", "context": {"cluster": "c", "user": "u"}}


def config(user: dict[str, Any], cluster: dict[str, Any] | None = None) -> str:
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": cluster or {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [CONTEXT],
            "current-context": "c",
        }
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no way to the Kubernetes API"),
        ("[]", "no way to the Kubernetes API"),
        ("just words", "no way to the Kubernetes API"),
        ("a: [", "no way to the Kubernetes API"),
        ("{}", "no way to the Kubernetes API"),
        ('{"clusters": 7, "contexts": []}', "no way to the Kubernetes API"),
        (config({"token": 7}), "no way to the Kubernetes API"),
        (
            config({"auth-provider": {"name": "gcp"}}),
            "from an auth-provider, which is not supported",
        ),
        (
            config(
                {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "x"}}
            ),
            "from a command, which is not supported",
        ),
        (
            config({"token": "t"}, {"server": "https://x", "certificate-authority": "/nowhere"}),
            "no way to the Kubernetes API",
        ),
        (
            config({"token": "t"}, {"server": "https://x", "certificate-authority-data": "!"}),
            "no way to the Kubernetes API",
        ),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_reported_in_one_line(
    content: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ConfigInvalid, match=told):
        open_client()


async def test_a_server_with_another_certificate_is_not_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, stranger = ApiServer(), tmp_path / "stranger"
    stranger.mkdir()
    with trio.fail_after(10):
        async with serving(server, tmp_path) as http, serving(ApiServer(), stranger) as other:
            told = json.loads(http.kubeconfig.read_text())
            trusted = json.loads(other.kubeconfig.read_text())["clusters"][0]["cluster"]
            told["clusters"][0]["cluster"]["certificate-authority"] = trusted[
                "certificate-authority"
            ]
            http.kubeconfig.write_text(json.dumps(told))
            monkeypatch.setenv("KUBECONFIG", str(http.kubeconfig))
            with pytest.raises(KubernetesFailed, match="a CA that is not in our CA file"):
                await open_client().list(Selection(PODS, "shop"))
    assert server.asked == []


async def test_a_service_account_is_used_and_its_rotated_token_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ApiServer()
    with trio.fail_after(10):
        async with serving(server, tmp_path) as http:
            cluster = json.loads(http.kubeconfig.read_text())["clusters"][0]["cluster"]
            account = tmp_path / "account"
            account.mkdir()
            (account / "ca.crt").symlink_to(cluster["certificate-authority"])
            (account / "namespace").write_text("shop")
            (account / "token").write_text(http.token)
            host, port = cluster["server"].removeprefix("https://").split(":")
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
            api = open_client(account)
            await api.list(Selection(PODS, "shop"))
            http.token = "another"
            (account / "token").write_text("another")
            await api.list(Selection(PODS, "shop"))
            (account / "token").unlink()
            with pytest.raises(KubernetesForbidden, match="no token"):
                await api.list(Selection(PODS, "shop"))
    assert server.asked == [("pods", "list")] * 2


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"\xff",
        b'{"type": "ADDED", "object": []}',
        b'{"type": "ADDED", "object": {"metadata": {"name": "a", "uid": "u"}}}',
        b'{"type": "MOVED", "object": {"metadata": {}}}',
        b'{"type": "BOOKMARK", "object": {}}',
        b'{"type": "ERROR", "object": {"code": "410"}}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_change_is_rejected(line: bytes) -> None:
    with pytest.raises(KubernetesFailed) as refused:
        decode_change(line, "watch pods")
    assert type(refused.value) is KubernetesFailed


def test_a_line_that_reports_a_failure_is_raised_as_what_it_is() -> None:
    with pytest.raises(VersionGone, match="watch pods: 410 too old"):
        decode_change(
            b'{"type": "ERROR", "object": {"code": 410, "message": "too old"}}', "watch pods"
        )
