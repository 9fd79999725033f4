"""What an operator asks of all members through this node: events, queries, keys, to forget one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import trio

from noti.errors import Unavailable


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """What one member says to a query; each acks it at most once, and answers at most once."""

    node: str
    is_ack: bool
    """It took the query, which is all that it says; agents ack before they answer."""
    payload: bytes
    """Empty in an ack."""


class KeyOperation(Enum):
    """What can be asked about gossip keys, under the name of its query."""

    LIST = "_serf_list-keys"
    INSTALL = "_serf_install-key"
    USE = "_serf_use-key"
    REMOVE = "_serf_remove-key"


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What one member says to a request about keys."""

    node: str
    done: bool
    text: str
    """Why it is not done; or that not all keys are listed; mostly empty."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Its keys in base64, if they were asked for: secrets."""
    primary: str = field(default="", repr=False)
    """The one that encrypts, likewise; empty when the member does not say."""


@dataclass(frozen=True, slots=True)
class KeysReport:
    """What all members said to a request about keys."""

    answers: tuple[KeyAnswer, ...]
    """By name of the member, this node included."""
    silent: tuple[str, ...]
    """Names of members that are there and did not answer in time."""


class SerfRequests:
    """One node's requests to all members."""

    def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        """Tell all members of a user event; agents hand it to their handlers.

        With `coalesce`, an agent may hand on only the last one of this name. Returns at once:
        nobody confirms an event. Raises `LocalError` when it is longer than Serf allows, and
        `Unavailable` before the node gossips.
        """
        raise Unavailable("this node sends no events yet")

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
        """Ask all members, this node included; iterate over the result, which ends in time.

        Only these `nodes` answer, if any are given, whose `tags` match these regular expressions
        (RE2, somewhere in the value). `timeout_s` is Serf's default for the cluster's size if None.
        Each answer comes over `relay_factor` other members, too. Whoever does not iterate to the
        end closes the channel. Raises `LocalError` when the query is longer than Serf allows or
        otherwise cannot be sent, `Unavailable` before the node gossips, and `Overloaded` when too
        many queries wait for answers.
        """
        raise Unavailable("this node sends no queries yet")

    async def keys_query(
        self, operation: KeyOperation, key: bytes | None = None, *, timeout_s: float | None = None
    ) -> KeysReport:
        """Ask all members, this node included, about keys; `key` is None only for a list.

        Returns when all members that are there have answered, or in time. Raises as `query` does.
        When it is cancelled, members may have done it all the same.
        """
        raise Unavailable("this node sends no queries yet")

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Have all members take a failed member for one that left; with `prune`, forget it.

        A member that is alive refutes that. Returns at once. Raises `LocalError` when no member
        has this name, and `Unavailable` before the node gossips.
        """
        raise Unavailable("this node sends no intents yet")
