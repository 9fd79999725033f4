"""Serf's layer above SWIM: intents, user events and queries, in Serf's own messages.

`layer` hands on what arrives. `intents` orders who joins and leaves, `user_events` passes events
on, `queries` answers and asks, `internal_queries` and `key_queries` are those by which Serf runs
itself. `lamport` has the clocks, `messages` and `states` the format. All of it is that of delegate
protocol 5, which agents from 0.8 on speak.

Enters: payloads of user messages and states, from anywhere; requests of the operator.
Leaves: broadcasts, answers, what happened to whom.
Never: a live member left or forgotten because of an intent; an answer to a stranger.
"""
