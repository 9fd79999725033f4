"""What survives a crash: log, hard state and snapshot in files.

`wal` keeps them, `segments` lays them out and tells a torn tail from damage, `recovery` rebuilds
what a node remembers. `log_writer` and `log_reader` carry out the core's orders one after the
other; `disk_writer` is a process of its own, so that a busy loop does not delay a sync.

Enters: records to keep, positions to read. Leaves: "persisted", entries, what was recovered.
Never: says that something is kept before the disk has synced it; repairs damage silently.
"""
