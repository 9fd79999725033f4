"""The checks of a cluster of cores find the classic mistakes: each is planted, and must be seen."""

import traceback
from typing import Any

import pytest

from noti.raft.core.events import SendMessage
from noti.raft.core.following import Following
from noti.raft.core.machine import Raft
from noti.raft.core.messages import (
    INDEX_MAX,
    AppendRequest,
    Entry,
    EntryKind,
    Message,
    NodeId,
    SnapshotChunk,
    VoteRequest,
)
from tests import promises
from tests.raft.core import ballots, cluster
from tests.raft.faults import torment
from tests.raft.storage import log_checks

CHECKS = {module.__file__ for module in (ballots, cluster, log_checks)}


class VotesBeforeTheDisk(Raft):
    """A vote leaves before it is durable: after a crash the node votes again."""

    def _send(self, to: NodeId, message: Message) -> None:
        if to == self._id:
            super()._send(to, message)
        else:
            self._effects.append(SendMessage(to, message))


class VotesTwice(Raft):
    """Forgets for whom it voted in this term."""

    def _on_vote_request(self, request: VoteRequest, now: float) -> None:
        if not request.pre:
            self._voted_for = None
        super()._on_vote_request(request, now)


class VotesForAnybody(Raft):
    """Does not ask whether the candidate's log is up to date."""

    def _on_vote_request(self, request: VoteRequest, now: float) -> None:
        boasting = VoteRequest(
            request.sender, request.term, INDEX_MAX, INDEX_MAX, request.pre, request.transfer
        )
        super()._on_vote_request(boasting, now)


class AnswersBeforeTheDisk(Raft):
    """An append is confirmed when it is received instead of when it is durable."""

    def _new_following(self, now: float) -> Following:
        parts: dict[str, Any] = {"log": self._log, "gate": self._gate, "send": self._send}
        return Hasty(self._id, self._term, **parts, now=now)


class Hasty(Following):
    def _take_entries(self, entries: tuple[Entry, ...], commit: int) -> None:
        super()._take_entries(entries, commit)
        self._gate.durable = self._log.last_index


class CountsItselfBeforeTheDisk(Raft):
    """A leader takes its own entries for durable while it writes them."""

    def _append_own(self, kind: EntryKind, data: bytes) -> None:
        super()._append_own(kind, data)
        self._gate.durable = self._log.last_index


class CommitsOlderTermsByCounting(Raft):
    """Figure 8 of the paper: a majority holds an old entry, and it can still be overwritten."""

    def _become_leader(self, now: float) -> None:
        super()._become_leader(now)
        assert self._leadership is not None
        self._leadership.first_index = 1


class CommitsWhatItDoesNotMatch(Raft):
    """Takes over the leader's commit index for entries that were never compared."""

    def _on_append_request(self, request: AppendRequest) -> None:
        super()._on_append_request(request)
        self._commit = max(self._commit, min(request.commit, self._log.last_index))


class SkipsThePreVote(Raft):
    """Campaigns at once, so that a node behind a broken cable raises the term for ever."""

    def _pre_campaign(self, now: float) -> None:
        self._campaign(now, transfer=False)


class InstallsOlderSnapshots(Raft):
    """Does not compare a leader's snapshot with what is committed here."""

    def _on_snapshot_chunk(self, chunk: SnapshotChunk, now: float) -> None:
        commit, self._commit = self._commit, 0
        super()._on_snapshot_chunk(chunk, now)
        self._commit = commit


@promises.CHECKS_FIND_MISTAKES
@pytest.mark.parametrize(
    ("mistake", "seeds_max"),
    [
        (VotesBeforeTheDisk, 1),
        (VotesTwice, 20),
        (VotesForAnybody, 20),
        (AnswersBeforeTheDisk, 1),
        (CountsItselfBeforeTheDisk, 10),
        (CommitsOlderTermsByCounting, 20),
        (CommitsWhatItDoesNotMatch, 20),
        (SkipsThePreVote, 1),
        (InstallsOlderSnapshots, 60),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{value} seeds",
)
def test_planted_mistake_is_found(mistake: type[Raft], seeds_max: int) -> None:
    """By a check, not by an assertion of the core itself."""
    for seed in range(seeds_max):
        try:
            torment(seed, mistake)
        except AssertionError as error:
            where = traceback.extract_tb(error.__traceback__)[-1].filename
            if where in CHECKS:
                return
    pytest.fail(f"not found in {seeds_max} seeds")
