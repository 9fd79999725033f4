"""What the operator may rely on: the same checks against the API in memory and over HTTPS."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.errors import (
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)
from noti.kubernetes.api import CHECKERS, LEASES, PODS, KubernetesApi, Selection
from noti.kubernetes.client import open_client
from tests.kubernetes.http_api import HttpApi, serving
from tests.kubernetes.memory_api import ApiServer, MemoryApi

NS = "shop"
ALL_PODS = Selection(PODS, NS)


@dataclass
class Stage:
    server: ApiServer
    api: KubernetesApi


Open = Callable[[Path], AbstractAsyncContextManager[Stage]]


@asynccontextmanager
async def in_memory(_directory: Path) -> AsyncIterator[Stage]:
    server = ApiServer()
    with trio.fail_after(20):
        yield Stage(server, MemoryApi(server))


@asynccontextmanager
async def over_https(directory: Path) -> AsyncIterator[Stage]:
    server = ApiServer()
    with trio.fail_after(20):
        async with serving(server, directory) as http:
            yield Stage(server, client_of(http))


def client_of(http: HttpApi) -> KubernetesApi:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(http.kubeconfig))
        return open_client()


pytestmark = pytest.mark.parametrize(
    "stage", [pytest.param(in_memory, id="memory"), pytest.param(over_https, id="https")]
)


def pod(server: ApiServer, name: str, **labels: str) -> None:
    server.put(PODS, NS, name, metadata={"labels": labels})


async def test_a_list_has_what_is_selected_and_a_version(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        pod(at.server, "b", app="noti")
        pod(at.server, "a", app="noti")
        pod(at.server, "c", app="shop")
        at.server.put(PODS, "elsewhere", "d", metadata={"labels": {"app": "noti"}})
        listing = await at.api.list(Selection(PODS, NS, labels="app=noti"))
        assert [one["metadata"]["name"] for one in listing.objects] == ["a", "b"]
        one = await at.api.list(Selection(PODS, NS, fields="metadata.name=c"))
        assert [found["metadata"]["name"] for found in one.objects] == ["c"]
        assert int(listing.version) > 0


async def test_a_watch_goes_on_where_a_list_ended(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        pod(at.server, "a", app="noti")
        listing = await at.api.list(Selection(PODS, NS, labels="app=noti"))
        pod(at.server, "b", app="noti")
        pod(at.server, "c", app="shop")
        seen = []
        async with at.api.watch(Selection(PODS, NS, labels="app=noti"), listing.version) as told:
            pod(at.server, "a", app="other")
            at.server.delete(PODS, NS, "b")
            async for change in told:
                seen.append((change.type, change.object["metadata"]["name"]))
                if len(seen) == 3:
                    break
        assert seen == [("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]


async def test_a_watch_yields_bookmarks_and_ends_when_the_server_wants(
    stage: Open, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        start = (await at.api.list(ALL_PODS)).version
        at.server.put(LEASES, NS, "other")
        async with at.api.watch(ALL_PODS, start) as told:
            at.server.send_bookmarks()
            first = await anext(told)
            at.server.end_watches()
            assert [change async for change in told] == []
        assert first.type == "BOOKMARK"
        assert int(first.version) > int(start)


async def test_a_watch_from_a_forgotten_version_is_gone(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        start = (await at.api.list(ALL_PODS)).version
        pod(at.server, "a")
        at.server.forget_past()
        with pytest.raises(VersionGone):
            async with at.api.watch(ALL_PODS, start) as told:
                await anext(told)


async def test_a_merge_patch_changes_its_keys_only(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        pod(at.server, "a", app="noti", old="1")
        patched = await at.api.merge_patch(
            PODS, NS, "a", {"metadata": {"labels": {"role": "leader", "old": None}}}
        )
        assert patched["metadata"]["labels"] == {"app": "noti", "role": "leader"}
        assert await at.api.get(PODS, NS, "a") == patched


async def test_a_patch_of_an_older_version_is_a_conflict(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        pod(at.server, "a")
        old = at.server.read(PODS, NS, "a")["metadata"]["resourceVersion"]
        pod(at.server, "a", newer="1")
        patch = {"metadata": {"resourceVersion": old, "labels": {"role": "leader"}}}
        with pytest.raises(ObjectConflict):
            await at.api.merge_patch(PODS, NS, "a", patch)
        assert at.server.read(PODS, NS, "a")["metadata"]["labels"] == {"newer": "1"}


async def test_a_status_is_patched_without_the_spec(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        at.server.put(CHECKERS, NS, "noti", spec={"rpcPort": 8400})
        patch = {"spec": {"rpcPort": 1}, "status": {"leaderNode": "noti-0"}}
        after = await at.api.merge_patch(CHECKERS, NS, "noti", patch, subresource="status")
        assert after["spec"] == {"rpcPort": 8400}
        assert after["status"] == {"leaderNode": "noti-0"}


async def test_of_two_who_replace_one_lease_one_has_a_conflict(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        wanted: dict[str, Any] = {"metadata": {"name": "l", "namespace": NS}, "spec": {"n": 1}}
        lease = await at.api.create(LEASES, NS, wanted)
        with pytest.raises(ObjectConflict):
            await at.api.create(LEASES, NS, wanted)
        second = await at.api.replace(LEASES, NS, "l", {**lease, "spec": {"n": 2}})
        assert second["spec"] == {"n": 2}
        with pytest.raises(ObjectConflict):
            await at.api.replace(LEASES, NS, "l", {**lease, "spec": {"n": 3}})


async def test_what_is_not_there_is_absent(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        with pytest.raises(ObjectAbsent):
            await at.api.get(LEASES, NS, "l")
        with pytest.raises(ObjectAbsent):
            await at.api.merge_patch(PODS, NS, "a", {"metadata": {"labels": {"a": "b"}}})
        with pytest.raises(ObjectAbsent):
            await at.api.replace(LEASES, NS, "l", {"metadata": {"name": "l", "namespace": NS}})


async def test_what_may_not_be_done_is_forbidden(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        at.server.forbidden |= {("pods", "list"), ("pods", "watch")}
        with pytest.raises(KubernetesForbidden, match="cannot list"):
            await at.api.list(ALL_PODS)
        with pytest.raises(KubernetesForbidden, match="cannot watch"):
            async with at.api.watch(ALL_PODS, "1") as told:
                await anext(told)


async def test_a_server_that_asks_for_patience_names_the_time(stage: Open, tmp_path: Path) -> None:
    async with stage(tmp_path) as at:
        at.server.throttled, at.server.retry_after_s = 1, 7.0
        with pytest.raises(KubernetesFailed) as failed:
            await at.api.list(ALL_PODS)
        assert failed.value.retry_after_s == 7.0
        await at.api.list(ALL_PODS)


async def test_an_outage_breaks_watches_and_is_over_when_it_is_over(
    stage: Open, tmp_path: Path
) -> None:
    async with stage(tmp_path) as at:
        start = (await at.api.list(ALL_PODS)).version
        async with at.api.watch(ALL_PODS, start) as told:
            at.server.stop()
            with pytest.raises(KubernetesFailed):
                await anext(told)
        with pytest.raises(KubernetesFailed):
            await at.api.list(ALL_PODS)
        at.server.start()
        pod(at.server, "a")
        async with at.api.watch(ALL_PODS, start) as told:
            assert (await anext(told)).object["metadata"]["name"] == "a"
