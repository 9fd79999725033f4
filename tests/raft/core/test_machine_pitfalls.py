"""Mistakes that Raft implementations have really made, each with the test that would see it."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from noti.errors import MessageInvalid
from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    Apply,
    DeadlineReached,
    Effect,
    Event,
    MessageReceived,
    MessageRejected,
    PeerLost,
    Persist,
    Persisted,
    PersistSnapshot,
    ProposalAccepted,
    Proposed,
    RestoreSnapshot,
    Role,
    SaveSnapshot,
    SendMessage,
    SnapshotTaken,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    Message,
    Snapshot,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import new_entry
from noti.raft.core.snapshot import WholeDecoder
from tests import promises
from tests.raft.core.cluster import Cluster, Node

THREE = Configuration("test", ("n1", "n2", "n3"))


class OneCore:
    """A core, and what it has asked for. Its disk works only when it is told to."""

    def __init__(
        self,
        term: int = 1,
        entries: tuple[Entry, ...] = (),
        decode: Callable[[bytes], object] = bytes,
        configuration: Configuration = THREE,
    ) -> None:
        first = new_entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(configuration))
        self.now = 5.0
        log = (first, *entries)
        self.raft = Raft(
            RaftConfig("n1"),
            HardState(term),
            snapshot=None,
            entries=log,
            rng=random.Random(1),
            now=0.0,
            state_decoder=partial(WholeDecoder, decode),
        )
        self.batch = 0
        self.effects: list[Effect] = []

    def step(self, event: Event) -> list[Message]:
        """Take in an event; return the messages that leave."""
        self.effects = self.raft.handle(event, self.now)
        for effect in self.effects:
            if isinstance(effect, Persist | PersistSnapshot):
                self.batch = effect.batch
        return [effect.message for effect in self.effects if isinstance(effect, SendMessage)]

    def hear(self, message: Message) -> list[Message]:
        return self.step(MessageReceived(message))

    def write(self) -> list[Message]:
        return self.step(Persisted(self.batch))

    def applied(self) -> list[int]:
        return [e.index for f in self.effects if isinstance(f, Apply) for e in f.entries]

    def lead(self) -> None:
        """Win an election against n2's and n3's silence but n2's votes."""
        self.step(DeadlineReached())
        term = self.raft.status().term + 1
        self.hear(VoteResponse("n2", term, granted=True, pre=True))
        self.write()
        self.hear(VoteResponse("n2", term, granted=True, pre=False))
        assert self.raft.status().role is Role.LEADER


def entry(index: int, term: int) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, b"")


def append(
    leader: str, term: int, previous: tuple[int, int], *entries: Entry, commit: int = 1
) -> AppendRequest:
    return AppendRequest(leader, term, *previous, commit, entries)


def confirmed(sender: str, term: int, match: int) -> AppendAccepted:
    return AppendAccepted(sender, term, match)


def rejected(sender: str, term: int, rejected: int, hint: int, hint_term: int) -> AppendRejected:
    return AppendRejected(sender, term, rejected, hint, hint_term)


def matches(messages: list[Message]) -> list[int]:
    return [m.match_index for m in messages if isinstance(m, AppendAccepted)]


def chunk(index: int, term: int = 1, sender: str = "n3", sender_term: int = 1) -> SnapshotChunk:
    return SnapshotChunk(sender, sender_term, index, term, encode_configuration(THREE), 0, b"s", 1)


# --- commit ---------------------------------------------------------------------------------------


@promises.OWN_TERM_COMMITS
def test_figure_8_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    core = OneCore(term=3, entries=(entry(2, 2),))
    core.lead()
    core.write()
    core.hear(confirmed("n2", 4, 2))
    assert core.raft.status().commit_index == 0, "a majority holds it, and it may still vanish"
    core.hear(confirmed("n2", 4, 3))
    assert core.raft.status().commit_index == 3, "an entry of the own term commits all before it"


@promises.OWN_TERM_COMMITS
def test_own_entry_counts_only_when_it_is_on_the_own_disk() -> None:
    core = OneCore()
    core.lead()
    core.write()
    core.step(Proposed(((1, b"x"),)))
    core.hear(confirmed("n2", 2, 3))
    assert core.raft.status().commit_index == 2, "n2 alone is no majority"
    core.write()
    assert core.raft.status().commit_index == 3


@promises.OWN_TERM_COMMITS
def test_followers_commit_without_the_leaders_disk_but_nothing_is_applied_early() -> None:
    core = OneCore()
    core.lead()
    core.write()
    core.step(Proposed(((1, b"x"),)))
    core.hear(confirmed("n2", 2, 3))
    core.hear(confirmed("n3", 2, 3))
    assert core.raft.status().commit_index == 3
    assert core.applied() == [1, 2] or core.raft.status().applied_index == 2
    core.write()
    assert core.applied() == [3]


def test_answer_of_a_former_term_does_not_count_in_this_one() -> None:
    core = OneCore(term=3, entries=(entry(2, 2),))
    core.lead()
    core.write()
    core.hear(confirmed("n2", 3, 3))
    assert core.raft.status().commit_index == 0


def test_follower_commits_only_what_it_knows_to_equal_the_leaders_log() -> None:
    core = OneCore(entries=(entry(2, 1), entry(3, 1)))
    core.hear(append("n3", 2, (1, 1), commit=3))
    assert core.raft.status().commit_index == 1


def test_follower_learns_a_commit_that_it_missed_without_waiting_for_new_entries() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(0.5)
    late = next(node for node in cluster.nodes.values() if node is not leader)
    cluster.propose(leader, b"x")
    cluster.run(0.0001)
    cluster.isolate(late.name)
    cluster.run(0.3)
    assert leader.applied == [b"x"]
    assert late.applied == []
    cluster.heal()
    cluster.run_until(lambda: late.applied == [b"x"], seconds=0.5)


# --- durability -----------------------------------------------------------------------------------


def test_vote_that_did_not_reach_the_disk_was_never_received_so_another_may_follow() -> None:
    core = OneCore()
    request = VoteRequest("n2", 2, 9, 1, pre=False, transfer=False)
    assert core.hear(request) == []
    reborn = OneCore()  # with the hard state of before
    rival = VoteRequest("n3", 2, 9, 1, pre=False, transfer=False)
    assert reborn.hear(rival) == []
    assert reborn.write() == [VoteResponse("n1", 2, granted=True, pre=False)]


def test_completion_of_entries_that_came_back_after_being_overwritten_does_not_count() -> None:
    """The ABA race, twice round: the terms agree again, but the overwriting write comes between."""
    core = OneCore()
    first = tuple(entry(index, 1) for index in (2, 3, 4))
    core.hear(append("n3", 1, (1, 1), *first))
    first_batch = core.batch
    core.hear(append("n2", 2, (1, 1), entry(2, 2)))
    core.hear(append("n3", 3, (1, 1)))
    term_batch = core.batch
    core.hear(append("n3", 3, (1, 1), *first))
    heard = core.step(Persisted(first_batch)) + core.step(Persisted(term_batch))
    assert set(matches(heard)) == {1}, "the disk now ends with entry 2 of term 2"
    assert matches(core.write()) == [4]


def test_candidate_wins_only_with_its_own_vote_on_disk() -> None:
    core = OneCore()
    core.step(DeadlineReached())
    core.hear(VoteResponse("n2", 2, granted=True, pre=True))
    core.hear(VoteResponse("n2", 2, granted=True, pre=False))
    assert core.raft.status().role is Role.CANDIDATE
    core.write()
    assert core.raft.status().role is Role.LEADER


# --- snapshots ------------------------------------------------------------------------------------


@promises.LOG_COMPACTED
def test_snapshot_older_than_the_commit_changes_nothing() -> None:
    core = OneCore(entries=tuple(entry(index, 1) for index in range(2, 7)))
    core.hear(append("n3", 1, (6, 1), commit=6))
    assert matches(core.hear(chunk(4))) == [6], "the leader learns that it is not needed"
    assert not any(isinstance(e, PersistSnapshot | RestoreSnapshot) for e in core.effects)
    assert core.raft.status().last_index == 6


def test_snapshot_that_the_log_agrees_with_keeps_the_entries_after_it() -> None:
    core = OneCore(entries=tuple(entry(index, 1) for index in range(2, 7)))
    core.hear(chunk(4))
    assert matches(core.write()) == [4], "nothing is known yet about those after it"
    status = core.raft.status()
    assert (status.first_index, status.last_index, status.applied_index) == (5, 6, 4)


def test_snapshot_that_the_log_contradicts_replaces_it() -> None:
    core = OneCore(term=5, entries=tuple(entry(index, 1) for index in range(2, 7)))
    core.hear(chunk(4, term=3, sender_term=5))
    core.write()
    assert (core.raft.status().first_index, core.raft.status().last_index) == (5, 4)


def test_snapshot_is_confirmed_only_when_it_is_on_disk() -> None:
    core = OneCore()
    heard = core.hear(chunk(9))
    assert 9 not in matches(heard)
    assert not any(isinstance(e, RestoreSnapshot) for e in core.effects)
    assert set(matches(core.write())) == {9}
    assert any(isinstance(e, RestoreSnapshot) for e in core.effects)


@promises.PEER_NONSENSE_SURVIVED
def test_snapshot_that_does_not_decode_is_refused_and_the_log_stays() -> None:
    """Once it is on disk in place of the log, there is no way back."""

    def decode(data: bytes) -> object:
        raise MessageInvalid(f"{data!r} is no state")

    core = OneCore(entries=(entry(2, 1),), decode=decode)
    before = core.raft.status()
    assert core.hear(chunk(9)) == []
    assert core.effects == [
        MessageRejected("n3", "a snapshot at 9 that does not decode: b's' is no state")
    ]
    assert core.raft.status() == before


def test_own_snapshot_holds_the_configuration_at_its_index_and_no_later_one() -> None:
    """A later one may never be committed, and then nothing would take it back."""
    later = Configuration("test", ("n1", "n2", "n3"), learners=("n4",))
    core = OneCore(entries=(entry(2, 1), entry(3, 1)))
    core.hear(append("n3", 1, (3, 1), new_entry(4, 1, EntryKind.CONFIGURATION, b""), commit=3))
    assert isinstance(core.effects[0], MessageRejected), "bytes that are no configuration"
    change = new_entry(4, 1, EntryKind.CONFIGURATION, encode_configuration(later))
    core.hear(append("n3", 1, (3, 1), change, commit=3))
    core.write()
    assert core.raft.status().configuration == later
    core.step(SnapshotTaken(3, (b"state",)))
    [saved] = [effect for effect in core.effects if isinstance(effect, SaveSnapshot)]
    assert saved.snapshot == Snapshot(3, 1, encode_configuration(THREE), (b"state",))


@pytest.mark.parametrize("index", [0, 4])
def test_own_snapshot_of_what_is_not_applied_is_not_taken(index: int) -> None:
    core = OneCore(entries=(entry(2, 1), entry(3, 1), entry(4, 1)))
    core.hear(append("n3", 1, (4, 1), commit=3))
    assert core.raft.status().applied_index == 3
    core.step(SnapshotTaken(index, (b"state",)))
    assert core.effects == []


def test_second_snapshot_while_the_first_is_being_written_does_no_harm() -> None:
    core = OneCore()
    core.hear(chunk(9))
    core.hear(chunk(12))
    assert matches(core.write())[-1] == 9
    core.hear(chunk(12))
    assert matches(core.write())[-1] == 12
    assert core.raft.status().applied_index == 12


def test_leader_is_answered_while_a_snapshot_is_being_written() -> None:
    """Otherwise a slow disk would cost a leader with one other follower its quorum."""
    core = OneCore()
    core.hear(chunk(9))
    assert matches(core.hear(append("n3", 1, (0, 0)))) == [0]
    assert set(matches(core.write())) == {9}


def test_node_that_is_installing_a_snapshot_does_not_campaign() -> None:
    core = OneCore()
    core.hear(chunk(9))
    core.now = 50.0
    assert core.step(DeadlineReached()) == []
    assert core.hear(TimeoutNow("n3", 1)) == []
    core.write()
    core.step(DeadlineReached())
    assert core.raft.status().role is Role.PRE_CANDIDATE


def test_restart_from_a_snapshot_knows_the_configuration_that_the_log_lost() -> None:
    snapshot = Snapshot(7, 2, encode_configuration(THREE), (b"",))
    raft = Raft(
        RaftConfig("n1"), HardState(2), snapshot=snapshot, entries=(), rng=random.Random(1), now=0.0
    )
    assert raft.status().configuration == THREE
    assert (raft.status().commit_index, raft.status().last_index) == (7, 7)


# --- elections ------------------------------------------------------------------------------------


@promises.NEXT_LEADER_AT_ONCE
def test_lost_stream_to_anybody_but_the_leader_starts_no_election() -> None:
    core = OneCore()
    core.hear(append("n3", 1, (1, 1)))
    due = core.raft.deadline()
    core.step(PeerLost("n2"))
    assert (core.raft.status().leader, core.raft.deadline()) == ("n3", due)
    core.step(PeerLost("n3"))
    assert core.raft.status().leader is None
    assert core.raft.deadline() != due


@promises.LEADER_WITHOUT_MAJORITY_STEPS_DOWN
def test_leader_that_reaches_others_but_receives_from_nobody_steps_down() -> None:
    """A one-way cable: its heartbeats keep everybody quiet, so only check-quorum can end it."""
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(0.5)
    for other in cluster.names:
        cluster.blocked.add((other, leader.name))
    cluster.run(2 * 0.5 + 0.01)
    assert leader.running.status().role is not Role.LEADER
    cluster.run_until(lambda: cluster.leader() not in (None, leader), seconds=3.0)


def test_node_that_one_peer_cannot_receive_from_does_not_disturb_the_leader() -> None:
    """Two followers cannot reach each other and both see the leader: nothing happens."""
    cluster = Cluster()
    leader = cluster.elect()
    one, other = (name for name in cluster.names if name != leader.name)
    cluster.blocked |= {(one, other), (other, one)}
    term = leader.running.status().term
    cluster.run(10.0)
    assert cluster.leader() is leader
    assert leader.running.status().term == term


@promises.LEADER_NOT_DISTURBED
def test_follower_that_cannot_reach_the_leader_does_not_depose_it() -> None:
    """Leader and one follower are cut from each other; the third, which hears both, decides."""
    cluster = Cluster()
    leader = cluster.elect()
    one = next(name for name in cluster.names if name != leader.name)
    cluster.blocked |= {(one, leader.name), (leader.name, one)}
    term = leader.running.status().term
    cluster.run(10.0)
    assert cluster.leader() is leader
    assert leader.running.status().term == term


def test_zombie_leader_commits_nothing_after_its_long_sleep() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(0.5)
    leader.paused = True
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    cluster.run(1.0)
    commit = leader.running.status().commit_index
    request = cluster.propose(leader, b"from the grave")
    assert isinstance(leader.outcomes[request], ProposalAccepted), "it does not know yet"
    cluster.run(0.05)
    assert leader.running.status().commit_index == commit
    leader.paused = False
    cluster.run(2.0)
    assert leader.running.status().role is Role.FOLLOWER
    assert all(b"from the grave" not in node.applied for node in cluster.nodes.values())


def test_node_that_is_no_voter_in_its_own_log_still_votes() -> None:
    """It may be one in the candidate's: the entry that says so has not arrived yet."""
    others = encode_configuration(Configuration("c", ("n1", "n2", "n3")))
    log = (new_entry(1, 1, EntryKind.CONFIGURATION, others),)
    raft = Raft(
        RaftConfig("n4"), HardState(1), snapshot=None, entries=log, rng=random.Random(1), now=0.0
    )
    raft.handle(MessageReceived(VoteRequest("n2", 2, 5, 1, pre=False, transfer=False)), 5.0)
    (effect,) = [e for e in raft.handle(Persisted(1), 5.0) if isinstance(e, SendMessage)]
    assert effect.message == VoteResponse("n4", 2, granted=True, pre=False)


@promises.LEADER_NOT_DISTURBED
def test_node_that_is_no_voter_never_campaigns() -> None:
    raft = Raft(
        RaftConfig("n4"), HardState(1), snapshot=None, entries=(), rng=random.Random(1), now=0.0
    )
    assert raft.deadline() is None
    assert raft.handle(DeadlineReached(), 99.0) == []
    assert raft.handle(MessageReceived(TimeoutNow("n2", 1)), 99.0) == []


class EqualSeeds(Cluster):
    """All nodes draw the same timeouts for ever."""

    def rng_of(self, node: Node) -> random.Random:
        return random.Random(self.seed)


@pytest.mark.parametrize("seed", range(5))
def test_restart_storm_with_equal_timeouts_ends_with_a_leader(seed: int) -> None:
    cluster = EqualSeeds(5, seed)
    cluster.elect()
    for node in cluster.nodes.values():
        node.crash()
    cluster.run(1.0)
    for node in cluster.nodes.values():
        node.start()
    cluster.run_until(cluster.leader, seconds=6.0)


def test_vote_is_given_once_to_whoever_repeats_the_question() -> None:
    core = OneCore()
    request = VoteRequest("n2", 2, 9, 1, pre=False, transfer=False)
    core.hear(request)
    granted = [VoteResponse("n1", 2, granted=True, pre=False)]
    assert core.write() == granted
    assert core.hear(request) == granted


# --- transfer -------------------------------------------------------------------------------------


def test_late_request_to_take_over_from_a_former_term_is_ignored() -> None:
    core = OneCore()
    core.hear(append("n3", 3, (1, 1)))
    core.write()
    assert core.hear(TimeoutNow("n2", 2)) == []
    assert core.raft.status().role is Role.FOLLOWER
    assert core.raft.status().term == 3


def test_repeated_request_to_take_over_starts_one_election() -> None:
    core = OneCore()
    core.hear(append("n3", 1, (1, 1)))
    core.hear(TimeoutNow("n3", 1))
    core.hear(TimeoutNow("n3", 1))
    assert core.raft.status().term == 2
    requests = [m for m in core.write() if isinstance(m, VoteRequest)]
    assert [(m.term, m.transfer) for m in requests] == [(2, True), (2, True)]


def test_request_to_take_over_reaches_a_leader_of_that_very_term_in_vain() -> None:
    core = OneCore()
    core.lead()
    core.hear(TimeoutNow("n3", core.raft.status().term))
    assert core.raft.status().role is Role.LEADER


def test_vote_for_a_transfer_is_given_although_the_leader_lives() -> None:
    core = OneCore()
    core.hear(append("n3", 1, (1, 1)))
    core.hear(VoteRequest("n2", 2, 9, 1, pre=False, transfer=True))
    assert core.write() == [VoteResponse("n1", 2, granted=True, pre=False)]


# --- replication ----------------------------------------------------------------------------------


def leading_with(count: int, config: RaftConfig | None = None) -> OneCore:
    """A leader whose follower n2 has everything, and which then gets `count` commands."""
    core = OneCore()
    if config is not None:
        core.raft.config = config
    core.lead()
    core.write()
    core.hear(confirmed("n2", 2, 2))
    core.step(Proposed(tuple((number, b"%d" % number) for number in range(count))))
    return core


def to_n2(core: OneCore) -> list[AppendRequest]:
    sent = [e for e in core.effects if isinstance(e, SendMessage) and e.to == "n2"]
    return [e.message for e in sent if isinstance(e.message, AppendRequest)]


def test_rejection_that_comes_late_does_not_send_again_what_is_confirmed() -> None:
    core = leading_with(3)
    core.hear(confirmed("n2", 2, 5))
    core.hear(rejected("n2", 2, rejected=4, hint=1, hint_term=1))
    assert to_n2(core) == []


@promises.PIPELINE_BOUNDED
def test_full_window_opens_again_when_everything_in_it_was_lost() -> None:
    """The leader waits for answers that never come: a heartbeat must get it going."""
    core = leading_with(0, RaftConfig("n1", in_flight_messages_max=2))
    for number in range(4):
        core.step(Proposed(((number, b"x"),)))
    assert to_n2(core) == [], "the window is full"
    core.now += 0.1
    core.step(DeadlineReached())
    (beat,) = to_n2(core)
    core.hear(rejected("n2", 2, rejected=beat.previous_index, hint=2, hint_term=2))
    (again,) = to_n2(core)
    assert [e.index for e in again.entries] == [3, 4, 5, 6]
    core.hear(confirmed("n2", 2, 6))
    core.write()
    assert core.raft.status().commit_index == 6


def test_probe_without_an_answer_is_repeated_by_the_next_heartbeat() -> None:
    core = leading_with(0)
    core.step(PeerLost("n2"))
    core.step(Proposed(((1, b"x"),)))
    assert len(to_n2(core)) == 1
    core.step(Proposed(((2, b"y"),)))
    assert to_n2(core) == [], "one probe at a time"
    core.now += 0.1
    core.step(DeadlineReached())
    (probe,) = to_n2(core)
    assert [e.index for e in probe.entries] == [3, 4]


def test_confirmation_beyond_the_own_log_is_not_believed() -> None:
    core = leading_with(1)
    core.write()
    core.hear(confirmed("n2", 2, 99))
    assert core.raft.status().commit_index <= core.raft.status().last_index


def test_entries_that_are_there_already_are_not_written_again() -> None:
    core = OneCore()
    request = append("n3", 1, (1, 1), entry(2, 1), entry(3, 1))
    core.hear(request)
    core.write()
    assert matches(core.hear(request)) == [3]
    assert not any(isinstance(effect, Persist) for effect in core.effects)


def test_older_request_that_arrives_late_does_not_cut_the_log() -> None:
    """A short message says nothing about what comes after it (Raft figure 2, receiver step 3)."""
    core = OneCore()
    core.hear(append("n3", 1, (1, 1), entry(2, 1), entry(3, 1)))
    core.write()
    core.hear(append("n3", 1, (1, 1), entry(2, 1)))
    assert core.raft.status().last_index == 3


@promises.LOG_COMPACTED
@pytest.mark.parametrize("snapshot_every", [1, 2, 3])
def test_follower_behind_a_leader_that_keeps_compacting_is_not_lost(snapshot_every: int) -> None:
    cluster = Cluster(snapshot_every=snapshot_every, keep_entries=0)
    leader = cluster.elect()
    late = next(node for node in cluster.nodes.values() if node is not leader)
    cluster.isolate(late.name)
    expected = [b"%d" % number for number in range(30)]
    for data in expected:
        cluster.propose(leader, data)
        cluster.run(0.02)
    cluster.heal()
    cluster.run_until(lambda: late.applied == expected, seconds=7.0)
