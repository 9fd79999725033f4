"""Peers of this cluster, or of none yet, are admitted; all others are told why not."""

from dataclasses import replace

import pytest
import trio

from noti.errors import ClusterMismatch
from noti.membership.admission import PeerAdmission
from noti.membership.tags import name_of
from noti.raft.core.membership import Configuration
from noti.raft.core.status import Status
from noti.raft.ports import Hello, MessageStream, Standing
from noti.swim.core.messages import Member
from tests.membership.nodes import member, status

MEMBER = status("abc")
NEW = replace(MEMBER, configuration=Configuration())


def admission(
    view: Status, *members: Member, streams: list[MessageStream] | None = None
) -> PeerAdmission:
    async def use(stream: MessageStream) -> None:
        await trio.lowlevel.checkpoint()
        assert streams is not None
        streams.append(stream)

    def known_as(node_id: str) -> str | None:
        return name_of(members, node_id)

    def hello() -> Hello:
        return Hello(view.configuration.cluster_id, "a", "name-a", level=2, supports=3)

    def is_member(node_id: str) -> bool:
        return node_id in view.configuration.members

    return PeerAdmission(hello, known_as, is_member, use)


@pytest.mark.parametrize(("view", "cluster"), [(MEMBER, "c1"), (NEW, "")])
def test_node_introduces_itself_with_the_cluster_that_it_belongs_to(
    view: Status, cluster: str
) -> None:
    assert admission(view).hello() == Hello(cluster, "a", "name-a", level=2, supports=3)


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (
            Hello("c1", "b", "name-b", level=0, supports=1),
            r"'name-b' is too old: .* level 2, .* 1 ",
        ),
        (
            Hello("c1", "b", "name-b", level=4, supports=4),
            r"'name-a' is too old: .* level 4, .* 3 ",
        ),
    ],
)
def test_node_that_is_too_old_for_the_other_is_rejected_and_told_what_to_install(
    peer: Hello, said: str
) -> None:
    with pytest.raises(ClusterMismatch, match=said + "at most: install "):
        admission(MEMBER, member("b")).admit(peer, proven=True)


@pytest.mark.parametrize(
    ("node_id", "standing"),
    [("b", Standing.MEMBER), ("joins", Standing.GOSSIPS), ("z", Standing.UNKNOWN)],
)
def test_member_counts_for_more_than_who_gossips_and_that_one_for_more_than_a_stranger(
    node_id: str, standing: Standing
) -> None:
    assert admission(MEMBER, member("joins")).standing(node_id) is standing


def test_node_that_does_not_know_the_level_yet_is_admitted() -> None:
    admission(MEMBER, member("b")).admit(Hello("", "b", "name-b", supports=2), proven=False)


@pytest.mark.parametrize("view", [MEMBER, NEW])
@pytest.mark.parametrize("cluster", ["c1", ""])
def test_node_of_the_cluster_or_of_none_yet_is_admitted(view: Status, cluster: str) -> None:
    admission(view, member("b")).admit(Hello(cluster, "b", "name-b", supports=2), proven=False)


@pytest.mark.parametrize(
    ("peer", "remedy"),
    [
        (Hello("other", "b", "name-b"), "--join"),
        (Hello("c1", "a", "name-b"), "copied"),
        (Hello("", "a", "name-b"), "copied"),
        (Hello("c1", "b", "name-a"), "--name"),
    ],
)
def test_node_of_another_cluster_or_under_our_own_name_or_id_is_rejected_with_a_remedy(
    peer: Hello, remedy: str
) -> None:
    with pytest.raises(ClusterMismatch, match=remedy):
        admission(MEMBER, member("b")).admit(peer, proven=True)


def test_node_under_the_id_of_another_one_is_rejected() -> None:
    with pytest.raises(ClusterMismatch, match="'c' comes with the node id of node 'name-b'"):
        admission(MEMBER, member("b")).admit(Hello("", "b", "c"), proven=False)


def test_what_a_certificate_proved_gossip_cannot_deny() -> None:
    admission(MEMBER, member("b")).admit(Hello("", "b", "c", supports=2), proven=True)


async def test_stream_of_an_admitted_peer_is_used() -> None:
    streams: list[MessageStream] = []
    stream: MessageStream = object()  # type: ignore[assignment]
    await admission(MEMBER, streams=streams).raft_stream(stream)
    assert streams == [stream]
