"""The leader's side of replication, follower by follower."""

import random

import pytest

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import ReadEntries, VoterForgot
from noti.raft.core.log import RaftLog, Reading
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    EntryKind,
    Message,
    NodeId,
    Snapshot,
    SnapshotChunk,
    SnapshotReceived,
)
from noti.raft.core.records import new_entry
from noti.raft.core.replication import Replication
from tests import promises

THREE = encode_configuration(Configuration("c", ("n1", "n2", "n3")))


class Leader:
    """Replication of n1 in term 2 over a log of `last` entries, and what it sent."""

    def __init__(self, last: int = 5, **limits: float) -> None:
        self.log = RaftLog(None, [new_entry(1, 1, EntryKind.CONFIGURATION, THREE)])
        self.sent: list[tuple[NodeId, Message]] = []
        self.append(last - 1)
        config = RaftConfig("n1", **limits)  # type: ignore[arg-type]
        self.orders: list[ReadEntries] = []
        self.reading = Reading(
            self.log, bytes_max=config.append_bytes_max, order=self.orders.append
        )
        self.replication = Replication(
            config, self.log, reading=self.reading, term=2, now=0.0, send=self.send
        )

    def send(self, to: NodeId, message: Message) -> None:
        self.sent.append((to, message))

    def append(self, count: int, term: int = 1) -> None:
        for _ in range(count):
            index = self.log.last_index + 1
            self.log.append([new_entry(index, term, EntryKind.COMMAND, b"12345")])

    def to(self, node: NodeId) -> list[Message]:
        """Return what was sent to a node since the last look."""
        mine = [message for to, message in self.sent if to == node]
        self.sent = [(to, message) for to, message in self.sent if to != node]
        return mine

    def ranges(self, node: NodeId) -> list[tuple[int, int]]:
        """Return (previous index, number of entries) of each append."""
        return [
            (m.previous_index, len(m.entries))
            for m in self.to(node)
            if isinstance(m, AppendRequest)
        ]

    def yes(self, node: NodeId, match: int, now: float = 0.0, number: int = 0) -> bool:
        answer = AppendAccepted(node, 2, match, number)
        return self.replication.on_response(answer, 0, now)

    def no(self, node: NodeId, rejected: int, hint: int, hint_term: int = 1) -> bool:
        answer = AppendRejected(node, 2, rejected, hint, hint_term)
        return self.replication.on_response(answer, 0, 0.0)


def test_first_heartbeat_probes_at_the_end_of_the_log() -> None:
    leader = Leader()
    leader.replication.heartbeat(0, 0.0)
    assert leader.ranges("n2") == [(5, 0)]
    assert leader.ranges("n3") == [(5, 0)]
    assert leader.to("n1") == []


def test_refused_probe_is_repeated_at_the_hint_with_all_that_follows() -> None:
    leader = Leader()
    leader.replication.heartbeat(0, 0.0)
    leader.to("n2")
    leader.no("n2", rejected=5, hint=2)
    assert leader.ranges("n2") == [(2, 3)]


def test_new_entries_go_to_whoever_is_in_step_and_nobody_receives_nothing() -> None:
    leader = Leader()
    leader.yes("n2", 5)
    leader.to("n2")  # the probe is over: it was told of the commit
    leader.append(1, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.ranges("n2") == [(5, 1)]
    leader.replication.send_new_entries(0, 0.0)
    assert leader.to("n2") == []


@promises.PIPELINE_BOUNDED
def test_messages_are_cut_by_bytes_and_pipelined() -> None:
    leader = Leader(append_bytes_max=10)
    leader.yes("n2", 5)
    leader.to("n2")  # the probe is over: it was told of the commit
    leader.append(5, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.ranges("n2") == [(5, 2), (7, 2), (9, 1)]


def test_window_stops_the_pipeline_and_each_answer_lets_one_more_go() -> None:
    leader = Leader(append_bytes_max=5, in_flight_messages_max=2)
    leader.yes("n2", 5)
    leader.to("n2")  # the probe is over: it was told of the commit
    leader.append(4, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.ranges("n2") == [(5, 1), (6, 1)]
    assert leader.yes("n2", 6)
    assert leader.ranges("n2") == [(7, 1)]


def test_window_is_full_as_well_when_the_bytes_in_it_are_too_many() -> None:
    leader = Leader(append_bytes_max=5, in_flight_bytes_max=15)
    leader.yes("n2", 5)
    leader.to("n2")
    leader.append(6, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.ranges("n2") == [(5, 1), (6, 1), (7, 1)]
    assert leader.yes("n2", 7)
    assert leader.ranges("n2") == [(8, 1), (9, 1)]


def test_announced_commit_reaches_everybody_at_once() -> None:
    leader = Leader()
    leader.yes("n2", 5)
    leader.to("n2")  # the probe is over: it was told of the commit
    leader.replication.announce_commit(4, 0.0)
    for node in ("n2", "n3"):
        (message,) = leader.to(node)
        assert isinstance(message, AppendRequest)
        assert message.commit == 4


def test_answer_of_a_stranger_or_beyond_the_log_is_no_news() -> None:
    leader = Leader()
    assert not leader.yes("n9", 5)
    assert not leader.yes("n2", 6)
    assert leader.replication.matches() == {"n2": 0, "n3": 0}


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [(5, (0, 0), 0), (5, (4, 0), 4), (2, (5, 5), 5), (5, (3, 4), 4), (0, (3, 0), 0)],
)
def test_quorum_index_counts_the_leader_like_everybody(
    own: int, others: tuple[int, int], expected: int
) -> None:
    leader = Leader()
    leader.yes("n2", others[0])
    leader.yes("n3", others[1])
    assert leader.replication.quorum_index(own) == expected


def test_quorum_must_have_answered_within_the_last_election_timeout() -> None:
    leader = Leader()
    leader.yes("n2", 5, now=0.25)
    assert leader.replication.check_quorum(0.75)
    assert not leader.replication.check_quorum(0.76)


def test_round_is_confirmed_by_a_quorum_and_never_by_an_invented_number() -> None:
    leader = Leader()
    assert [leader.replication.heartbeat(0, 0.0) for _ in range(3)] == [1, 2, 3]
    assert leader.replication.confirmed_round() == 0
    leader.yes("n2", 5, number=2)
    assert leader.replication.confirmed_round() == 2
    leader.yes("n3", 5, number=99)
    assert leader.replication.confirmed_round() == 3


# --- snapshots ------------------------------------------------------------------------------------


def compacted() -> Leader:
    """A leader whose log begins after entry 8 of 10, with a snapshot of 8."""
    leader = Leader(last=10, snapshot_window_bytes=1024)
    leader.log.compact(Snapshot(8, 1, THREE, (b"0123", b"4567", b"89")), keep_entries=0)
    return leader


def test_follower_that_needs_compacted_entries_gets_the_snapshot_and_only_that() -> None:
    leader = compacted()
    leader.no("n2", rejected=10, hint=3)
    chunks = leader.to("n2")
    assert [m.data for m in chunks if isinstance(m, SnapshotChunk)] == [b"0123", b"4567", b"89"]
    assert len(chunks) == 3
    leader.append(1, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.to("n2") == []
    leader.yes("n2", 8)
    assert leader.ranges("n2") == [(8, 3)]


def test_heartbeat_during_a_snapshot_keeps_the_follower_quiet_and_asks_nothing() -> None:
    leader = compacted()
    leader.no("n2", rejected=10, hint=3)
    leader.to("n2")
    leader.replication.heartbeat(9, 0.1)
    (beat,) = leader.to("n2")
    assert isinstance(beat, AppendRequest)
    assert (beat.previous_index, beat.previous_term, beat.entries) == (0, 0, ())


def test_snapshot_without_an_answer_is_sent_again_after_a_while() -> None:
    leader = compacted()
    leader.no("n2", rejected=10, hint=3)
    leader.to("n2")
    leader.replication.heartbeat(0, 5.0)
    assert not any(isinstance(m, SnapshotChunk) for m in leader.to("n2"))
    leader.replication.heartbeat(0, 5.1)
    assert any(isinstance(m, SnapshotChunk) for m in leader.to("n2"))


def test_snapshot_that_ends_at_the_last_entry_leaves_the_follower_in_step() -> None:
    leader = Leader(last=8)
    leader.log.compact(Snapshot(8, 1, THREE, (b"",)), keep_entries=0)
    leader.no("n2", rejected=8, hint=0, hint_term=0)
    leader.to("n2")
    leader.yes("n2", 8)
    assert leader.to("n2") == []
    leader.append(1, term=2)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.ranges("n2") == [(8, 1)]


def test_broken_stream_during_a_snapshot_starts_it_again() -> None:
    leader = compacted()
    leader.no("n2", rejected=10, hint=3)
    leader.to("n2")
    leader.replication.on_lost("n2")
    leader.replication.on_connected("n2", 0, 0.1)
    assert any(isinstance(m, SnapshotChunk) for m in leader.to("n2"))


def test_snapshot_is_sent_no_faster_than_the_follower_takes_it_in() -> None:
    leader = Leader(last=10, snapshot_window_bytes=8)
    leader.log.compact(Snapshot(8, 1, THREE, (b"0123", b"4567", b"89ab", b"c")), keep_entries=0)
    leader.no("n2", rejected=10, hint=3)
    assert pieces_in(leader.to("n2")) == [b"0123", b"4567"]
    leader.replication.on_response(SnapshotReceived("n2", 2, 8, 4), 0, 0.1)
    assert pieces_in(leader.to("n2")) == [b"89ab"]
    leader.replication.on_response(SnapshotReceived("n2", 2, 8, 4), 0, 0.1)
    assert pieces_in(leader.to("n2")) == [], "nothing new arrived"
    leader.replication.on_response(SnapshotReceived("n2", 2, 7, 8), 0, 0.1)
    leader.replication.on_response(SnapshotReceived("n2", 2, 8, 13), 0, 0.1)
    assert pieces_in(leader.to("n2")) == [], "that is another one, or more than was sent"
    leader.replication.on_response(SnapshotReceived("n2", 2, 8, 12), 0, 0.1)
    assert pieces_in(leader.to("n2")) == [b"c"]


def test_snapshot_that_gets_on_is_not_begun_anew_however_long_it_takes() -> None:
    leader = Leader(last=10, snapshot_window_bytes=4)
    pieces = (b"0123", b"4567", b"89ab")
    leader.log.compact(Snapshot(8, 1, THREE, pieces), keep_entries=0)
    leader.no("n2", rejected=10, hint=3)
    leader.append(1, term=2)
    leader.log.compact(Snapshot(11, 2, THREE, (b"newer",)), keep_entries=0)
    sent = pieces_in(leader.to("n2"))
    for count in (1, 2):
        now = count * 4.0
        leader.replication.on_response(SnapshotReceived("n2", 2, 8, count * 4), 0, now)
        leader.replication.heartbeat(0, now + 3.0)
        sent += pieces_in(leader.to("n2"))
    assert sent == list(pieces), "of the one that was begun with"


def pieces_in(messages: list[Message]) -> list[bytes]:
    return [message.data for message in messages if isinstance(message, SnapshotChunk)]


# --- reading back ---------------------------------------------------------------------------------


def forgetful(last: int = 10, **limits: float) -> Leader:
    """A leader whose memory holds none of its entries."""
    leader = Leader(last=last, **limits)
    leader.log._memory_bytes = 0
    leader.log.let_go(last)
    return leader


def answer(leader: Leader, node: NodeId, entries: tuple[Entry, ...]) -> None:
    """Let the disk answer the read for a node."""
    found = leader.reading.take(node, entries)
    leader.replication.on_read(node, found, 0, 0.0)


def written(first: int, last: int) -> tuple[Entry, ...]:
    """What the disk holds."""
    return tuple(new_entry(i, 1, EntryKind.COMMAND, b"12345") for i in range(first, last + 1))


def test_follower_that_lags_gets_what_is_read_back_one_read_at_a_time() -> None:
    leader = forgetful(append_bytes_max=10)
    leader.yes("n2", 4)
    leader.replication.send_new_entries(0, 0.0)
    assert leader.orders == [ReadEntries("n2", 5, 10, 10)]
    assert leader.ranges("n2") == []
    answer(leader, "n2", written(5, 6))
    assert leader.ranges("n2") == [(4, 2)]
    assert leader.orders[1:] == [ReadEntries("n2", 7, 10, 10)]


def test_heartbeats_go_on_while_entries_are_read_back() -> None:
    leader = forgetful()
    leader.yes("n2", 4)
    leader.replication.heartbeat(0, 0.1)
    assert leader.ranges("n2") == [(4, 0)]
    assert len(leader.orders) == 1


def test_full_window_lets_nothing_more_be_read() -> None:
    leader = forgetful(append_bytes_max=5, in_flight_messages_max=1)
    leader.yes("n2", 4)
    answer(leader, "n2", written(5, 5))
    assert leader.ranges("n2") == [(4, 1)]
    assert len(leader.orders) == 1
    leader.yes("n2", 5)
    assert leader.orders[1:] == [ReadEntries("n2", 6, 10, 5)]


def test_only_what_a_follower_still_lacks_is_sent_of_what_was_read() -> None:
    leader = forgetful()
    leader.yes("n2", 4)
    leader.yes("n2", 6)
    answer(leader, "n2", written(5, 10))
    assert leader.ranges("n2") == [(6, 4)]


def test_follower_whose_entries_are_gone_from_disk_gets_the_snapshot() -> None:
    leader = forgetful()
    leader.yes("n2", 4)
    leader.log.compact(Snapshot(8, 1, THREE, (b"state",)), keep_entries=8)
    answer(leader, "n2", ())
    assert any(isinstance(message, SnapshotChunk) for message in leader.to("n2"))


def test_follower_whose_entries_are_compacted_while_they_are_read_gets_the_snapshot() -> None:
    """The first of them is the log's base now, and the message could name no entry before it.
    Found by: just sim seed=629204819 layer=core"""
    leader = forgetful()
    leader.yes("n2", 4)
    leader.log.compact(Snapshot(5, 1, THREE, (b"state",)), keep_entries=0)
    answer(leader, "n2", written(5, 10))
    sent = leader.to("n2")
    assert any(isinstance(message, SnapshotChunk) for message in sent)
    assert not any(isinstance(message, AppendRequest) and message.entries for message in sent)


def test_read_that_yields_nothing_is_tried_again_with_the_next_heartbeat() -> None:
    leader = forgetful()
    leader.yes("n2", 4)
    answer(leader, "n2", ())
    assert len(leader.orders) == 1
    leader.replication.heartbeat(0, 0.1)
    assert len(leader.orders) == 2


# --- handing over ---------------------------------------------------------------------------------


def test_successor_is_the_voter_that_holds_most_among_those_that_answered_lately() -> None:
    leader = Leader()
    leader.yes("n2", 5, now=0.0)
    leader.yes("n3", 4, now=1.0)
    assert leader.replication.best_successor(0.4) == "n2"
    assert leader.replication.best_successor(1.0) == "n3"
    assert leader.replication.best_successor(9.0) is None


def test_whoever_lacks_an_entry_does_not_have_everything() -> None:
    leader = Leader()
    leader.yes("n2", 4)
    assert not leader.replication.has_everything("n2")
    leader.yes("n2", 5)
    assert leader.replication.has_everything("n2")
    assert not leader.replication.has_everything("n9")


@promises.PIPELINE_BOUNDED
@pytest.mark.parametrize("seed", range(20))
def test_follower_with_any_log_gets_the_leaders_within_few_probes(seed: int) -> None:
    """Figure 7 of the paper: a round trip skips a whole term, whatever the follower holds."""
    rng = random.Random(seed)
    leader = Leader(last=1)
    for term in sorted(rng.choices(range(1, 6), k=30)):
        leader.append(1, term)
    terms = [1, *sorted(rng.choices(range(1, 6), k=rng.randrange(40)))]
    follower = RaftLog(
        None, [new_entry(i, term, EntryKind.COMMAND, b"") for i, term in enumerate(terms, start=1)]
    )
    leader.replication = Replication(
        RaftConfig("n1"), leader.log, reading=leader.reading, term=5, now=0.0, send=leader.send
    )
    leader.replication.heartbeat(0, 0.0)
    for _ in range(7):
        (request,) = leader.to("n2")
        assert isinstance(request, AppendRequest)
        if follower.term_at(request.previous_index) == request.previous_term:
            break
        previous = request.previous_index
        hint = follower.last_index_with_term_at_most(previous, request.previous_term)
        leader.no("n2", previous, hint, follower.term_at(hint) or 0)
    else:
        pytest.fail("no agreement")


def refuse(leader: Leader, node: NodeId, rejected: int, hint: int, number: int) -> None:
    answer = AppendRejected(node, 2, rejected, hint, 1, number)
    leader.replication.on_response(answer, 0, 0.0)


def test_voter_that_lacks_what_it_acknowledged_is_reported_and_not_counted() -> None:
    leader = Leader()
    leader.yes("n2", 5, number=1)
    leader.yes("n3", 5, number=1)
    leader.replication.on_connected("n2", 0, 1.0)
    assert [m.acknowledged for m in leader.to("n2") if isinstance(m, AppendRequest)][-1] == 5
    for _ in range(2):
        leader.replication.heartbeat(0, 1.0)
    refuse(leader, "n2", rejected=5, hint=3, number=2)
    refuse(leader, "n2", rejected=5, hint=3, number=2)
    assert leader.replication.noticed() == [VoterForgot("n2", 5, 3)], "once"
    assert leader.replication.matches() == {"n2": 0, "n3": 5}
    assert leader.replication.best_successor(0.1) == "n3"
    leader.yes("n2", 5, number=2)
    assert leader.replication.matches() == {"n2": 5, "n3": 5}, "it has it again"


def test_rejection_of_the_round_of_the_acknowledgement_may_be_older() -> None:
    leader = Leader()
    leader.replication.heartbeat(0, 0.0)
    leader.yes("n2", 5, number=1)
    refuse(leader, "n2", rejected=4, hint=3, number=1)
    assert leader.replication.noticed() == []
    assert leader.replication.matches()["n2"] == 5


def test_learner_that_forgot_gets_it_all_again() -> None:
    leader = Leader()
    learning = Configuration("c", ("n1", "n3"), learners=("n2",))
    leader.log.append([new_entry(6, 2, EntryKind.CONFIGURATION, encode_configuration(learning))])
    leader.replication.heartbeat(0, 0.0)
    leader.yes("n2", 6, number=0)
    leader.replication.heartbeat(0, 0.1)
    refuse(leader, "n2", rejected=6, hint=3, number=1)
    assert leader.replication.noticed() == []
    leader.to("n2")
    leader.replication.heartbeat(0, 0.2)
    refuse(leader, "n2", rejected=0, hint=0, number=2)
    assert leader.ranges("n2") == [(0, 6)]


def test_snapshot_follows_the_word_of_what_a_voter_had() -> None:
    """Whoever has forgotten that must not get it again first."""
    leader = Leader()
    leader.yes("n2", 4)
    snapshot = leader.log.snapshot_of(5, (b"state",))
    leader.log.compact(snapshot, keep_entries=0)
    leader.to("n2")
    leader.replication.on_connected("n2", 5, 1.0)
    [word, *pieces] = leader.to("n2")
    assert isinstance(word, AppendRequest)
    assert word.acknowledged == 4
    assert {type(piece) for piece in pieces} == {SnapshotChunk}
