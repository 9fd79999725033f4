"""The client: publishes over HTTP, and reads event streams as a browser does.

`Client` is for applications, on Trio or asyncio. For our own commands (`noti tail`, `noti status`),
`http` makes one request, `websocket` opens one, and `event_source` reads an event stream over any
number of connections of either kind.
Both read by `event_stream`, which parses, and `reconnection`, which decides when and where to
connect again; these two are pure.

Enters: addresses of servers, a place to resume from, events to publish.
Leaves: events, each once, across any number of connections; ids of what is committed.
Never: loses its place when a connection breaks, publishes an event under two keys.
"""

from typing import TYPE_CHECKING

from noti.client.event_stream import StreamEvent

if TYPE_CHECKING:
    from noti.client.client import Client

__all__ = ["Client", "StreamEvent"]


def __getattr__(name: str) -> object:
    """Import `Client` when it is asked for: httpx takes longer to load than a command to run."""
    if name != "Client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from noti.client.client import Client

    return Client
