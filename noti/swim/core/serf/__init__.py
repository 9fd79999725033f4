"""Serf's layer above SWIM: intents, user events and queries, in Serf's own messages.

`intents` orders who joins and leaves. Codecs and rules are of delegate protocol 5, which agents
from 0.8 on speak.

Enters: payloads of user messages and states, from anywhere; requests of the operator.
Leaves: broadcasts, answers, what happened to whom.
Never: a member dead because of an intent; an answer to a stranger.
"""
