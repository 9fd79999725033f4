"""The client: reads event streams over HTTP/1.1 as a browser does.

For our own commands (`noti tail`) and tests: `eventstream` parses, pure, what `following` reads
from a connection, and `follower` decides, pure, when and where to connect again.

Enters: addresses of servers, a place to resume from.
Leaves: events, each once, across any number of connections.
Never: loses its place when a connection breaks.
"""
