"""The client: reads event streams over HTTP/1.1 as a browser does.

For our own commands (`noti tail`, `noti status`) and tests: `http` makes one request,
`event_source` reads an event stream over any number of connections, `event_stream` parses it, and
`reconnection` decides when and where to connect again; these two are pure.

Enters: addresses of servers, a place to resume from.
Leaves: events, each once, across any number of connections.
Never: loses its place when a connection breaks.
"""
