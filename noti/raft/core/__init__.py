"""The pure core of consensus: `machine` decides who leads and what is committed.

`leadership`, `replication` and `progress` are what a leader does, `election` and `following`
what the others do, `membership` who counts, `log`, `outline` and `snapshot` what is known of the
log, and `gate` holds messages back until the disk has what they say. `messages` and `records` are
the values that peers exchange and disks keep, and their bytes.

Enters: `events` (messages, proposals, "persisted", the time). Leaves: effects, in `events` too.
Never: I/O, a clock, a task: a run is repeated by repeating its events.
"""
