"""HTTP: takes requests in, and answers them or hands their sockets to the streams.

`acceptor` reads the heads of plain HTTP/1.1 requests, `stream_openings` begins their streams at
once; all else goes to Quart (`app`, `stream_routes`) on Hypercorn (`hypercorn_glue`,
`strict_parsers`), within `connection_limits`; `http2_streams` sends what follows on the streams of
HTTP/2. Both ask `subscribe` how a request for a stream is answered;
`subscription_request` reads what it asks for, and `hub_url` says under which URL it knows the hub.
Publishers' connections stay at `publish_connections` (in order by `publish_requests` and
`publish_exchange`); these and Quart bring events to `publish_endpoint`, which asks `publish` (with
`forms` and `reserved_topics`) how one is answered. `heads` parses and writes heads,
`response_headers` says what all responses carry, `answers` are whole ones, `quart_glue` joins both
to Quart, `tls` does the handshake of HTTPS, `server` starts and stops all of it in order, and
`clients` joins it to the hub. `ops` answers probes and operators, `static/` holds the pages.

Enters: connections of browsers, publishers, load balancers and operators.
Leaves: responses; sockets of streams, for `noti.streams`; events, for `noti.publishing`.
Never: waits for a slow client; shows a secret; decides what is committed.
"""
