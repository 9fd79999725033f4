"""What must hold in a cluster of whole nodes, checked at the moment at which it could break.

Enters: what nodes say, show and acknowledge, what browsers see. Leaves: an `AssertionError`.
Never: looks away: each check sits where the fact passes by, not in a poll.

- a node of which a part failed never leads again, however long its end takes;
- one leader per term, and one vote per node and term, over restarts;
- one cluster, however its founding went;
- the same notifications under the same numbers on every node, each published event once;
- a snapshot says everything about a store;
- what browsers can resume from is what the replicated limits say, on every node;
- equal stores where equally much is applied;
- a subscription is told once when created, and once, later, when terminated;
- at rest, all nodes know of exactly the streams that are open;
- nothing is acknowledged to the source before it is shown;
- what the source has is shown in the order of its stream;
- nothing above a dead letter is shown before that one is copied;
- each browser sees the next notification, or is told of a gap;
- a read shows all that was shown anywhere before it.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from typing import NoReturn

from noti.history.notification import Notification
from noti.history.store import Store
from noti.history.subscriber import SUBSCRIPTIONS
from noti.raft.core.messages import NodeId, PeerMessage, VoteResponse
from noti.raft.core.validate import FROM_LEADER


def tells_of_a_subscription(notification: Notification) -> bool:
    """Return whether it is the cluster's own, and no publisher's."""
    return notification.topics[0].startswith(SUBSCRIPTIONS)


def number_of(notification: Notification) -> int:
    """Return the publisher's number of an event."""
    return int(notification.data.split('"user_id":')[1].split(",")[0])


_NO_STATE = {"_gone", "_published"}
"""Of a store: what only its last command did."""


class Checks:
    """The truth about one cluster, as far as anybody showed it."""

    def __init__(self, tell: Callable[[str], None] = lambda line: None) -> None:
        """`tell` hears what is broken, at the moment at which it breaks."""
        self._tell = tell
        self._broken = ""
        self.shown: list[Notification] = []
        """Notification number n stands at n - 1."""
        self.numbers: set[int] = set()
        """The publisher's numbers of all that was shown."""
        self.refused: set[int] = set()
        """Numbers whose publisher was told that nothing was done."""
        self.seqs: dict[str, int] = {}
        """The number under which an event id was shown."""
        self.leaders: dict[int, NodeId] = {}
        self.fallen: dict[NodeId, int] = {}
        """Nodes that are about to end because a part failed, and their terms then."""
        self.subscriptions: dict[str, bool] = {}
        """Whether a subscription was last told to be active, by its topic."""
        self.cluster_id = ""
        self.places: dict[int, tuple[str, int]] = {}
        """Of numbers that were published to the source: stream and sequence."""
        self._reached: dict[str, int] = {}
        """The sequence up to which a stream was shown."""
        self._votes: dict[tuple[NodeId, int], NodeId] = {}
        self._digests: dict[tuple[int, int, Hashable], str] = {}

    def _demand(self, holds: object, failure: str) -> None:
        if not holds:
            self._fail(failure)

    def _fail(self, failure: str) -> NoReturn:
        self._broken = self._broken or failure
        self._tell(failure)
        raise AssertionError(failure)

    def all_held(self) -> None:
        """Fail again where a part of a node took a failure for one of its own, and went on."""
        assert not self._broken, self._broken

    def node_showed(self, name: str, notifications: Sequence[Notification]) -> None:
        """A node applied these; a command, or the history in a snapshot."""
        for notification in notifications:
            known = self.shown[notification.seq - 1 : notification.seq]
            if known:
                self._demand(
                    known == [notification], f"{name} shows another notification {notification.seq}"
                )
                continue
            self._demand(
                notification.seq == len(self.shown) + 1,
                f"{name} shows {notification.seq}, but nobody showed {len(self.shown) + 1}",
            )
            if tells_of_a_subscription(notification):
                self._told_of_a_subscription(name, notification)
            else:
                number = number_of(notification)
                self._demand(number not in self.refused, f"{name} shows event {number}, as refused")
                self._demand(
                    number not in self.numbers, f"{name} shows event {number} for the second time"
                )
                self.numbers.add(number)
                stream, place = self.places.get(number, ("", 0))
                self._demand(
                    not stream or place > self._reached.get(stream, 0),
                    f"{name} shows event {number}, number {place} of stream {stream}, late",
                )
                self._reached[stream] = place
            self._demand(
                notification.id not in self.seqs, f"{name} shows an id for the second time"
            )
            self.shown.append(notification)
            self.seqs[notification.id] = notification.seq

    def _told_of_a_subscription(self, name: str, notification: Notification) -> None:
        active = json.loads(notification.data)["active"]
        self._demand(notification.private, f"{name} tells everybody of a subscription")
        self._demand(
            self.subscriptions.get(notification.topics[0], False) is not active,
            f"{name} tells for the second time that a subscription is {active=}",
        )
        self.subscriptions[notification.topics[0]] = active

    def acknowledged(self, number: int) -> None:
        """The source was told that this event need not come again, or its publisher that it is
        committed."""
        self._demand(
            number in self.numbers, f"event {number} was acknowledged before it was committed"
        )

    def passed_a_dead_letter(self, name: str, seq: int, *, is_copied: bool) -> None:
        """A node's floor is at or above a message that can never be an event."""
        self._demand(is_copied, f"{name} went past dead letter {seq} before it was copied")

    def refuses(self, number: int) -> None:
        """A publisher was told that this event is not committed, and never will be."""
        self._demand(number not in self.numbers, f"event {number} is shown, and was refused")
        self.refused.add(number)

    def said(self, target: NodeId, messages: Sequence[PeerMessage]) -> None:
        """A node sent these."""
        for message in messages:
            if isinstance(message, FROM_LEADER):
                sender, term = message.sender, message.term
                if term > self.fallen.get(sender, term):
                    self._fail(f"{sender} was elected while it fell")
                known = self.leaders.setdefault(term, sender)
                if known != sender:
                    self._fail(f"two leaders in term {term}: {known} and {sender}")
            elif isinstance(message, VoteResponse) and message.granted and not message.pre:
                voted = self._votes.setdefault((message.sender, message.term), target)
                if voted != target:
                    self._fail(f"{message.sender} voted twice in term {message.term}")

    def belongs(self, name: str, cluster_id: str) -> None:
        """A node says that it belongs to this cluster."""
        self.cluster_id = self.cluster_id or cluster_id
        if cluster_id != self.cluster_id:
            self._fail(f"{name} belongs to a second cluster")

    def store_is(
        self, name: str, last_seq: int, history_size: int, silent: Hashable, digest: str
    ) -> None:
        """A node's store has this digest.

        `silent` is what commands change that show nothing: lives in the table of subscriptions,
        floors of streams, and the level of the cluster.
        """
        known = self._digests.setdefault((last_seq, history_size, silent), digest)
        self._demand(
            known == digest, f"{name} has another store than others at notification {last_seq}"
        )

    def snapshot_is_whole(self, name: str, store: Store, restored: Store) -> None:
        """A store, and what a snapshot of it restores."""
        state, restored_state = (
            {part: value for part, value in vars(one).items() if part not in _NO_STATE}
            for one in (store, restored)
        )
        self._demand(
            state == restored_state, f"{name} forgets something in a snapshot of its store"
        )

    def history_is(self, name: str, oldest_seq: int, store: Store) -> None:
        """Browsers of a node can resume from so far back."""
        self._demand(
            oldest_seq == store.first_seq,
            f"{name} serves history from {oldest_seq} on, and the cluster's begins with "
            f"{store.first_seq}",
        )

    def browser_saw(
        self, browser: str, after: int | None, event_id: str, *, gap: bool, holes: bool = False
    ) -> int:
        """A browser that has everything up to `after` (None: just came) got this event.

        With `holes` it begins anew in sparse history, whose events it may have seen before.
        """
        self._demand(event_id in self.seqs, f"{browser} saw an event that no node showed")
        seq = self.seqs[event_id]
        if holes:
            return seq
        if gap:
            self._demand(
                after is None or seq > after, f"{browser} was told of a gap where none was"
            )
        elif after is not None:
            self._demand(
                seq > after, f"{browser} saw notification {seq} again, or late, after {after}"
            )
            self._demand(
                seq == after + 1, f"{browser} saw {seq} after {after}, and was told of no gap"
            )
        return seq
