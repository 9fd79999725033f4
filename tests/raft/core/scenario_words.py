"""The words in which scenarios tell what a core says and does.

Enters: messages, effects. Leaves: one line of text each. Never: a field that could matter and is
left out silently.
"""

from typing import assert_never

from noti.raft.core.events import (
    Apply,
    ChangeRejected,
    CommitStalled,
    DiskHung,
    DiskOutdated,
    Effect,
    MessageRejected,
    Persist,
    PersistSnapshot,
    ProposalAccepted,
    ProposalRejected,
    ReadEntries,
    ReadReady,
    RestoreSnapshot,
    RoleChanged,
    SaveSnapshot,
    SendMessage,
    VoterForgot,
)
from noti.raft.core.membership import Configuration, decode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    EntryKind,
    Message,
    SnapshotChunk,
    SnapshotReceived,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)


def members(configuration: Configuration) -> str:
    """Return `voters 1 2 3, learners 4`; while joint `voters 1 2 4 and 1 2 3`."""
    text = f"voters {' '.join(configuration.voters) or '-'}"
    if configuration.outgoing:
        text += f" and {' '.join(configuration.outgoing)}"
    if configuration.learners:
        text += f", learners {' '.join(configuration.learners)}"
    return text


def describe_entry(entry: Entry) -> str:
    """Return `index/term what`."""
    match entry.kind:
        case EntryKind.NOOP:
            what = "noop"
        case EntryKind.COMMAND:
            what = entry.data.decode()
        case EntryKind.CONFIGURATION:
            what = f"({members(decode_configuration(entry.data))})"
        case _:
            assert_never(entry.kind)
    return f"{entry.index}/{entry.term} {what}"


def describe_entries(entries: tuple[Entry, ...]) -> str:
    """Return all of them."""
    return ", ".join(map(describe_entry, entries))


def describe_message(message: Message) -> str:
    """Return a message without its sender; `t2` is its term."""
    match message:
        case VoteRequest():
            last = f"{message.last_index}/{message.last_term}"
            kind = "pre-vote?" if message.pre else "vote?"
            told = ", told to by the leader" if message.transfer else ""
            return f"{kind} t{message.term} last {last}{told}"
        case VoteResponse():
            kind = "pre-vote" if message.pre else "vote"
            return f"{kind} {'yes' if message.granted else 'no'} t{message.term}"
        case AppendRequest():
            kind = "append" if message.entries else "heartbeat"
            after = f"{message.previous_index}/{message.previous_term}"
            entries = f" [{describe_entries(message.entries)}]" if message.entries else ""
            end = f"commit {message.commit} round {message.round}"
            end += f" you have {message.acknowledged}" if message.acknowledged else ""
            return f"{kind} t{message.term} after {after}{entries} {end}"
        case AppendAccepted():
            return f"have t{message.term} through {message.match_index} round {message.round}"
        case AppendRejected():
            hint = f"{message.hint_index}/{message.hint_term}"
            end = f"at {message.rejected_index}, try {hint} round {message.round}"
            return f"mismatch t{message.term} {end}"
        case SnapshotChunk():
            at = f"{message.index}/{message.snapshot_term}"
            through = message.offset + len(message.data)
            piece = f"{message.offset}..{through}/{message.total}"
            return f"snapshot t{message.term} at {at} bytes {piece}"
        case SnapshotReceived():
            return f"have t{message.term} {message.received} bytes of snapshot {message.index}"
        case TimeoutNow():
            return f"take over t{message.term}"
        case _:
            assert_never(message)


def describe_effect(effect: Effect) -> str:
    """Return what the core orders."""
    match effect:
        case SendMessage(to, message):
            return f"to {to}: {describe_message(message)}"
        case Persist(batch, hard_state, entries):
            parts = []
            if hard_state is not None:
                parts.append(f"term {hard_state.term} vote {hard_state.voted_for or '-'}")
            if entries:
                parts.append(describe_entries(entries))
            return f"write #{batch}: {'; '.join(parts)}"
        case PersistSnapshot(batch, snapshot):
            return f"write #{batch}: snapshot {snapshot.index}/{snapshot.term} instead of the log"
        case SaveSnapshot(snapshot, drop_through):
            at = f"{snapshot.index}/{snapshot.term}"
            return f"save snapshot {at}, drop the log through {drop_through}"
        case ReadEntries(reader, first, last):
            return f"read {first}..{last} to {f'send to {reader}' if reader else 'apply'}"
        case Apply(entries):
            return f"apply {describe_entries(entries)}"
        case RestoreSnapshot(snapshot):
            return f"restore {snapshot.index}/{snapshot.term} {b''.join(snapshot.pieces).decode()}"
        case RoleChanged(role, term, leader):
            return f"is {role.value} in term {term}, leader {leader or '-'}"
        case ProposalAccepted(request, index, term):
            return f"request {request}: accepted as {index}/{term}"
        case ProposalRejected(request, backlog_full, leader):
            reason = "the backlog is full" if backlog_full else f"leader {leader or '-'}"
            return f"request {request}: rejected, {reason}"
        case ChangeRejected(request, reason):
            return f"request {request}: refused, {reason}"
        case ReadReady(request, index):
            return f"request {request}: readable once {index} is applied"
        case MessageRejected(sender, reason):
            return f"refuse what {sender} said: {reason}"
        case DiskHung(since):
            return "the disk works" if since is None else f"the disk hangs since {since:g}"
        case CommitStalled(reason):
            return f"nothing is committed: {reason}"
        case VoterForgot(voter, acknowledged, holds):
            return f"{voter} had {acknowledged} on disk and has {holds}"
        case DiskOutdated(acknowledged, holds):
            return f"must end: had {acknowledged} on disk and has {holds}"
        case _:
            assert_never(effect)
