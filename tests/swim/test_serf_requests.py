"""What an operator asks of all members: over sockets, of two nodes in one process."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from structlog.typing import EventDict

from noti.address import Address
from noti.errors import LocalError, Overloaded, Unavailable
from noti.swim.core.encoding import pack_ip
from noti.swim.core.events import Event, QueryAnswered, QueryEnded, QueryRequested
from noti.swim.core.keyring import KeyRing, format_key
from noti.swim.core.messages import VERSIONS, Alive, Member, MemberState
from noti.swim.core.packets import encode, encode_tags
from noti.swim.core.sealing import Encryption
from noti.swim.core.serf.messages import SerfType, pack_serf
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.serf_requests import (
    QUERIES_MAX,
    KeyAnswer,
    KeyOperation,
    QueryAnswer,
    SerfRequests,
)
from noti.swim.sockets import SocketNetwork
from noti.trio_clock import TrioClock

LOCALHOST = "127.0.0.1"
FIRST, SECOND = bytes(16), bytes(range(32))


def make(
    name: str,
    *seeds: Address,
    keys: KeyRing | None = None,
    encryption: Encryption = Encryption.REQUIRED,
) -> Gossip:
    return Gossip(
        name=name,
        bind=(LOCALHOST, 0),
        advertise=None,
        seeds=seeds,
        timing=SwimConfig.local(),
        network=SocketNetwork(),
        clock=TrioClock(),
        rng=random.Random(name),
        keys=keys,
        encryption=encryption,
    )


@asynccontextmanager
async def pair(*rings: KeyRing | None) -> AsyncIterator[tuple[Gossip, Gossip]]:
    """Two nodes, n1 and n2, that know each other."""
    ring1, ring2 = rings or (None, None)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            n1 = make("n1", keys=ring1)
            address = await nursery.start(n1.run)
            n2 = make("n2", address, keys=ring2)
            await nursery.start(n2.run)
            for each in (n1, n2):
                while len(each.members()) < 2:
                    await each.wait_changed()
            yield n1, n2
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def alone(gossip: Gossip) -> AsyncIterator[Address]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            yield await nursery.start(gossip.run)
        nursery.cancel_scope.cancel()


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"noti_swim_{name}_received_total") or 0.0


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - logs and metrics wake nobody
            await trio.sleep(0.01)


async def test_event_reaches_the_other_node_once_and_is_counted_there() -> None:
    before = counted("user_events")
    async with pair() as (n1, _):
        n1.send_event("deploy", b"1")
        await until(lambda: counted("user_events") == before + 1)
        n1.send_event("again", b"", coalesce=False)
        await until(lambda: counted("user_events") == before + 2)
    assert counted("user_events") == before + 2


async def test_query_is_acked_by_both_nodes_and_ends_in_time() -> None:
    async with pair() as (n1, _):
        answers = [each async for each in n1.query("uptime", timeout_s=0.5, wants_acks=True)]
    assert sorted(answers, key=lambda answer: answer.node) == [
        QueryAnswer("n1", True, b""),
        QueryAnswer("n2", True, b""),
    ]


async def test_filters_choose_who_answers() -> None:
    async with pair() as (n1, n2):
        n2.set_tags({"role": "web-2"})
        while not any(member.tags for member in n1.members()):
            await n1.wait_changed()

        async def acks(**filters: object) -> list[str]:
            query = n1.query("q", timeout_s=0.4, wants_acks=True, **filters)  # type: ignore[arg-type]
            return sorted([answer.node async for answer in query])

        assert await acks(nodes=["n2", "n3"]) == ["n2"]
        assert await acks(tags={"role": "b-[0-9]"}) == ["n2"]
        assert await acks(tags={"role": "^$"}) == ["n1"]
        assert await acks(tags={"role": "web"}, nodes=["n1"]) == []


async def test_everyone_answers_a_ping_over_other_members_too() -> None:
    async with pair() as (n1, _):
        query = n1.query("_serf_ping", timeout_s=0.5, wants_acks=True, relay_factor=3)
        assert sorted([answer.node async for answer in query]) == ["n1", "n2"]


async def test_keys_are_rotated_on_both_nodes_while_they_gossip() -> None:
    rings = KeyRing([FIRST]), KeyRing([FIRST])
    async with pair(*rings) as (n1, n2):
        for operation, key in (
            (KeyOperation.INSTALL, SECOND),
            (KeyOperation.USE, SECOND),
            (KeyOperation.REMOVE, FIRST),
        ):
            report = await n1.keys_query(operation, key)
            assert [(each.node, each.done) for each in report.answers] == [
                ("n1", True),
                ("n2", True),
            ]
            assert report.silent == ()
        listed = await n2.keys_query(KeyOperation.LIST)
        assert [each.keys for each in listed.answers] == [(format_key(SECOND),)] * 2
        assert {each.primary for each in listed.answers} == {format_key(SECOND)}
        assert [member.state for member in n1.members()] == [MemberState.ALIVE] * 2
    assert [ring.keys for ring in rings] == [(SECOND,)] * 2


async def test_member_that_cannot_use_a_key_says_why_without_the_key() -> None:
    async with pair(KeyRing([FIRST, SECOND]), KeyRing([FIRST])) as (n1, _):
        report = await n1.keys_query(KeyOperation.USE, SECOND)
        done, rejected = report.answers
    assert (done.node, done.done, done.text) == ("n1", True, "")
    assert (rejected.node, rejected.done) == ("n2", False)
    assert "install it first" in rejected.text
    assert format_key(SECOND) not in repr(report)


async def listed_by_one(
    ring: KeyRing | None, encryption: Encryption = Encryption.REQUIRED
) -> KeyAnswer:
    """What a node without others says of its keys."""
    gossip = make("n1", keys=ring, encryption=encryption)
    async with alone(gossip):
        (answer,) = (await gossip.keys_query(KeyOperation.LIST)).answers
    return answer


async def test_without_a_key_there_is_none_to_change() -> None:
    answer = await listed_by_one(None)
    assert not answer.done
    assert "encryption not enabled" in answer.text


@pytest.mark.parametrize("encryption", [Encryption.UNDERSTOOD, Encryption.SENT])
async def test_where_packets_are_taken_without_a_key_nobody_reads_or_changes_keys(
    encryption: Encryption,
) -> None:
    answer = await listed_by_one(KeyRing([FIRST]), encryption)
    assert not answer.done
    assert answer.keys == ()


async def test_member_that_does_not_answer_about_keys_is_named() -> None:
    async with pair() as (n1, _):
        silent = (await n1.keys_query(KeyOperation.LIST, timeout_s=0.000001)).silent
    assert silent == ("n2",)


def said(logs: Sequence[EventDict]) -> list[EventDict]:
    return [line for line in logs if "another node uses the name" in line["event"]]


async def test_node_hears_how_many_members_know_it_when_another_uses_its_name() -> None:
    with capture_logs() as logs:
        async with pair() as (n1, _), SocketNetwork().open_datagrams((LOCALHOST, 0)) as other:
            to = next(member.address for member in n1.members() if member.name == "n1")
            forged = Alive(1, "n1", other.address, encode_tags({"id": "x"}), VERSIONS)
            other.send(encode(forged), to)
            await until(lambda: said(logs))
            assert [member.state for member in n1.members()] == [MemberState.ALIVE] * 2
    (line,) = said(logs)
    assert (line["members_asked"], line["members_for_this_node"]) == (1, 1)
    assert "most members know this one" in line["event"]


async def test_node_known_to_fewer_members_than_another_of_its_name_hears_that_and_goes_on() -> (
    None
):
    votes = {"n2": ("10.0.0.1", 7946), "n3": ("10.0.0.9", 7946), "n4": ("10.0.0.9", 7946)}
    own = Member("n1", ("10.0.0.1", 7946), {}, MemberState.ALIVE, 1)

    def answer(event: Event) -> None:
        assert isinstance(event, QueryRequested)
        for node, (host, port) in votes.items():
            fields = {"Addr": pack_ip(host), "Port": port}
            vote = pack_serf(SerfType.CONFLICT_RESPONSE, fields)
            requests.take(QueryAnswered(event.query_id, node, False, vote))
        requests.take(QueryAnswered(event.query_id, "n5", False, b"rubbish"))
        requests.take(QueryEnded(event.query_id))

    requests = SerfRequests(
        "n1",
        handle=answer,
        members=lambda: (own,),
        members_max=8,
        clock=TrioClock(),
        rng=random.Random(1),
        ring=None,
    )
    async with trio.open_nursery() as nursery:
        with capture_logs() as logs:
            nursery.start_soon(requests.run)
            requests.on_conflict()
            await until(lambda: said(logs))
        nursery.cancel_scope.cancel()
    (line,) = said(logs)
    assert (line["members_asked"], line["members_for_this_node"]) == (3, 1)
    assert "rename this one" in line["event"]


async def test_too_long_or_senseless_requests_are_rejected_in_one_line() -> None:
    gossip = make("n1")
    async with alone(gossip):
        for request in (
            lambda: gossip.send_event("x" * 600),
            lambda: gossip.send_event("", b""),
            lambda: gossip.send_event("deploy", b"x" * 512),
            lambda: gossip.query("q", b"x" * 1000),
            lambda: gossip.query(""),
            lambda: gossip.query("_serf_use-key"),
            lambda: gossip.query("q", timeout_s=0),
            lambda: gossip.query("q", relay_factor=256),
            lambda: gossip.query("q", tags={"role": "(\n"}),
            lambda: gossip.force_leave("nobody"),
        ):
            with pytest.raises(LocalError) as caught:
                request()
            assert len(str(caught.value).splitlines()) == 1


async def test_requests_before_the_node_gossips_are_rejected() -> None:
    gossip = make("n1")
    for request in (
        lambda: gossip.send_event("deploy"),
        lambda: gossip.query("uptime"),
        lambda: gossip.force_leave("n2"),
    ):
        with pytest.raises(Unavailable):
            request()


async def test_queries_that_wait_are_bounded_and_those_given_up_make_room() -> None:
    gossip = make("n1")
    async with alone(gossip):
        queries = [gossip.query("q", timeout_s=0.2) for _ in range(QUERIES_MAX)]
        with pytest.raises(Overloaded):
            gossip.query("q")
        for query in queries:
            assert [each async for each in query] == []
        gossip.query("q").close()


async def test_query_ends_when_its_node_stops() -> None:
    gossip = make("n1")
    async with alone(gossip):
        query = gossip.query("q", timeout_s=3600)
    assert [each async for each in query] == []


async def test_failed_member_has_left_when_the_operator_says_so() -> None:
    n1 = make("n1")
    async with alone(n1) as address:
        async with alone(make("n2", address)):
            while len(n1.members()) < 2:
                await n1.wait_changed()
        while n1.members()[1].state is not MemberState.DEAD:
            await n1.wait_changed()
        n1.force_leave("n2")
        assert n1.members()[1].state is MemberState.LEFT
        n1.force_leave("n2", prune=True)
        assert [member.name for member in n1.members()] == ["n1"]
