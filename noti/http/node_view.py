"""What the HTTP side asks of the node that it runs in: a protocol."""

from typing import Protocol

from noti.rpc.answers import ServerInfo


class NodeView(Protocol):
    """A node, as its operations endpoints show it. All answers are immediate and never raise."""

    @property
    def node_id(self) -> str:
        """Which node of the cluster this is."""

    @property
    def hostname(self) -> str:
        """The machine's or pod's name."""

    @property
    def build(self) -> str:
        """Which build this is, for people."""

    def is_leader(self) -> bool:
        """Whether this node leads."""

    def ready(self) -> bool:
        """Whether browsers may be sent here and are served here.

        True once the node belongs to a cluster and has caught up with it; false again when it has
        lost touch for seconds, or its disk does not answer. An election does not change it: history
        can be read, and news will come.
        """

    def troubles(self) -> list[dict[str, object]]:
        """What ails this node, since when, ready for JSON."""

    async def barrier(self) -> None:
        """Return when everything committed before this call is applied, as a majority confirms.

        Waits as long as there is no leader; the caller sets the deadline.
        """

    def servers(self) -> list[ServerInfo]:
        """The members of the cluster, sorted by id."""

    async def trace(self, event_id: str) -> dict[str, object]:
        """What is known here of an event, ready for JSON."""

    def status(self) -> dict[str, object]:
        """Everything a person or program may want to know, ready for JSON."""
