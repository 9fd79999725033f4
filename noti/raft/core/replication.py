"""The leader's side of replication, for one term.

Enters: answers of followers, losses, heartbeats. Leaves: messages through `send`, and decisions
(what a quorum holds, who could take over). Never: terms, votes, disk; the core owns those and
makes one of these per leadership.

Sources: Raft 5.3 and 5.4.2; thesis 3.10 (transfer), 6.2 (check-quorum); flow control after
etcd-io/raft.
"""

from collections.abc import Callable

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import Effect, VoterForgot
from noti.raft.core.log import RaftLog, Reading
from noti.raft.core.membership import has_quorum, reached_by_quorum
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    AppendResponse,
    Entry,
    Message,
    NodeId,
    Response,
    SnapshotReceived,
)
from noti.raft.core.progress import Progress, ProgressState
from noti.raft.core.snapshot import chunks_of


class Replication:
    """What this term's leader knows about the others, and what it sends them."""

    def __init__(
        self,
        config: RaftConfig,
        log: RaftLog,
        *,
        reading: Reading,
        term: int,
        now: float,
        send: Callable[[NodeId, Message], None],
    ) -> None:
        """Start to lead: the first entry of the term will be the log's next one."""
        self._config = config
        self._reading = reading
        self._log = log
        self._term = term
        self._send = send
        self._round = 0
        self.heartbeat_deadline = now
        self.quorum_deadline = now + config.election_timeout_s
        self._progress: dict[NodeId, Progress] = {}
        self._noticed: list[Effect] = []
        self.follow_configuration(now)

    def follow_configuration(self, now: float) -> None:
        """Start to send to new members, and stop with those that are none any more."""
        members = [n for n in self._log.configuration.members if n != self._config.node_id]
        next_index = self._log.last_index + 1
        self._progress = {
            node: self._progress.get(node) or Progress(node, next_index, last_contact_at=now)
            for node in members
        }
        self.has_followers = bool(members)
        """Whether there is anybody else in the cluster."""

    def matches(self) -> dict[NodeId, int]:
        """Return what each follower is known to have on disk."""
        return {
            node: 0 if progress.forgot else progress.match_index
            for node, progress in self._progress.items()
        }

    # --- sending ----------------------------------------------------------------------------------

    def heartbeat(self, commit: int, now: float) -> int:
        """Speak to everybody, with entries where there are any to send; return the new round."""
        self._round += 1
        self.heartbeat_deadline = now + self._config.heartbeat_interval_s
        for progress in self._progress.values():
            progress.probe_sent = False
            if self._is_stuck(progress, now):
                progress.lost()
            if not self._send_entries(progress, commit, now):
                self._send_append(progress, commit, ())
        return self._round

    def _is_stuck(self, progress: Progress, now: float) -> bool:
        """Whether nothing that the follower answers would get it going again."""
        if progress.state is ProgressState.REPLICATE:
            # The log is compacted past what is in flight. If that was lost, the follower has
            # nothing to reject: the heartbeat can name no entry (etcd-io/raft issue 31).
            return self._log.term_at(progress.next_index - 1) is None
        if progress.state is ProgressState.SNAPSHOT:
            return now - progress.snapshot_sent_at > self._config.snapshot_retry_s
        return False

    def send_new_entries(self, commit: int, now: float) -> None:
        """Send what the followers' windows take; one that has all gets nothing."""
        for progress in self._progress.values():
            self._send_entries(progress, commit, now)

    def announce_commit(self, commit: int, now: float) -> None:
        """Announce at once that more is committed, with entries where there are any."""
        for progress in self._progress.values():
            if not self._send_entries(progress, commit, now):
                self._send_append(progress, commit, ())

    def _send_entries(self, progress: Progress, commit: int, now: float) -> bool:
        sent = False
        config = self._config
        while progress.next_index <= self._log.last_index and progress.may_send(
            config.in_flight_messages_max, config.in_flight_bytes_max
        ):
            if self._log.term_at(progress.next_index - 1) is None:
                self._send_snapshot(progress, commit, now)
                return True
            if progress.next_index < self._log.held_from:
                self._reading.want(progress.node_id, progress.next_index)
                return sent
            entries = self._log.slice(
                progress.next_index, self._log.last_index, bytes_max=config.append_bytes_max
            )
            self._send_these(progress, commit, entries)
            sent = True
        return sent

    def _send_these(self, progress: Progress, commit: int, entries: tuple[Entry, ...]) -> None:
        self._send_append(progress, commit, entries)
        progress.sent(entries[-1].index, sum(entry.size_bytes for entry in entries))

    def on_read(self, node_id: NodeId, entries: tuple[Entry, ...], commit: int, now: float) -> None:
        """Send a follower what was read back for it, if that is still what it needs next."""
        progress = self._progress.get(node_id)
        if progress is None or not progress.may_send(
            self._config.in_flight_messages_max, self._config.in_flight_bytes_max
        ):
            return
        if not entries:  # the disk has dropped them; if not, the next heartbeat asks again
            if self._log.snapshot_index >= progress.next_index:
                self._send_snapshot(progress, commit, now)
            return
        if entries[0].index <= progress.next_index <= entries[-1].index:
            needed = entries[progress.next_index - entries[0].index :]
            self._send_these(progress, commit, needed)
        self._send_entries(progress, commit, now)

    def _send_append(self, progress: Progress, commit: int, entries: tuple[Entry, ...]) -> None:
        previous = progress.next_index - 1
        term = self._log.term_at(previous)
        if progress.state is ProgressState.SNAPSHOT or term is None:
            # A heartbeat that names no real previous entry still keeps the follower quiet.
            previous, term = 0, 0
        probes = progress.state is not ProgressState.REPLICATE
        acknowledged = progress.match_index if probes and self._votes(progress) else 0
        self._send(
            progress.node_id,
            AppendRequest(
                self._config.node_id,
                self._term,
                previous,
                term,
                commit,
                entries,
                self._round,
                acknowledged,
            ),
        )

    def _votes(self, progress: Progress) -> bool:
        return self._log.configuration.is_voter(progress.node_id)

    def _send_snapshot(self, progress: Progress, commit: int, now: float) -> None:
        snapshot = self._log.snapshot
        assert snapshot is not None, "the log was compacted without a snapshot"
        if progress.state is ProgressState.PROBE and progress.match_index:
            # One that has forgotten that must learn it before it has it again.
            self._send_append(progress, commit, ())
        progress.needs_snapshot(snapshot, now)
        self._send_pieces(progress)

    def _send_pieces(self, progress: Progress) -> None:
        """Send as much of the snapshot as the follower's window takes."""
        if progress.snapshot is None:
            return
        room = self._config.snapshot_window_bytes
        for chunk in chunks_of(
            progress.snapshot,
            sender=self._config.node_id,
            term=self._term,
            offset=progress.snapshot_sent,
        ):
            if progress.snapshot_sent - progress.snapshot_received >= room:
                return
            self._send(progress.node_id, chunk)
            progress.snapshot_sent += len(chunk.data)

    # --- receiving --------------------------------------------------------------------------------

    def on_response(self, response: Response, commit: int, now: float) -> bool:
        """Take in an answer; return whether a follower is known to hold more than before."""
        progress = self._progress.get(response.sender)
        if progress is None:
            return False
        if isinstance(response, SnapshotReceived):
            progress.last_contact_at = now
            progress.has_received(response.index, response.received, now)
            self._send_pieces(progress)
            return False
        if self._is_forgetful(progress, response):
            return False
        progress.last_contact_at = now
        progress.round = max(progress.round, min(response.round, self._round))
        news = False
        # While a follower is probed, it cannot learn of commits beyond the probe.
        uninformed = progress.state is ProgressState.PROBE and commit >= progress.next_index
        if isinstance(response, AppendRejected):
            next_index = 1 + self._log.last_index_with_term_at_most(
                response.hint_index, response.hint_term
            )
            progress.rejected(response.rejected_index, next_index)
        elif response.match_index <= self._log.last_index:
            news = progress.matched(response.match_index)
            progress.matched_in = response.round if news else progress.matched_in
        if not self._send_entries(progress, commit, now) and news and uninformed:
            self._send_append(progress, commit, ())
        return news

    def _is_forgetful(self, progress: Progress, response: AppendResponse) -> bool:
        """Whether to take no notice of somebody who lacks what it had acknowledged.

        If it votes: until it has that again. If not, it only has to get it once more.
        """
        if isinstance(response, AppendAccepted):
            progress.forgot = progress.forgot and response.match_index < progress.match_index
        elif progress.has_forgotten(response.rejected_index, response.round):
            if not self._votes(progress):
                progress.forget()
            elif not progress.forgot:
                progress.forgot = True
                held = (progress.match_index, response.hint_index)
                self._noticed.append(VoterForgot(progress.node_id, *held))
        return progress.forgot

    def noticed(self) -> list[Effect]:
        """Return what was noticed since the last call."""
        noticed, self._noticed = self._noticed, []
        return noticed

    def on_lost(self, node_id: NodeId) -> None:
        """Note that the stream to a follower broke: whatever was in flight may be gone."""
        if node_id in self._progress:
            self._progress[node_id].lost()

    def on_connected(self, node_id: NodeId, commit: int, now: float) -> None:
        """Speak at once to a follower that came back, starting from what it is known to have."""
        progress = self._progress.get(node_id)
        if progress is not None:
            progress.lost()
            if not self._send_entries(progress, commit, now):
                self._send_append(progress, commit, ())

    # --- deciding ---------------------------------------------------------------------------------

    def quorum_index(self, own_durable_index: int) -> int:
        """Return the highest index that a quorum holds on disk."""
        matches = self.matches()
        matches[self._config.node_id] = own_durable_index
        return reached_by_quorum(self._log.configuration, matches.__getitem__)

    def confirmed_round(self) -> int:
        """Return the newest round that a quorum answered: so long ago this node surely led."""
        rounds = {node: progress.round for node, progress in self._progress.items()}
        rounds[self._config.node_id] = self._round
        return reached_by_quorum(self._log.configuration, rounds.__getitem__)

    def check_quorum(self, now: float) -> bool:
        """Return whether a quorum answered within the last election timeout; re-arm the check."""
        self.quorum_deadline = now + self._config.election_timeout_s
        answered = self._progress.keys() - self.silent(now)
        return has_quorum(self._log.configuration, [self._config.node_id, *answered])

    def silent(self, now: float) -> list[NodeId]:
        """Return who did not answer within the last election timeout."""
        oldest = now - self._config.election_timeout_s
        return [
            node for node, progress in self._progress.items() if progress.last_contact_at < oldest
        ]

    def best_successor(self, now: float) -> NodeId | None:
        """Return the voter that holds most of those that answered lately; None without any."""
        oldest = now - self._config.election_timeout_s
        candidates = [
            progress
            for node, progress in sorted(self._progress.items())
            if node in self._log.configuration.voters
            and progress.last_contact_at >= oldest
            and not progress.forgot
        ]
        best = max(candidates, key=lambda progress: progress.match_index, default=None)
        return best.node_id if best else None

    def has_everything(self, node_id: NodeId) -> bool:
        """Whether a follower holds the whole log."""
        return self.matches().get(node_id) == self._log.last_index
