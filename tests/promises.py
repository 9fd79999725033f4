"""What noti promises, and the marks that tie each promise to the tests that hold it.

`@promises.NO_DUPLICATES` on a test says that the test holds this promise. `tests/README.md` lists
all promises with their tests, see `tests/readmes.py`.
"""

import pytest


def promise(heading: str, sentence: str) -> pytest.MarkDecorator:
    """Return the mark of tests that hold what `sentence` says to users, under `heading`."""
    return pytest.mark.promise(heading, sentence)


_EVENTS = "Events, browsers and nodes"
ACKNOWLEDGED_AFTER_MAJORITY = promise(
    _EVENTS, "An event is acknowledged to JetStream only after a majority has it on disk."
)
COMMITTED_SURVIVES = promise(
    _EVENTS, "What was committed survives crashes of nodes, at any moment."
)
NO_DUPLICATES = promise(
    _EVENTS, "All nodes show the same events in one order, each once, whatever is redelivered."
)
RESUMED_WITHOUT_GAP = promise(
    _EVENTS,
    "A browser that resumes sees no gap and no duplicate; when history no longer holds its "
    "place, it is told so.",
)
HOLDS_FOR_PROCESSES = promise(
    _EVENTS,
    "All of that holds for real processes under 50 events a second: `kill -9` of the leader, "
    "of a follower, of all; a paused leader; a rolling restart; a restarted NATS.",
)
SERF_AGENTS_ARE_PEERS = promise(
    _EVENTS,
    "Nodes and Serf agents with default settings are one cluster: all list the same members, see "
    "who leaves and who fails, and what either side asks reaches all, new keys too.",
)
WEB_WORKER_COSTS_A_RECONNECTION = promise(
    _EVENTS,
    "A web worker that dies or hangs costs its browsers a reconnection, and nobody an event.",
)
UPGRADED_ONE_BY_ONE = promise(
    _EVENTS,
    "Nodes of the last release are replaced by new ones, one by one, and back until all are new: "
    "nothing is lost or shown twice; then an older node is refused, and told what to install.",
)
DECOMMISSION_KEEPS_QUORUM = promise(
    _EVENTS,
    "A decommissioned node takes no vote with it, also when the leader goes, or several "
    "at once, or others die meanwhile; the last voter stays.",
)
CHECKS_FIND_MISTAKES = promise(_EVENTS, "The checks can see: every planted mistake is found.")
BURST_DISCONNECTS_NOBODY = promise(
    _EVENTS, "A browser that reads is not disconnected by a burst, however short history is."
)
SUBSCRIPTIONS_KNOWN = promise(
    _EVENTS,
    "All nodes know exactly who is subscribed: a node that dies has its subscriptions ended, one "
    "that restarts leaves none from before, and one that was taken for dead announces its own.",
)
ONE_HISTORY = promise(
    _EVENTS, "What can be resumed from is the same on every node, whatever it was started with."
)
NOTHING_OF_UNREADABLE_EVENTS = promise(
    _EVENTS, "A stream shows nothing of events that its reader may not see."
)
HOSTILE_CLIENT_HARMS_NOBODY = promise(
    _EVENTS, "A slow or hostile client harms nobody else, and costs a bounded amount."
)
PUBLISHERS_SLOWED_FIRST = promise(
    _EVENTS,
    "Publishers are slowed down before browsers fall off; one node that is slower than the "
    "others, or lies, costs them a bounded time.",
)
CONNECTIONS_BOUNDED = promise(
    _EVENTS,
    "Far more browsers and connections than there are open files keep nobody from probing, "
    "publishing or replicating, and do not fill the log.",
)
AMBIGUOUS_REQUEST_REJECTED = promise(
    _EVENTS,
    "A request that two servers could read differently is rejected, first or later on its "
    "connection.",
)
CURSOR_KEPT = promise(
    _EVENTS,
    "Whatever is published, whoever comes, goes, stalls or resumes: each client gets what its"
    " cursor promises, in valid chunks.",
)
DRAINED_ONE_BY_ONE = promise(
    _EVENTS, "A stopping node sends its browsers away one by one, while events go on."
)
BAD_PAYLOAD_BLOCKS_NOTHING = promise(_EVENTS, "A payload that does not parse blocks nothing.")
NATS_MAY_BE_DOWN = promise(
    _EVENTS, "NATS may be down, restarted or unreachable; nodes go on and retry."
)
NATS_TROUBLE_COSTS_NO_EVENT = promise(
    _EVENTS,
    "At full speed, with the leader killed every 2 s, NATS restarted and its leaders stepped down: "
    "every event of a stream is shown once, in the stream's order, and the queue is empty in the "
    "end.",
)
NATS_CLIENTS_WORK = promise(
    _EVENTS,
    "What nats-py, the `nats` command and nats.go publish as JSON, text, CloudEvents and protobuf "
    "is shown, from streams of all three retentions.",
)
BROKEN_NODE_ENDS = promise(
    _EVENTS,
    "A node that meets an error it cannot survive ends at once; nobody elects it, or stays "
    "with it, meanwhile.",
)
CONNECTION_FAILS_ALONE = promise(_EVENTS, "One connection that fails, however, ends alone.")
NATS_CLIENT_ENDS_NO_NODE = promise(
    _EVENTS,
    "Whatever goes wrong in the client of NATS, it ends no node: it is logged once, counted "
    "and tried again.",
)
PUBLISHER_GETS_ONE_ANSWER = promise(
    _EVENTS,
    "A publisher gets one answer, over HTTP and gRPC, at any node: committed, or why not, or that "
    "nobody knows.",
)
ONLY_CERTIFIED_PEERS = promise(
    _EVENTS,
    "With TLS, only who holds a certificate for a node's name can be that node; everybody "
    "else is rejected, counted by reason, and logged in one line. Nobody falls back to plain "
    "text.",
)
OPENSSL_AGREES = promise(
    _EVENTS, "What `noti certs` makes, OpenSSL reads and verifies in the same way."
)
BAD_CERTIFICATE_REJECTED = promise(
    _EVENTS,
    "A bad certificate, key or CA file is rejected at start, in one line with its name and "
    "the remedy.",
)
CERTIFICATES_REPLACED_UNDER_LOAD = promise(
    _EVENTS,
    "Certificates and CAs are replaced under load, without a restart and without a loss; bad "
    "new files change nothing.",
)
LABELS_FOLLOW_LEADER = promise(
    _EVENTS,
    "In Kubernetes, labels follow a new leader within 2 s, the follower service is never "
    "empty while a pod is ready, and whatever the API rejects, only the Role's rights are "
    "used.",
)
ROLLING_UPDATE_LOSES_NOTHING = promise(
    _EVENTS,
    "On Kubernetes a rolling update in which every pod gets a new address, and a scale-down "
    "from three pods to one, cost no browser an event.",
)
STOPS_IN_ORDER = promise(
    _EVENTS, "Stopping happens in a stated order and leaves no task, socket or file open."
)
DEMO_ENDS = promise(
    _EVENTS, "The demo ends within 10 s of Ctrl-C and leaves no process and no port."
)

_HUB = "Who publishes, and who sees what"
ANSWERED_AFTER_MAJORITY = promise(
    _HUB,
    "An event that is published over HTTP, at any node, is answered with its id only after a "
    "majority has it on disk; what failed is told apart from what nobody knows.",
)
RETRY_SHOWN_ONCE = promise(
    _HUB,
    "What is published again, with the same id, topics and data or the same idempotency key, is "
    "shown once, however often and at whichever node; other content under an id is a new event.",
)
PRIVATE_ONLY_FOR_ALLOWED = promise(
    _HUB,
    "A private event reaches only those whose token allows one of its topics, live and in replay.",
)
BAD_TOKEN_NEVER_ANONYMOUS = promise(
    _HUB, "A token that is shown and bad is an error, also where none is needed."
)
STREAM_ENDS_WITH_TOKEN = promise(
    _HUB, "A stream ends at the second at which its token expires, whatever it is doing."
)
REVOKED_EVERYWHERE = promise(
    _HUB,
    "A revoked token is refused on every node that has caught up, also after a snapshot, and its "
    "streams end.",
)
SECRETS_NOT_SHOWN = promise(
    _HUB, "No answer, error or log line shows a key or a token, or a part of one."
)
NODES_NOT_SHOWN = promise(
    _HUB,
    "Where browsers connect, nothing but the two probes of bb-dist-noti tells anything of nodes.",
)
QUIET_TOPIC_KEPT = promise(
    _HUB,
    "With `--history-per-topic`, a loud topic washes out no quiet one, and a reader is told of a "
    "gap only if one of its own topics has lost something.",
)
MERCURE_CLIENTS_WORK = promise(
    _HUB, "Clients that others wrote for Mercure work unchanged, each at another node."
)
APPLICATION_GOES_ON = promise(
    _HUB,
    "`noti.client` and `/noti.js` go on at other nodes without gap or duplicate, and renew tokens "
    "without loss; all tabs of a browser share one connection.",
)
BODIES_BOUNDED = promise(
    _HUB,
    "What publishers send is bounded before it is read, and half a request makes room for a whole "
    "one.",
)

_RAFT = "Raft"
LEADER_NOT_DISTURBED = promise(
    _RAFT,
    "A leader that its followers receive from is not disturbed, whoever was cut off, reaches "
    "only some, or was removed (pre-vote, stickiness).",
)
LEADER_WITHOUT_MAJORITY_STEPS_DOWN = promise(
    _RAFT, "A leader that no majority answers steps down, and confirms no read."
)
NEXT_LEADER_AT_ONCE = promise(
    _RAFT,
    "When the leader's process dies, the next one is elected at once, and only if the others "
    "lost it too.",
)
ONE_VOTE_A_TERM = promise(
    _RAFT,
    "A node never votes twice in a term: a vote leaves when it is on disk, a wiped node is "
    "another one, and a directory whose log was deleted is rejected.",
)
OWN_TERM_COMMITS = promise(
    _RAFT,
    "Only entries of the leader's own term commit by counting, and nobody is counted before "
    "it has them on disk; the leader's own disk may be the last.",
)
PIPELINE_BOUNDED = promise(
    _RAFT,
    "Followers get batches in a pipeline, within a window of messages and bytes that opens "
    "again when all was lost; a follower with any log needs few probes.",
)
HEARTBEATS_WAIT_FOR_NO_DISK = promise(_RAFT, "Heartbeats wait for no disk.")
LOG_COMPACTED = promise(
    _RAFT,
    "The log is compacted by entries and bytes. Who needs what is gone gets a snapshot, in "
    "pieces; never one that is older than what it has.",
)
LEADERSHIP_HANDED_OVER = promise(
    _RAFT,
    "A node that stops hands leadership over; a transfer to one that vanished is given up in time.",
)
ONE_CHANGE_AT_A_TIME = promise(
    _RAFT,
    "One change of membership at a time, agreed by the old and the new majority, and ended by"
    " whoever leads then.",
)
LEARNER_DOES_NOT_COUNT = promise(
    _RAFT, "A learner counts for nothing, and votes when it has caught up."
)
FOUNDER_KEEPS_PROMISE = promise(
    _RAFT,
    "A founder that is restarted before the cluster is founded keeps its promise, and one "
    "that has promised itself to others since does not found.",
)
LOG_BEFORE_VOTE = promise(
    _RAFT,
    "A node that comes back without its disk, or a new one, gets the log first and a vote "
    "later; a dead voter is replaced only by somebody who has the log.",
)
FORWARDED_ANSWERED_ONCE = promise(
    _RAFT,
    "What a node forwards to its leader is answered once, with what became of it, also when "
    "the leader changes meanwhile.",
)
CONSISTENT_READ = promise(
    _RAFT, "`/status?consistent=1` shows at least what was committed anywhere before the request."
)
BACKLOG_REJECTED = promise(
    _RAFT,
    "Too much that is not committed yet is rejected with the reason, and what waits already "
    "goes on.",
)
FULL_OUTAGE_SURVIVED = promise(
    _RAFT,
    "A cluster comes back with everything after all nodes were killed, also when all "
    "addresses are others.",
)

_DISK = "The log on disk"
ONE_WRITE_ONE_SYNC = promise(
    _DISK,
    "A batch is one write and one sync, into blocks that the file has already; what is done "
    "survives a power cut, content and name.",
)
SNAPSHOT_WHOLE = promise(_DISK, "A snapshot is installed whole or not at all, and the log with it.")
TORN_END_REPAIRED = promise(
    _DISK, "A torn end of the log is repaired; other damage is rejected, with file and offset."
)
ONE_PROCESS_A_DIRECTORY = promise(
    _DISK,
    "One process at a time uses a data directory, also while the writer of a killed one may "
    "still write.",
)
FULL_DISK_ENDS_NODE = promise(
    _DISK,
    "A disk that is full, or fails a write, ends the node with exit status 1 and one line "
    "that names file and reason; what was acknowledged is there when it returns.",
)
VERIFY_NAMES_DAMAGE = promise(
    _DISK, "`noti wal verify` names the first damage, and changes nothing."
)

_INPUT = "Bad input"
INVALID_BYTES_STOP_NO_NODE = promise(
    _INPUT,
    "Invalid bytes from the network never stop a node, and no decoder raises what it does not"
    " document.",
)
PEER_NONSENSE_SURVIVED = promise(
    _INPUT,
    "A real node rejects, counts and survives what no peer sends: broken HTTP/2 and gRPC, "
    "hellos of other clusters, wrong checksums, entries over the limit, terms and indexes "
    "near 2**64, snapshots that do not decode; its state stays as it was.",
)
VIOLATIONS_REJECTED = promise(
    _INPUT,
    "What decodes and yet violates the protocol is rejected by each rule on its own: records "
    "over the limit, numbers beyond any log, what no honest peer sends.",
)
FORGED_GOSSIP_HARMS_NOBODY = promise(
    _INPUT,
    "Whatever a stranger gossips, no node is gone or elsewhere for others while it answers "
    "them, and what is remembered is bounded.",
)
GOSSIP_HAS_KEYS = promise(
    _INPUT,
    "Gossip leaves no machine without a key unless it is told to; a running cluster gets keys, and "
    "others instead, and no node is lost meanwhile.",
)
TLS_IS_SWITCHED_ON_AND_OFF = promise(
    _INPUT,
    "TLS is switched on and off in a running cluster, node by node, between nodes and for "
    "browsers; nothing is lost meanwhile.",
)
UNREADABLE_NOT_LET_IN = promise(
    _INPUT, "What no reader could name or be sent does not get in, from publishers or JetStream."
)
COMMANDS_END_IN_TIME = promise(
    _INPUT,
    "Whoever answers a command in place of a node or NATS, or does not, it ends in time with "
    "one line; and at the first Ctrl-C, at any moment.",
)
SETTINGS_CHANGE_WHOLE_OR_NOT = promise(
    _INPUT,
    "A node takes settings that change while it runs, its web workers too; a file that is not "
    "valid changes nothing.",
)
TOO_LARGE_NEVER_LOGGED = promise(
    _INPUT, "Nothing larger than the log takes gets as far as the log."
)
STRANGER_REJECTED = promise(
    _INPUT, "A node of another cluster is rejected by both sides, and goes on being what it was."
)
