"""The simulator can see: classic mistakes are planted, one at a time, and must be found in time.

`tests/raft/core/test_checkers.py` does the same for mistakes that a subclass of the core can make.
"""

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio

from noti import node
from noti.history.commands import AdvanceFloor
from noti.history.notification import Event, Notification
from noti.history.store import Store
from noti.membership.bootstrap import Bootstrap
from noti.ports import Clock
from noti.presence.dead_nodes import DeadNodes
from noti.publishing.nats import reading
from noti.publishing.nats.expiry import Expiry
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.reading import SessionReading
from noti.raft.core import leadership, replication
from noti.raft.core.events import Effect, ReadReady
from noti.raft.core.leadership import Leadership
from noti.raft.core.log import RaftLog, Reading
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Change, Configuration, next_configuration, reached_by_quorum
from noti.raft.core.messages import AppendRejected, AppendResponse, Entry, Message, NodeId
from noti.raft.core.pacing import Pacing
from noti.raft.core.progress import Progress
from noti.raft.core.replication import Replication
from noti.raft.forwarder import Forwarder
from noti.raft.storage import segments
from noti.raft.storage.segments import TailState
from noti.service import Tree
from noti.streams.feed import Feed
from tests import promises
from tests.simulation.core_world import Machine
from tests.simulation.faults import CoreSwarm, NodeSwarm
from tests.simulation.memory_clients import MemoryClients
from tests.simulation.memory_disk import MemoryDisk
from tests.simulation.memory_source import MemorySession
from tests.simulation.memory_stream import Consumer, MemoryStream, Retention
from tests.simulation.sim import LAYERS

Plant = Callable[[pytest.MonkeyPatch], None]


# --- consensus: the core layer --------------------------------------------------------------------


def changes_two_voters_in_one_step(patch: pytest.MonkeyPatch) -> None:
    """Majorities before and after need not overlap (thesis 4.3)."""

    def without_joint(current: Configuration, change: Change) -> Configuration | None:
        following = next_configuration(current, change)
        return following and replace(following, outgoing=())

    patch.setattr(leadership, "next_configuration", without_joint)


def changes_members_before_its_own_term_committed(patch: pytest.MonkeyPatch) -> None:
    """The bug of single-server changes (Ongaro 2015)."""
    right = Leadership._change

    def eager(self: Leadership, request: int, change: Change, commit: int, now: float) -> Effect:
        return right(self, request, change, 2**60, now)

    patch.setattr(Leadership, "_change", eager)


def counts_learners(patch: pytest.MonkeyPatch) -> None:
    """A learner's disk counts for the commit."""

    def generous(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
        everybody = (*configuration.voters, *configuration.learners)
        return reached_by_quorum(replace(configuration, voters=everybody), value_of)

    patch.setattr(replication, "reached_by_quorum", generous)


def keeps_a_truncated_configuration(patch: pytest.MonkeyPatch) -> None:
    """A configuration takes effect when appended, and must lose it with its entry."""
    right = RaftLog.truncate_from

    def forgetful(self: RaftLog, index: int) -> None:
        configurations = list(self._configurations)
        right(self, index)
        self._configurations = configurations
        self._look_at_end()

    patch.setattr(RaftLog, "truncate_from", forgetful)


def answers_reads_without_asking(patch: pytest.MonkeyPatch) -> None:
    """A leader that was replaced without noticing shows old data."""

    def careless(self: Leadership) -> list[Effect]:
        reads = list(self._reads)
        self._reads.clear()
        return [ReadReady(request, index) for _, request, index in reads]

    draw = CoreSwarm.draw

    def deposing(rng: random.Random) -> CoreSwarm:
        return replace(draw(rng), size=3, weights={"depose": 2.0, "mend": 1.0})

    patch.setattr(Leadership, "_confirmed_reads", careless)
    patch.setattr(CoreSwarm, "draw", deposing)


def counts_answers_to_an_older_leadership(patch: pytest.MonkeyPatch) -> None:
    """What a follower held and heard then says nothing about now. In a network that repeats what
    was said three seconds ago, under leaders that come and go.
    """
    right, draw = Raft._receive, CoreSwarm.draw

    def credulous(self: Raft, message: Message, now: float) -> None:
        if isinstance(message, AppendResponse) and message.term < self._term:
            message = replace(message, term=self._term)
        right(self, message, now)

    def repeating(rng: random.Random) -> CoreSwarm:
        return replace(
            draw(rng),
            size=3,
            steps=50,
            duplicates=0.5,
            stragglers=0.0,
            late_s=3.0,
            delay_s=(0.001, 0.02),
            disk_delay_s=(0.0005, 0.002),
            clock_spread=0.0,
            pause_max_s=0.4,
            proposals_max=3,
            snapshot_every=0,
            weights={"depose": 2.0, "transfer": 2.0, "cut_pair": 2.0, "mend": 2.0},
        )

    patch.setattr(Raft, "_receive", credulous)
    patch.setattr(CoreSwarm, "draw", repeating)


def believes_what_it_reads_back(patch: pytest.MonkeyPatch) -> None:
    """A read that was under way while another leader's entries took the place of what it found. On
    disks that often yield what was replaced, of leaders that come and go.
    """
    draw = CoreSwarm.draw

    def credulous(
        self: Reading, reader: NodeId | None, entries: Sequence[Entry]
    ) -> tuple[Entry, ...]:
        self._under_way.pop(reader)
        return tuple(entries)

    def forgetful(rng: random.Random) -> CoreSwarm:
        weights = {"depose": 2.0, "mend": 2.0, "crash": 1.0, "restart": 2.0}
        return replace(
            draw(rng),
            size=3,
            log_memory_bytes=0,
            stale_reads=0.5,
            snapshot_every=0,
            weights=weights,
        )

    patch.setattr(Reading, "take", credulous)
    patch.setattr(CoreSwarm, "draw", forgetful)


def reports_writes_as_durable_at_once(patch: pytest.MonkeyPatch) -> None:
    """The sync is skipped."""
    right = Machine._begin_write

    def hasty(self: Machine) -> None:
        written = self._pending[-1]
        right(self)
        from noti.raft.core.events import Persisted

        self.cluster.later(0.0, self.step, Persisted(written.batch))

    patch.setattr(Machine, "_begin_write", hasty)


def blow_disks_only(patch: pytest.MonkeyPatch, **weights: float) -> None:
    """Draw these faults alone in the core layer."""
    draw = CoreSwarm.draw

    def narrow(rng: random.Random) -> CoreSwarm:
        return replace(draw(rng), size=3, weights=weights)

    patch.setattr(CoreSwarm, "draw", narrow)


def leads_on_with_a_hung_disk(patch: pytest.MonkeyPatch) -> None:
    """Its heartbeats keep the others quiet, and nobody gets an answer."""

    def proud(_self: Leadership, **_state: object) -> bool:
        return False

    patch.setattr(Leadership, "gives_way", proud)
    blow_disks_only(patch, hang_disk=1.0)


def counts_a_voter_that_forgot(patch: pytest.MonkeyPatch) -> None:
    """It is given again what it had on disk, votes on, and nobody hears of it."""

    def obliging(_self: Replication, progress: Progress, response: AppendResponse) -> bool:
        if isinstance(response, AppendRejected) and progress.has_forgotten(
            response.rejected_index, response.round
        ):
            progress.forget()
        return False

    patch.setattr(Raft, "_on_forgotten", Raft._on_append_request)
    patch.setattr(Replication, "_is_forgetful", obliging)
    blow_disks_only(patch, restore_old_disk=1.0)


def leaves_a_voter_that_forgot_stuck(patch: pytest.MonkeyPatch) -> None:
    """What it is known to have never goes back, and so it gets nothing more, in silence."""
    patch.setattr(Raft, "_on_forgotten", Raft._on_append_request)
    patch.setattr(Replication, "_is_forgetful", lambda *_: False)
    blow_disks_only(patch, restore_old_disk=1.0)


def blow_only(patch: pytest.MonkeyPatch, size: int = 3, **weights: float) -> None:
    """Draw these faults alone in the nodes layer: a rare one does not need many seeds then.

    What makes a cluster wait in vain is found after 90 s, which one node spends three times faster.
    """
    draw = NodeSwarm.draw

    def narrow(rng: random.Random) -> NodeSwarm:
        return replace(draw(rng), size=size, founding_steps=0, steps=12, weights=weights)

    patch.setattr(NodeSwarm, "draw", narrow)


def retain(patch: pytest.MonkeyPatch, retention: Retention) -> None:
    """Draw this retention of the only stream."""
    draw = NodeSwarm.draw

    def narrow(rng: random.Random) -> NodeSwarm:
        return replace(draw(rng), retention=retention, second_retention=None)

    patch.setattr(NodeSwarm, "draw", narrow)


# --- what is around it: the nodes layer -----------------------------------------------------------


def shows_redelivered_events_again(patch: pytest.MonkeyPatch) -> None:
    """Nobody remembers up to where the stream was shown."""

    def again(
        self: Store, _stream: str, events: Sequence[Event], taken_ms: int
    ) -> list[Notification]:
        return [self._show(event, taken_ms) for event in events]

    patch.setattr(Store, "_publish_batch", again)


def forgets_the_floors_in_snapshots(patch: pytest.MonkeyPatch) -> None:
    """What is deduplicated by must be part of the replicated state."""
    right = Store.snapshot_pieces

    def lean(self: Store) -> Iterator[bytes]:
        floors, self._floors = self._floors, {}
        try:
            return right(self)
        finally:
            self._floors = floors

    patch.setattr(Store, "snapshot_pieces", lean)


def reads_a_stream_made_anew_from_the_old_floor(patch: pytest.MonkeyPatch) -> None:
    """A stream that was deleted and made again counts from 1 again."""
    patch.setattr(MemoryStream, "identity", "memory")
    blow_only(patch, recreate_stream=1.0)


def acknowledges_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """What is fetched is acknowledged."""
    right = SessionReading._commit

    async def hasty(self: SessionReading, batch: Any) -> list[SourceMessage]:
        await self._session.ack([message for message, _ in batch.good])
        return await right(self, batch)

    patch.setattr(SessionReading, "_commit", hasty)


def copies_dead_letters_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """The events of a batch first."""
    right = SessionReading._commit

    async def late(self: SessionReading, batch: Any) -> list[SourceMessage]:
        done = await right(self, batch._replace(letters=[]))
        if batch.letters:
            await self._session.dead_letter(batch.letters)
        return done

    patch.setattr(SessionReading, "_commit", late)
    blow_only(patch, publish_garbage=1.0, stop_source=1.0)


def stays_below_dead_letters(patch: pytest.MonkeyPatch) -> None:
    """Where nothing is acknowledged, only the floor says that one at the end was copied."""
    patch.setattr(reading, "AdvanceFloor", lambda stream, _seq: AdvanceFloor(stream, 1))
    blow_only(patch, size=1, publish_garbage=1.0)
    retain(patch, "limits")


def overlooks_other_readers(patch: pytest.MonkeyPatch) -> None:
    """What another reader took and gave back comes behind later ones, below the floor by then."""

    def trustful(self: MemorySession, *_: int) -> None:
        pass

    patch.setattr(MemorySession, "_check_order", trustful)
    patch.setattr(MemorySession, "_check_place", trustful)
    blow_only(patch, refuse_messages=1.0)


def hides_what_was_deleted_unread(patch: pytest.MonkeyPatch) -> None:
    """A reader that goes on where a stream with limits begins, whatever was there before."""
    patch.setattr(Expiry, "_tell", lambda *_: None)
    blow_only(patch, size=1, expire_messages=1.0)
    retain(patch, "limits")


def reads_an_interest_stream_by_a_consumer_that_is_made_anew(patch: pytest.MonkeyPatch) -> None:
    """As on a work queue: what nobody has acknowledged is gone with the last consumer."""
    right = MemoryStream.begin

    def anew(self: MemoryStream, after_seq: int = 0) -> Consumer:
        if self.retention == "interest":
            self._consumers.clear()
            self._drop_unwanted()
        return right(self, after_seq)

    patch.setattr(MemoryStream, "begin", anew)
    blow_only(patch, size=1, crash=1.0, restart=1.0, lose_acks=1.0, stop_source=1.0)
    retain(patch, "interest")


def lets_errors_of_the_source_through(patch: pytest.MonkeyPatch) -> None:
    """The bridge is no optional part."""

    async def run_once(
        _name: str, part: Callable[[], Awaitable[None]], *_: object, **known: Any
    ) -> None:
        known["task_status"].started()
        await part()

    patch.setattr(node, "keep_going", run_once)
    blow_only(patch, break_library=1.0)


def takes_an_error_with_a_cancellation_for_one(patch: pytest.MonkeyPatch) -> None:
    """`except Exception` lets a group through that holds a cancellation, too. At the stop of a node
    that nobody can take the lead from."""

    async def plainly(
        _name: str,
        part: Callable[[], Awaitable[None]],
        clock: Clock,
        *_: object,
        **known: Any,
    ) -> None:
        known["task_status"].started()
        while True:
            with suppress(Exception):
                await part()
            await clock.sleep_until(clock.now() + 0.2)

    patch.setattr(node, "keep_going", plainly)
    blow_only(patch, size=1, break_library=1.0, roll=1.0)


def stops_in_order_though_a_part_failed(patch: pytest.MonkeyPatch) -> None:
    """It can be elected meanwhile, and does nothing of what a leader should."""
    patch.setattr(Tree, "_fall", lambda _self, _name: None)
    blow_only(patch, break_a_part=1.0, restart=1.0, flap_while_the_source_opens=1.0)


def hides_gaps(patch: pytest.MonkeyPatch) -> None:
    """An unknown cursor is taken for the oldest one."""
    right = Feed.position_of

    def evasive(self: Feed, event_id: str) -> int | None:
        position = right(self, event_id)
        return self.oldest_seq - 1 if position is None else position

    patch.setattr(Feed, "position_of", evasive)


def serves_the_history_of_its_own_setting(patch: pytest.MonkeyPatch) -> None:
    """A node keeps for its browsers what its own --history-size says."""
    right = MemoryClients.trim

    def own(self: MemoryClients, oldest_seq: int, gone: Sequence[int]) -> None:
        size = 5 if self._address[0].endswith("1") else 2000
        right(self, max(oldest_seq, self.feed.newest_seq - size + 1), gone)

    patch.setattr(MemoryClients, "trim", own)


def throws_readers_off_with_history(patch: pytest.MonkeyPatch) -> None:
    """What is no history any more is gone, also for streams that are open."""
    right = Feed.trim

    def hasty(self: Feed, oldest_seq: int) -> None:
        right(self, oldest_seq)
        self.release(self.newest_seq)

    patch.setattr(Feed, "trim", hasty)


def reads_what_is_at_hand(patch: pytest.MonkeyPatch) -> None:
    """A read does not ask the leader."""

    async def at_once(self: Forwarder) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Forwarder, "read", at_once)


def answers_reads_of_whoever_replaced_it_unawares(patch: pytest.MonkeyPatch) -> None:
    """As in the core layer, with everything around it."""
    answers_reads_without_asking(patch)
    blow_only(patch, ask_a_zombie=1.0)


def takes_all_damage_for_a_torn_tail(patch: pytest.MonkeyPatch) -> None:
    """A write that a disk lost, or put elsewhere, takes all later ones with it."""
    right = segments._judge

    def lenient(sequence: int, data: bytes, end: int, written_end: int) -> TailState:
        tail = right(sequence, data, end, written_end)
        return TailState.TORN if tail is TailState.DAMAGED else tail

    patch.setattr(segments, "_judge", lenient)
    blow_only(patch, stray_write=1.0, restart=0.5)


def orders_by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """What seems older than the newest is taken for a repetition."""
    right = Store._publish_batch

    def strict(
        self: Store, stream: str, events: Sequence[Event], taken_ms: int
    ) -> list[Notification]:
        newest_ms = max((kept.taken_ms for kept in self._retention.all()), default=0)
        is_old = taken_ms is not None and taken_ms < newest_ms - 30_000
        return right(self, stream, () if is_old else events, taken_ms)

    patch.setattr(Store, "_publish_batch", strict)
    blow_only(patch, step_wall_clock=1.0, crash=1.0, restart=1.0)


def founds_with_whoever_is_there(patch: pytest.MonkeyPatch) -> None:
    """A majority of the founders seems enough, and asking them first too much; and so another one
    is enough, too."""

    def hasty(self: Bootstrap, here: Mapping[NodeId, Mapping[str, str]]) -> tuple[NodeId, ...]:
        enough = self._expect // 2 + 1
        return tuple(sorted(here)[:enough]) if len(here) >= enough else ()

    patch.setattr(Bootstrap, "_choose", hasty)
    patch.setattr(Bootstrap, "_agree", lambda _self, proposal, _here, _now: proposal)


def lies_about_the_sync(patch: pytest.MonkeyPatch) -> None:
    """What was reported durable was still in a cache: the power cut takes the end of the log."""
    crash = MemoryDisk.crash

    def lose_the_cache(self: MemoryDisk) -> MemoryDisk:
        survivor = crash(self)
        for name, content in survivor.files.items():
            if name.startswith("log-"):
                content[len(content.rstrip(b"\0")) - 200 :] = bytes(200)
        return survivor

    patch.setattr(MemoryDisk, "crash", lose_the_cache)


def bear_only(patch: pytest.MonkeyPatch, load: str) -> None:
    """Draw this load in the nodes layer, after hardly a storm."""
    draw = NodeSwarm.draw

    def narrow(rng: random.Random) -> NodeSwarm:
        return replace(draw(rng), size=3, founding_steps=0, steps=1, load=load)

    patch.setattr(NodeSwarm, "draw", narrow)


def takes_events_in_whoever_cannot_follow(patch: pytest.MonkeyPatch) -> None:
    """The leader does not listen to how full the others are, or it is itself."""
    patch.setattr(Pacing, "reported", lambda *_: None)
    bear_only(patch, "overload_all")


def waits_for_a_liar_for_ever(patch: pytest.MonkeyPatch) -> None:
    """One node that always says that it is full holds everybody back."""
    patch.setattr(Pacing, "_charge", lambda *_: False)
    bear_only(patch, "lie")


def subscribe_always(patch: pytest.MonkeyPatch, **weights: float) -> None:
    """Let all nodes know who is subscribed, and draw these faults alone, slowly."""
    blow_only(patch, 3, **weights)
    draw = NodeSwarm.draw

    def subscribing(rng: random.Random) -> NodeSwarm:
        return replace(draw(rng), subscriptions=True, steps=4, pause_max_s=9.0, load=None)

    patch.setattr(NodeSwarm, "draw", subscribing)


def leaves_ghosts_of_dead_nodes(patch: pytest.MonkeyPatch) -> None:
    """Nobody ends what a node that lost its disk had announced: it returns under another id."""
    patch.setattr(DeadNodes, "_overdue", lambda *_: [])
    subscribe_always(patch, wipe=1.0, stop=1.0)


PLANTED: list[tuple[str, Plant, range]] = [
    # Each begins with a seed that shows it.
    ("core", changes_two_voters_in_one_step, range(1, 20)),
    ("core", changes_members_before_its_own_term_committed, range(20)),
    ("core", counts_learners, range(10)),
    ("core", keeps_a_truncated_configuration, range(74, 90)),
    ("core", answers_reads_without_asking, range(6, 20)),
    ("core", counts_answers_to_an_older_leadership, range(60)),
    ("core", believes_what_it_reads_back, range(10)),
    ("core", reports_writes_as_durable_at_once, range(1)),
    ("core", leads_on_with_a_hung_disk, range(3)),
    ("core", counts_a_voter_that_forgot, range(5)),
    ("core", leaves_a_voter_that_forgot_stuck, range(5)),
    ("nodes", shows_redelivered_events_again, range(20)),
    ("nodes", forgets_the_floors_in_snapshots, range(5)),
    ("nodes", acknowledges_before_the_commit, range(1)),
    ("nodes", copies_dead_letters_after_the_commit, range(10)),
    ("nodes", stays_below_dead_letters, range(5)),
    ("nodes", overlooks_other_readers, range(1, 5)),
    ("nodes", hides_what_was_deleted_unread, range(5)),
    ("nodes", reads_an_interest_stream_by_a_consumer_that_is_made_anew, range(10)),
    ("nodes", lets_errors_of_the_source_through, range(10)),
    ("nodes", takes_an_error_with_a_cancellation_for_one, range(1, 10)),
    ("nodes", stops_in_order_though_a_part_failed, range(2, 20)),
    ("nodes", hides_gaps, range(10)),
    ("nodes", serves_the_history_of_its_own_setting, range(5)),
    ("nodes", throws_readers_off_with_history, range(20)),
    ("nodes", reads_what_is_at_hand, range(1, 5)),
    ("nodes", lies_about_the_sync, range(6, 20)),
    ("nodes", answers_reads_of_whoever_replaced_it_unawares, range(10)),
    ("nodes", takes_all_damage_for_a_torn_tail, range(10, 20)),
    ("nodes", orders_by_the_wall_clock, range(10)),
    ("nodes", reads_a_stream_made_anew_from_the_old_floor, range(5)),
    ("nodes", founds_with_whoever_is_there, range(2, 40)),
    ("nodes", takes_events_in_whoever_cannot_follow, range(3)),
    ("nodes", waits_for_a_liar_for_ever, range(3)),
    ("nodes", leaves_ghosts_of_dead_nodes, range(5)),
]


def is_found_by_a_check(failure: str | None) -> bool:
    """Not by an assertion of the product itself, which would not be there in a wrong one."""
    return failure is not None and "/tests/" in failure.rsplit("\n", 1)[-1]


@promises.CHECKS_FIND_MISTAKES
@pytest.mark.parametrize(
    ("layer", "plant", "seeds"),
    PLANTED,
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_planted_bug_is_found(
    layer: str, plant: Plant, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    outcomes = (LAYERS[layer](seed) for seed in seeds)
    assert any(is_found_by_a_check(outcome.failure) for outcome in outcomes)
