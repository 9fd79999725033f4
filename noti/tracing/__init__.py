"""Follows single events: spans for OpenTelemetry, lines for the log, what a node knows of an id.

`ports` says what a tracer is, `open_telemetry` is one, whose spans `exporting` sends away, and
`switching` makes it. `taking` is what ways in do with the traces of their events; `trail` follows
events from their being applied to the streams of a process. `lookup` puts together what a node
knows of an id, `refusals` why it became no event.

Enters: events as they are taken and applied, the end of passes over streams.
Leaves: spans to a collector; log lines; answers about an id.
Never: work for events of which nobody asked to know; a trouble of the collector, or of
OpenTelemetry, for anybody else.
"""
