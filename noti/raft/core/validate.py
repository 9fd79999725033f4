"""Tells messages that an honest peer can send from those that none can.

Enters: a message from a peer; what this node knows. Leaves: what is invalid in the message itself,
or how it violates the protocol; or None. Never: decides about consensus; rejects what a slow,
lagging or deposed but honest peer sends.

Raft trusts its members, and this does not change that: a peer that lies within the rules is
believed. But one that is broken, or of a broken version, must not take this node down with it. What
violates the protocol is rejected before it changes anything, so that the core's own assertions
speak of nothing but the core.
"""

from typing import assert_never

from noti.errors import MessageInvalid
from noti.raft.core.log import RaftLog
from noti.raft.core.membership import decode_configuration
from noti.raft.core.messages import (
    INDEX_MAX,
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    EntryKind,
    Message,
    NodeId,
    SnapshotChunk,
    SnapshotReceived,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

FROM_LEADER = (AppendRequest, SnapshotChunk)
"""What only the leader of its term sends."""
TERM_JUMP_MAX = 2**32
"""Terms that a peer may be ahead of us: 68 years of an election every half second. A term is never
taken back, so one message with the last possible term would end all elections permanently."""
INDEX_JUMP_MAX = 2**48
"""Entries that a snapshot may be ahead of us: 890 years of 10,000 entries a second."""


def find_invalid(message: Message) -> str | None:
    """Return why no honest peer sends this message, whatever it knows; None when one may."""
    if not 0 <= _numbers(message) <= INDEX_MAX:
        return "a number that is no index, term or size"
    match message:
        case AppendRequest():
            return _invalid_in_entries(message)
        case SnapshotChunk():
            if not 0 < message.snapshot_term <= message.term or message.index == 0:
                return f"a snapshot at {message.index} of term {message.snapshot_term}"
            if message.offset + len(message.data) > message.total:
                return f"a snapshot piece beyond the snapshot's end ({message.total} bytes)"
            return _invalid_in_configuration(message.configuration)
        case TimeoutNow():
            return "a leader of term 0" if message.term == 0 else None
        case VoteRequest() | VoteResponse() | AppendAccepted() | AppendRejected():
            return None
        case SnapshotReceived():
            return None
        case _:
            assert_never(message)


def find_violation(
    message: Message, own_id: NodeId, term: int, leader: NodeId | None, commit: int, log: RaftLog
) -> str | None:
    """Return why this node, in its `term` and with its `log`, must not believe the message."""
    if message.sender == own_id:
        return "a message in our own name"
    if message.term > term + TERM_JUMP_MAX:
        return f"term {message.term}, far beyond ours, which is {term}"
    found = find_invalid(message)
    if found is not None or message.term < term:
        return found
    if not isinstance(message, FROM_LEADER):
        return None
    if message.term == term and leader not in (None, message.sender):
        return f"a second leader in term {term}, beside {leader}"
    if isinstance(message, SnapshotChunk):
        return _violation_in_snapshot(message, commit, log)
    return _violation_in_entries(message, commit, log)


def _numbers(message: Message) -> int:
    """Return all numbers of a message, or-ed: negative if one is, too large if one is.

    That `INDEX_MAX` is one less than a power of two makes it so; it is asked for every message.
    """
    match message:
        case AppendRequest():
            previous = message.previous_index | message.previous_term
            counters = message.commit | message.round | message.acknowledged
            return message.term | previous | counters
        case AppendAccepted():
            return message.term | message.match_index | message.round
        case AppendRejected():
            hint = message.rejected_index | message.hint_index | message.hint_term
            return message.term | hint | message.round
        case VoteRequest():
            return message.term | message.last_index | message.last_term
        case SnapshotChunk():
            sizes = message.offset | message.total
            return message.term | message.index | message.snapshot_term | sizes
        case SnapshotReceived():
            return message.term | message.index | message.received
        case VoteResponse() | TimeoutNow():
            return message.term
        case _:
            assert_never(message)


def _invalid_in_entries(request: AppendRequest) -> str | None:
    if request.term == 0:
        return "a leader of term 0"
    index, term = request.previous_index, request.previous_term
    for entry in request.entries:
        index += 1
        if entry.index != index:
            return f"entry {entry.index} where {index} belongs"
        if not max(term, 1) <= entry.term <= request.term:
            return f"entry {index} of term {entry.term}, after term {term}, from {request.term}"
        term = entry.term
        if entry.kind is EntryKind.CONFIGURATION:
            found = _invalid_in_configuration(entry.data)
            if found is not None:
                return found
    return "an entry beyond the last possible index" if index > INDEX_MAX else None


def _invalid_in_configuration(data: bytes) -> str | None:
    try:
        configuration = decode_configuration(data)
    except MessageInvalid as error:
        return str(error)
    groups = (configuration.voters, configuration.outgoing, configuration.learners)
    if any(list(group) != sorted(set(group)) for group in groups):
        return "a membership configuration that names a node twice, or in disorder"
    return None if configuration.voters else "a membership configuration without voters"


def _violation_in_snapshot(chunk: SnapshotChunk, commit: int, log: RaftLog) -> str | None:
    if chunk.index > log.last_index + INDEX_JUMP_MAX:
        return f"a snapshot at {chunk.index}, far beyond our log, which ends at {log.last_index}"
    if chunk.index > commit and chunk.snapshot_term < (log.term_at(commit) or 0):
        return f"a snapshot of term {chunk.snapshot_term} after what is committed here"
    return None


def _violation_in_entries(request: AppendRequest, commit: int, log: RaftLog) -> str | None:
    """Every leader holds what is committed (Raft 5.4), so it never sends anything else instead."""
    if not request.entries or log.term_at(request.previous_index) != request.previous_term:
        return None  # a heartbeat, or it will be rejected, with a hint where to go on
    for entry in request.entries[: max(0, commit - request.previous_index)]:
        if log.term_at(entry.index) not in (None, entry.term):
            return f"entry {entry.index} of term {entry.term} in place of a committed one"
    return None
