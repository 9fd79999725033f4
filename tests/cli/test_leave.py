"""`noti leave`, by hand and as a pod's preStop."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from noti.cli import exit_status
from noti.cli.leave import WITHIN_S
from noti.errors import DecommissionRejected
from noti.kubernetes import service_account
from tests.cli.kubernetes_api import StatefulSetApi

COMMAND = import_module("noti.cli.leave")
"""Not by a plain import: the package has the command under that name."""
POD = {"POD_NAMESPACE": "default", "STATEFULSET_NAME": "noti", "NOTI_DATA_DIR": "/data/of/the/node"}
KEEPS = "the pod is to come back, so its node keeps its vote\n"
LEAVES = "the node does not vote any more; it may be stopped permanently\n"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, float]]:
    """What a node was asked, which is not there."""
    calls: list[tuple[Path, float]] = []
    monkeypatch.setattr(COMMAND, "ask_to_leave", lambda *call: calls.append(call))
    monkeypatch.setattr(COMMAND, "live_voters", lambda *_: ["other-7"])
    return calls


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StatefulSetApi]:
    served = StatefulSetApi()
    monkeypatch.setattr(service_account, "DIRECTORY", tmp_path)
    with served.serving(tmp_path) as variables:
        for name, value in (POD | variables).items():
            monkeypatch.setenv(name, value)
        yield served


def leave_as(monkeypatch: pytest.MonkeyPatch, pod: str, *flags: str) -> int:
    monkeypatch.setenv("POD_NAME", pod)
    return exit_status(["leave", "--kubernetes", *flags])


def test_error_states_that_no_node_runs_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["leave", "--data-dir", str(tmp_path)]) == 1
    told = f"noti: error: no node runs with the data directory {tmp_path}; see --data-dir\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("spec", "pod", "leaves"),
    [
        ({"replicas": 3}, "noti-2", False),
        ({"replicas": 3}, "noti-3", True),
        ({"replicas": 1}, "noti-0", False),
        ({"replicas": 1}, "noti-1", True),
        ({"replicas": 1}, "noti-10", True),
        ({}, "noti-0", False),
        ({}, "noti-1", True),
        ({"replicas": 0}, "noti-0", False),
        ({"replicas": 3, "ordinals": {"start": 5}}, "noti-7", False),
        ({"replicas": 3, "ordinals": {"start": 5}}, "noti-8", True),
        ({"replicas": 1}, "noti-canary-2", False),
        ({"replicas": 1}, "other-2", False),
    ],
)
def test_pod_leaves_when_its_number_is_not_wanted_any_more(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, object],
    pod: str,
    leaves: bool,
) -> None:
    api.spec = spec
    assert leave_as(monkeypatch, pod) == 0
    assert capsys.readouterr().out == (LEAVES if leaves else KEEPS)
    assert [directory for directory, _ in asked] == [Path(POD["NOTI_DATA_DIR"])] * leaves


def test_voters_of_a_statefulset_that_is_deleted_keep_their_votes(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api.spec, api.deleted = {"replicas": 1}, True
    assert leave_as(monkeypatch, "noti-2") == 0
    api.name = "somebody else"
    assert leave_as(monkeypatch, "noti-2") == 0
    assert capsys.readouterr().out == KEEPS * 2
    assert not asked


@pytest.mark.parametrize("status", [500, 503])
def test_api_that_rejects_costs_one_line_and_never_the_stop(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    api.failing = status
    assert leave_as(monkeypatch, "noti-2", "--within", "1") == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("noti: error: the node keeps its vote while it stops: ")
    assert "default/noti" in line
    assert str(status) in line
    assert not asked


@pytest.mark.parametrize("status", [401, 403])
def test_rights_that_went_with_the_release_are_no_error(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """`helm uninstall` deletes the Role before the pods have stopped."""
    api.failing = status
    assert leave_as(monkeypatch, "noti-2") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("the node keeps its vote, as after the end of its release: ")
    assert str(status) in captured.out
    assert len(api.asked) == 1, "asking again is of no use"
    assert not asked


def test_pod_that_stays_lets_those_leave_that_a_scale_down_removes(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three to one while all are rolled: without the last one the others had no majority."""
    api.spec = {"replicas": 1}
    views = iter([["noti-0", "noti-1", "noti-2"], ["noti-0", "noti-1"], ["noti-0"]])
    monkeypatch.setattr(COMMAND, "live_voters", lambda *_: next(views))
    monkeypatch.setattr(COMMAND, "LOOK_EVERY_S", 0.0)
    assert leave_as(monkeypatch, "noti-0") == 0
    assert next(views, None) is None, "it waited for both"
    assert capsys.readouterr().out == "waits for noti-1, noti-2 to leave\n" + KEEPS
    assert not asked


def test_pod_that_stays_waits_no_longer_than_it_may(
    api: StatefulSetApi, asked: list[tuple[Path, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.spec = {"replicas": 1}
    monkeypatch.setattr(COMMAND, "live_voters", lambda *_: ["noti-0", "noti-1"])
    assert leave_as(monkeypatch, "noti-0", "--within", "0.3") == 0
    assert not asked


def test_api_that_comes_back_in_time_is_asked_again(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noti.cli.scale_down.RETRY_S", 0.01)
    statuses = iter([503, 429, 500])
    answer = api.answer

    def answer_later(path: str, authorization: str) -> tuple[int, dict[str, object]]:
        api.failing = next(statuses, None)
        return answer(path, authorization)

    monkeypatch.setattr(api, "answer", answer_later)
    assert leave_as(monkeypatch, "noti-3") == 0
    assert len(asked) == 1


def test_silent_api_is_waited_for_no_longer_than_asked(
    api: StatefulSetApi,
    asked: list[tuple[Path, float]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = threading.Event()
    answer = api.answer

    def answer_late(path: str, authorization: str) -> tuple[int, dict[str, object]]:
        left.wait(30)
        return answer(path, authorization)

    monkeypatch.setattr(api, "answer", answer_late)
    assert leave_as(monkeypatch, "noti-3", "--within", "0.1") == 0
    left.set()
    assert "noti is to have: " in capsys.readouterr().err
    assert not asked


def test_pod_without_access_to_the_api_reports_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    assert leave_as(monkeypatch, "noti-2") == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "no way to the Kubernetes API" in line


def test_settings_that_cannot_be_read_do_not_delay_the_stop(
    api: StatefulSetApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTI_DATA_DIR")
    assert leave_as(monkeypatch, "noti-3", "--config", "/missing/noti.toml") == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "/missing/noti.toml cannot be read" in line
    assert not api.asked


def test_pod_without_its_names_reports_the_missing_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE", "STATEFULSET_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert exit_status(["leave", "--kubernetes"]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "POD_NAME, POD_NAMESPACE and STATEFULSET_NAME" in line


def test_cluster_that_does_not_agree_costs_one_line_and_never_the_stop(
    api: StatefulSetApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reject(_directory: Path, within_s: float) -> None:
        assert 0 < within_s <= WITHIN_S
        raise DecommissionRejected("not done within 5 s: the cluster has no leader")

    monkeypatch.setattr(COMMAND, "ask_to_leave", reject)
    assert leave_as(monkeypatch, "noti-3") == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("while it stops: not done within 5 s: the cluster has no leader")


def test_stopping_pod_loads_neither_trio_nor_settings_nor_what_the_operator_needs() -> None:
    """Importing all that took a second of a processor, which the others need just then."""
    program = (
        "import sys, noti.cli.leave;"
        "print(*{'trio', 'pydantic', 'lightkube', 'httpx', 'cryptography'} & sys.modules.keys())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout == b"\n"
