"""Raft learns from gossip where the peers are, and gossip what this node is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
import trio.testing

from noti.address import Address
from noti.membership.bootstrap import Bootstrap
from noti.membership.discovery import Discovery
from noti.membership.node_names import NodeNames, load_names
from noti.membership.tags import (
    TAG_CLUSTER,
    TAG_EXPECT,
    TAG_NODE_ID,
    TAG_PROMISE,
    TAG_PROPOSAL,
    TAG_RPC,
)
from noti.raft.core.membership import Configuration
from noti.raft.core.status import Status
from noti.swim.core.messages import Member, MemberState
from noti.trio_clock import TrioClock
from tests.membership.nodes import status
from tests.simulation.memory_disk import MemoryDisk


class Gossip:
    """A member list that a test writes."""

    def __init__(self) -> None:
        self.others: tuple[Member, ...] = ()
        self.tags: list[Mapping[str, str]] = []
        self.protected: list[Mapping[str, str]] = []
        self.changed = trio.Event()

    def members(self) -> tuple[Member, ...]:
        own = Member("a", ("10.0.0.1", 1), self.tags[-1] if self.tags else TAGS, ALIVE, 1)
        return (own, *self.others)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.append(tags)

    def protect(self, names: Mapping[str, str]) -> None:
        self.protected.append(names)

    async def wait_changed(self) -> None:
        await self.changed.wait()

    def show(self, *others: Member) -> None:
        self.others = others
        self.changed.set()
        self.changed = trio.Event()


class Consensus:
    """A log that is empty until somebody founds or joins a cluster."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.founded: list[Configuration] = []

    def status(self) -> Status:
        return replace(status("ab"), configuration=self.configuration)

    def bootstrap(self, configuration: Configuration) -> None:
        self.founded.append(configuration)
        self.configuration = configuration


ALIVE = MemberState.ALIVE
TAGS = {TAG_NODE_ID: "id-a", TAG_EXPECT: "2", TAG_RPC: "a:1"}


def other(**tags: str) -> Member:
    shown = {TAG_NODE_ID: "id-b", TAG_EXPECT: "2", TAG_RPC: "b:1", **tags}
    return Member("b", ("10.0.0.2", 1), shown, ALIVE, 1)


class Scene:
    """Discovery between the two."""

    def __init__(self, *, founds: bool = True) -> None:
        self.gossip = Gossip()
        self.consensus = Consensus()
        self.peers: list[Mapping[str, Address]] = []
        self.saved: list[tuple[str, ...]] = []
        self.disk = MemoryDisk()
        self.proven: dict[str, str] = {}
        self.discovery = Discovery(
            self.gossip,
            self.consensus,
            self.peers.append,
            node_id="id-a",
            bootstrap=Bootstrap("a", "id-a", 2) if founds else None,
            save_promise=self.save,
            names=NodeNames(self.disk, lambda: self.proven, {}),
            clock=TrioClock(),
        )

    async def save(self, promised: tuple[str, ...]) -> None:
        assert TAG_PROMISE not in self.gossip.tags[-1], "it was shown before it was on disk"
        await trio.sleep(0.5)
        self.saved.append(promised)


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        scene.discovery.show(TAGS)
        await nursery.start(scene.discovery.run)
        yield
        nursery.cancel_scope.cancel()


async def test_addresses_of_peers_follow_the_member_list_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene()
    async with running(scene):
        assert scene.peers[-1] == {}
        scene.gossip.show(other())
        await trio.testing.wait_all_tasks_blocked()
        assert scene.peers[-1] == {"id-b": ("10.0.0.2", 1)}
        assert trio.current_time() == 0


async def test_cluster_is_founded_when_the_others_have_promised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene()
    async with running(scene):
        scene.gossip.show(other())
        await trio.sleep(0.6)
        assert scene.saved == []
        scene.gossip.show(other(**{TAG_PROPOSAL: scene.gossip.tags[-1][TAG_PROPOSAL]}))
        await trio.sleep(0.6)
        assert scene.saved == [("id-a", "id-b")]
        promise = scene.gossip.tags[-1][TAG_PROMISE]
        assert scene.consensus.founded == []
        scene.gossip.show(other(**{TAG_PROMISE: promise}))
        await trio.testing.wait_all_tasks_blocked()
        assert scene.consensus.founded == [Configuration(promise, ("id-a", "id-b"))]
        await trio.sleep(1.5)
        assert scene.gossip.tags[-1] == {**TAGS, TAG_CLUSTER: promise}


async def test_node_with_a_cluster_shows_it_and_founds_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene()
    scene.consensus.configuration = Configuration("c", ("id-a",))
    async with running(scene):
        scene.gossip.show(other())
        await trio.sleep(5)
    assert scene.gossip.tags == [TAGS, {**TAGS, TAG_CLUSTER: "c"}], "and shows it once"
    assert scene.consensus.founded == []


async def test_cluster_that_a_leader_brought_is_shown_within_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(founds=False)
    async with running(scene):
        scene.gossip.show(other(**{TAG_CLUSTER: "c"}))
        await trio.sleep(0.1)
        assert TAG_PROMISE not in scene.gossip.tags[-1]
        scene.consensus.configuration = Configuration("c", ("id-b",))
        await trio.sleep(1.1)
        assert scene.gossip.tags[-1][TAG_CLUSTER] == "c"


async def test_gossip_is_told_who_the_clusters_nodes_are_and_their_names_are_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    scene = Scene(founds=False)
    async with running(scene):
        assert scene.gossip.protected == []
        scene.consensus.configuration = Configuration("c", ("id-a", "id-b"), learners=("id-c",))
        await trio.sleep(1.1)
        assert scene.gossip.protected == [{"id-a": "", "id-b": "", "id-c": ""}]
        scene.proven["id-b"] = "b"
        await trio.sleep(1.1)
        assert scene.gossip.protected[-1] == {"id-a": "", "id-b": "b", "id-c": ""}
        assert await load_names(scene.disk) == {"id-b": "b"}
        scene.consensus.configuration = Configuration("c", ("id-a",))
        await trio.sleep(5)
        assert scene.gossip.protected[2:] == [{"id-a": ""}], "it is told once"
