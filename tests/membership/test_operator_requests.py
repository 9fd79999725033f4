"""What a node does for its operator, and in whose words."""

from collections.abc import Mapping, Sequence

import pytest
import trio
from structlog.testing import capture_logs

from noti.errors import LocalError, MessageInvalid
from noti.membership.operator_requests import OperatorRequests, status_of
from noti.swim.core.messages import VERSIONS, Member, MemberState
from noti.swim.serf_requests import KeyAnswer, KeyOperation, KeysReport, QueryAnswer


class Gossip:
    """Stands for gossip: notes what it is asked, and answers as it is told."""

    def __init__(self, *members: Member) -> None:
        self._members = members
        self.asked: list[object] = []
        self.query_answers: list[QueryAnswer] = []
        self.report = KeysReport((), ())
        self.protected: set[str] = set()
        self.distances_s: dict[tuple[str, str], float] = {}

    def members(self) -> tuple[Member, ...]:
        return self._members

    def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        self.asked.append((name, payload, coalesce))

    def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        nodes: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        wants_acks: bool = False,
        relay_factor: int = 0,
    ) -> trio.MemoryReceiveChannel[QueryAnswer]:
        self.asked.append((name, payload, nodes, tags, timeout_s, wants_acks, relay_factor))
        sending, receiving = trio.open_memory_channel[QueryAnswer](10)
        for answer in self.query_answers:
            sending.send_nowait(answer)
        sending.close()
        self.last_query = receiving
        return receiving

    async def keys_query(
        self, operation: KeyOperation, key: bytes | None = None, *, timeout_s: float | None = None
    ) -> KeysReport:
        await trio.lowlevel.checkpoint()
        self.asked.append((operation, key, timeout_s))
        return self.report

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        self.asked.append((name, prune))
        if prune and name not in self.protected:
            self._members = tuple(each for each in self._members if each.name != name)

    def distance_s(self, one: str, other: str) -> float | None:
        return self.distances_s.get((one, other))


class Operator:
    """Asks, and keeps the answers."""

    def __init__(self, gossip: Gossip) -> None:
        self.gossip = gossip
        self.answers: list[Mapping[str, object]] = []
        self.leaves: list[float] = []
        self._requests = OperatorRequests("me", self._leave, lambda: ["a", "me"], gossip)

    async def ask(self, request: object) -> list[Mapping[str, object]]:
        self.answers = []
        await self._requests.carry_out(request, self._take)
        return self.answers

    async def _leave(self, within_s: float) -> None:
        await trio.lowlevel.checkpoint()
        self.leaves.append(within_s)

    async def _take(self, answer: Mapping[str, object]) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(answer)


def member(
    state: MemberState = MemberState.ALIVE, *, name: str = "a", leaving: bool = False
) -> Member:
    address = ("10.0.0.1", 8401)
    return Member(name, address, {"id": "1", "a": "b"}, state, 7, VERSIONS, leaving)


async def test_order_to_leave_is_passed_on_with_its_seconds() -> None:
    operator = Operator(Gossip())
    assert await operator.ask({"leave_within_s": 7.5}) == []
    assert operator.leaves == [7.5]


async def test_voters_that_live_are_told_by_name() -> None:
    assert await Operator(Gossip()).ask({"request": "voters"}) == [{"name": "a"}, {"name": "me"}]


async def test_every_member_is_told_with_all_that_serf_tells() -> None:
    told = await Operator(Gossip(member(), member(name="b"))).ask({"request": "members"})
    assert [one["name"] for one in told] == ["a", "b"]
    assert told[0] == {
        "name": "a",
        "host": "10.0.0.1",
        "port": 8401,
        "tags": {"a": "b", "id": "1"},
        "status": "alive",
        "state": "alive",
        "incarnation": 7,
        "protocol": {"min": 2, "max": 5, "version": 5},
    }


@pytest.mark.parametrize(
    ("state", "leaving", "status"),
    [
        (MemberState.ALIVE, False, "alive"),
        (MemberState.SUSPECT, False, "alive"),
        (MemberState.ALIVE, True, "leaving"),
        (MemberState.SUSPECT, True, "leaving"),
        (MemberState.DEAD, False, "failed"),
        (MemberState.LEFT, True, "left"),
    ],
)
def test_status_is_said_in_the_words_of_serf(
    state: MemberState, leaving: bool, status: str
) -> None:
    assert status_of(member(state, leaving=leaving)) == status


async def test_event_is_sent_with_its_payload() -> None:
    operator = Operator(Gossip())
    event = {"request": "event", "name": "deploy", "payload": "AP8=", "coalesce": False}
    assert await operator.ask(event) == []
    assert operator.gossip.asked == [("deploy", b"\x00\xff", False)]


QUERY = {
    "request": "query",
    "name": "uptime",
    "payload": "MQ==",
    "nodes": ["a"],
    "tags": {"role": "web"},
    "timeout_s": 0.5,
    "wants_acks": True,
    "relay_factor": 2,
}
KEYS = {"request": "keys", "operation": "use", "key": "AQI=", "timeout_s": None}


async def test_query_is_asked_as_wished_and_each_answer_is_told() -> None:
    operator = Operator(Gossip())
    operator.gossip.query_answers = [
        QueryAnswer("a", is_ack=True, payload=b""),
        QueryAnswer("a", is_ack=False, payload=b"up\xff"),
    ]
    assert await operator.ask(QUERY) == [
        {"node": "a", "is_ack": True, "payload": ""},
        {"node": "a", "is_ack": False, "payload": "dXD/"},
    ]
    assert operator.gossip.asked == [("uptime", b"1", ["a"], {"role": "web"}, 0.5, True, 2)]


async def test_query_is_over_for_gossip_when_nobody_wants_its_answers_any_more() -> None:
    operator = Operator(Gossip())
    operator.gossip.query_answers = [QueryAnswer("a", is_ack=True, payload=b"")]
    with trio.CancelScope() as scope:
        scope.cancel()
        await operator.ask(QUERY)
    with pytest.raises(trio.ClosedResourceError):
        operator.gossip.last_query.receive_nowait()


async def test_answers_about_keys_are_told_with_those_who_gave_none() -> None:
    operator = Operator(Gossip())
    operator.gossip.report = KeysReport(
        (KeyAnswer("a", done=True, text="", keys=("k1", "k2"), primary="k1"),), ("b",)
    )
    assert await operator.ask({**KEYS, "operation": "list", "key": None}) == [
        {"node": "a", "done": True, "text": "", "keys": ["k1", "k2"], "primary": "k1"},
        {"node": "b", "silent": True},
    ]
    for operation in ("install", "use", "remove"):
        await operator.ask({**KEYS, "operation": operation})
    assert operator.gossip.asked == [
        (KeyOperation.LIST, None, None),
        (KeyOperation.INSTALL, b"\x01\x02", None),
        (KeyOperation.USE, b"\x01\x02", None),
        (KeyOperation.REMOVE, b"\x01\x02", None),
    ]


async def test_force_leave_is_passed_on_with_its_wish_to_prune() -> None:
    operator = Operator(Gossip())
    for prune in (False, True):
        await operator.ask({"request": "force-leave", "name": "a", "prune": prune})
    assert operator.gossip.asked == [("a", False), ("a", True)]


async def test_only_a_member_that_is_gone_is_forgotten() -> None:
    dead, left = member(MemberState.DEAD, name="dead"), member(MemberState.LEFT, name="left")
    operator = Operator(Gossip(dead, left, member(MemberState.SUSPECT, name="suspect")))
    for name in ("dead", "left"):
        assert await operator.ask({"request": "forget", "name": name}) == []
    assert operator.gossip.asked == [("dead", True), ("left", True)]
    for name, problem in (("suspect", "is alive; stop it first"), ("nobody", "no member nobody")):
        with pytest.raises(LocalError, match=problem):
            await operator.ask({"request": "forget", "name": name})


async def test_member_that_raft_keeps_is_not_forgotten_and_that_is_told() -> None:
    operator = Operator(Gossip(member(MemberState.DEAD, name="voter")))
    operator.gossip.protected.add("voter")
    with pytest.raises(LocalError, match="still a voter or a learner"):
        await operator.ask({"request": "forget", "name": "voter"})


async def test_what_changes_the_cluster_is_logged_and_no_key_is() -> None:
    operator = Operator(Gossip(member(MemberState.LEFT, name="left")))
    operator.gossip.report = KeysReport((KeyAnswer("a", done=True, text=""),), ())
    changes: list[dict[str, object]] = [
        {"request": "event", "name": "deploy", "payload": "", "coalesce": True},
        {"request": "force-leave", "name": "left", "prune": False},
        {"request": "forget", "name": "left"},
        {**KEYS},
    ]
    with capture_logs() as logs:
        for request in changes:
            await operator.ask(request)
        await operator.ask({**KEYS, "operation": "list", "key": None})
        await operator.ask({"request": "members"})
    assert [line["event"] for line in logs] == [
        "the operator sent an event",
        "the operator says that a member left",
        "the operator has a member forgotten",
        "the operator changed keys",
    ]
    assert logs[-1]["operation"] == "use"
    assert "AQI=" not in str(logs)
    assert str(b"\x01\x02") not in str(logs)


async def test_round_trip_is_that_to_this_node_unless_two_are_named() -> None:
    operator = Operator(Gossip(*[member(name=name) for name in ("a", "b", "me")]))
    operator.gossip.distances_s = {("a", "me"): 0.1, ("a", "b"): 0.2}
    for nodes, names, rtt_s in (
        (["a"], ["a", "me"], 0.1),
        (["a", "b"], ["a", "b"], 0.2),
        (["b", "a"], ["b", "a"], None),
    ):
        told = await operator.ask({"request": "rtt", "nodes": nodes})
        assert told == [{"nodes": names, "rtt_s": rtt_s}]
    with pytest.raises(LocalError, match="no member nobody"):
        await operator.ask({"request": "rtt", "nodes": ["a", "nobody"]})


@pytest.mark.parametrize(
    "nonsense",
    [
        [],
        "members",
        {"request": "nonsense"},
        {"leave_within_s": -1},
        {"leave_within_s": True},
        {"leave_within_s": 1e99},
        {"leave_within_s": "5"},
        {"request": "event", "name": "a", "payload": "not base64", "coalesce": True},
        {"request": "event", "name": "a", "payload": ""},
        {"request": "query"},
        {**QUERY, "relay_factor": 256},
        {**QUERY, "timeout_s": 0.0},
        {**QUERY, "timeout_s": 4000.0},
        {**QUERY, "nodes": [1]},
        {**QUERY, "tags": {"a": 1}},
        {"request": "rtt", "nodes": []},
        {"request": "rtt", "nodes": ["a", "b", "c"]},
        {**KEYS, "operation": "steal"},
        {**KEYS, "operation": "list"},
        {**KEYS, "key": None},
        {**KEYS, "timeout_s": -1.0},
    ],
)
async def test_request_that_this_version_does_not_know_is_rejected(nonsense: object) -> None:
    operator = Operator(Gossip())
    with pytest.raises(MessageInvalid, match="not a request"):
        await operator.ask(nonsense)
    assert not operator.leaves
    assert not operator.gossip.asked
