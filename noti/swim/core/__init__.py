"""The pure core of gossip: `machine` takes events and returns effects.

`member_states` decides the states of the other members, `own_state` speaks for this node,
`suspicion` decides how long a suspect may answer, `probing` who is probed next, `relays` probes for
others, `awareness` scores how well this node itself does, `coordinates` estimates round trips,
`exchanges` decides with whom full state is exchanged, `broadcasts` and `outbox` what travels with
which packet. `encoding`, `packets` and `streams` are the wire format, `serf` is the layer above;
`sealing` encrypts it with the keys of `keyring`, `labels` are in front, `lzw` expands what others
compressed, and `stream_layers` does all of that for streams.
Bytes become messages in `packets.decode_packet` and `streams.StreamDecoder`, messages become bytes
in `packets.encode` and `streams.encode_stream`; what Serf put into them is decoded and encoded in
`serf`.

Enters: `events` (packets, streams, the time). Leaves: effects, in `events` too.
Never: I/O, a clock, a task; an invalid packet accepted in part, but the valid parts of a compound.
"""
