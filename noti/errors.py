"""Every error that noti raises on purpose; adapters translate foreign ones into these.

A test compares this tree with the classes:

    NotiError
    ├── LocalError            our own caller did something that cannot work
    │   ├── ConfigInvalid     a setting is wrong; the message says which one and what to do
    │   ├── KeyRejected       the gossip keys cannot be changed so
    │   └── AddressInUse      a port that we should listen on is taken
    ├── RemoteError           a peer, client or publisher sent something that is rejected
    │   ├── MessageInvalid    bytes that do not decode
    │   │   ├── TooLarge      more of it than is taken: bytes, topics or fields
    │   │   ├── LabelForeign  gossip with another label than ours, or without one
    │   │   └── Undecryptable gossip under none of our keys, or not encrypted where it must be
    │   ├── RequestRejected   a hub answered that it will never take this request; has the status
    │   ├── IdempotencyKeyReused  the key of a publisher stands for another event already
    │   └── ClusterMismatch   a peer of another cluster or version, or another node under this id
    ├── Unavailable           retry later; nothing is known to be wrong with the request
    │   ├── NotLeader         only the leader can do this; carries who that might be
    │   ├── ProposalUncertain it may or may not be committed: nobody answered, or not in time
    │   ├── Overloaded        too much waits, or browsers cannot follow; nothing was appended
    │   ├── MembershipChangeRejected  a change of membership cannot be done now
    │   ├── DecommissionRejected  this node cannot be decommissioned, or not in time; says why
    │   ├── PeerUnavailable   the stream to a peer could not be opened, or broke
    │   ├── SourceUnavailable the event source (NATS) cannot be reached or lost its place
    │   │   └── SourceOccupied    somebody else reads it, and both cannot; says who
    │   ├── WorkerLost        a web worker, or its node, is gone or does not answer
    │   └── KubernetesFailed  the Kubernetes API does not answer, or will not do it now
    │       ├── KubernetesForbidden  the Role lacks a right
    │       ├── ObjectAbsent         there is no such object
    │       ├── ObjectConflict       somebody else changed the object meanwhile
    │       └── VersionGone          changes since that version are forgotten: list anew
    └── FatalError            the node must stop
        ├── CommandUnknown    a newer version's command was committed
        ├── LevelUnsupported  the cluster is at a level that this release does not support
        └── StorageError      the data directory cannot be used
            ├── StorageLocked     another process uses it
            ├── StorageForeign    it belongs to another node or cluster
            ├── StorageFailed     a write or sync failed; nothing written since may be relied on
            ├── StorageOutdated   it is older than what this node acknowledged
            └── StorageCorrupt    damage that is not a torn tail; says file and offset
"""

from collections.abc import Sequence


class NotiError(Exception):
    """Base of all errors raised on purpose; its text is one line for a person."""


class LocalError(NotiError):
    """Our own caller asked for something that cannot work."""


class ConfigInvalid(LocalError):
    """A setting is wrong; the text names the setting and the remedy."""


class KeyRejected(LocalError):
    """A change of the gossip keys that cannot be made; the text says why, without the key."""


class AddressInUse(LocalError):
    """An address that this node should listen on is taken or cannot be bound."""


class RemoteError(NotiError):
    """Another party sent something that is rejected."""


class MessageInvalid(RemoteError):
    """Bytes from outside do not decode, or decode to something illegal."""


class TooLarge(MessageInvalid):
    """There is more of it than is taken: bytes, topics or fields."""


class LabelForeign(MessageInvalid):
    """Gossip with another label than ours, or without one."""


class Undecryptable(MessageInvalid):
    """Gossip under none of our keys, or not encrypted where it must be."""


class RequestRejected(RemoteError):
    """A hub answered that it will never take this request; the text is its own."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        """Of HTTP: 401 for a token, 403 for a right, 400 for the request itself."""


class IdempotencyKeyReused(RemoteError):
    """Events were dropped, as their idempotency keys stand for other content already.

    The other events that were submitted with them are committed.
    """

    def __init__(self, ids: Sequence[str | None]) -> None:
        dropped = [number for number, one in enumerate(ids, start=1) if one is None]
        which = ""
        if len(ids) > 1:
            numbers = ", ".join(map(str, dropped[:10])) + (" …" if len(dropped) > 10 else "")
            committed = len(ids) - len(dropped)
            which = f"; dropped of {len(ids)}: number {numbers}; committed: {committed}"
        super().__init__(
            f"the idempotency key was used for another event: give every event its own{which}"
        )
        self.ids = tuple(ids)
        """For each event the id under which it was shown; None where it was dropped."""


class ClusterMismatch(RemoteError):
    """The other side is of another cluster or version, or claims another's identity."""


class Unavailable(NotiError):
    """Retry later: the request itself is not at fault."""


class NotLeader(Unavailable):
    """Only the leader can do this."""

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"this node is not the leader (leader: {leader or 'none known'})")
        self.leader = leader


class ProposalUncertain(Unavailable):
    """A proposal may or may not be committed.

    Leadership was lost, no answer came in time, or the node stopped.
    """


class Overloaded(Unavailable):
    """Too much waits, or browsers cannot follow; nothing was appended."""


class MembershipChangeRejected(Unavailable):
    """A change of membership cannot be done now; the text says why."""


class DecommissionRejected(Unavailable):
    """This node cannot be decommissioned, or could not in time; the text says why."""


class PeerUnavailable(Unavailable):
    """The stream to a peer could not be opened, or broke."""


class SourceUnavailable(Unavailable):
    """The event source cannot be reached, or lost its place and must be opened again."""


class SourceOccupied(SourceUnavailable):
    """A consumer of somebody else's reads the source: an operator decides; the text says how."""


class WorkerLost(Unavailable):
    """A web worker, or the node that it belongs to, is gone or does not answer."""


class KubernetesFailed(Unavailable):
    """The Kubernetes API does not answer, or will not do what it was asked now."""

    def __init__(self, problem: str, retry_after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s
        """How long it wants to be left alone at least."""


class KubernetesForbidden(KubernetesFailed):
    """We may not do that: the Role lacks a right, or the token is not accepted."""


class ObjectAbsent(KubernetesFailed):
    """There is no such object."""


class ObjectConflict(KubernetesFailed):
    """Somebody else has changed the object meanwhile: look at it again."""


class VersionGone(KubernetesFailed):
    """Changes since that version are not remembered: list anew."""


class FatalError(NotiError):
    """The node must stop: if it went on, it would not keep what it has promised."""


class CommandUnknown(FatalError):
    """The cluster committed a command that this version does not know.

    Skipping it would make this node's state differ from the others', so the node must stop.
    """

    def __init__(self, kind: int) -> None:
        super().__init__(
            f"command kind {kind} is unknown: this node is older than the cluster: upgrade it"
        )
        self.kind = kind


class LevelUnsupported(FatalError):
    """The cluster is at a level beyond what this release can read; the text says what to install.

    Nothing of the state has changed.
    """


class StorageError(FatalError):
    """The data directory cannot be used."""


class StorageLocked(StorageError):
    """Another process holds the data directory."""


class StorageForeign(StorageError):
    """The data directory belongs to another node name or cluster."""


class StorageFailed(StorageError):
    """A write or a sync failed: what is on disk since the last success is unknown."""


class StorageOutdated(StorageError):
    """The data directory lacks what this node had reported to its leader to be on disk.

    Its vote could elect a leader that lacks that, too, so it must not vote any more.
    """

    def __init__(self, acknowledged: int, holds: int) -> None:
        super().__init__(
            f"the data directory ends at log entry {holds}, but this node had acknowledged all up "
            f"to {acknowledged}: it is an old copy (a restored backup or snapshot?) and must not "
            "vote; delete it and let the node join again as a new one"
        )


class StorageCorrupt(StorageError):
    """Damage that a crash cannot explain; the text says file and offset."""


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors in an exception group, of whatever depth, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]


def sentence(error: Exception) -> str:
    """Return an error's text, which is a clause, as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
