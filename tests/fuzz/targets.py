"""Every decoder of bytes from outside, each with whole examples and what it may raise.

Enters: bytes. Leaves: nothing, or an `AssertionError`, or whatever undocumented exception the
decoder let out. Never: sockets, files.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from unittest.mock import Mock

import msgpack

from noti.address import parse_address
from noti.errors import (
    ClusterMismatch,
    CommandUnknown,
    ConfigInvalid,
    KubernetesFailed,
    LevelUnsupported,
    MessageInvalid,
    NotiError,
    StorageCorrupt,
)
from noti.history.commands import (
    AdvanceFloor,
    Command,
    Expire,
    Publish,
    PublishBatch,
    PublishBatchV1,
    PublishV1,
    SetHistorySize,
    SetLimits,
    encode,
)
from noti.history.levels import SUPPORTED, RaiseLevel
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.history.revocations import Revoke
from noti.history.selectors import (
    SelectorKind,
    exact_matcher,
    pattern_matcher,
    topic_selector,
)
from noti.history.store import Store, StoreDecoder
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import EndNode, EndSubscriber, SubscriptionBatch
from noti.kubernetes.decoding import decode_change, decode_listing, decode_object, explanation
from noti.publishing.nats.dead_letter import stored_letter
from noti.publishing.nats.frames import FrameSplitter, place_of, status_of
from noti.raft.core.config import RaftConfig
from noti.raft.core.events import MessageReceived, MessageRejected
from noti.raft.core.machine import Raft
from noti.raft.core.membership import decode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    DemotionRequest,
    Forward,
    ForwardAnswer,
    ForwardOutcome,
    HardState,
    LeaderMessage,
    PeerMessage,
    SnapshotChunk,
    SnapshotReceived,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import (
    decode_entry,
)
from noti.raft.ports import Hello
from noti.raft.storage.segments import read_segment
from noti.rpc import codec
from noti.rpc.frame_connections import PREFACE, FrameConnection, FramesLost
from noti.rpc.inbox import Inbox
from noti.rpc.publish_service import decode_drafts
from noti.swim.key_file import keys_of, saved_keys_of
from noti.web_workers import messages as web_workers
from noti.web_workers.messages import Decoder
from tests.fuzz import payloads
from tests.fuzz.gossip_inputs import GOSSIP_DECODERS, KEY_LINES, SAVED_KEYS
from tests.fuzz.http_inputs import (
    FORMS,
    HEADS,
    PUBLISHERS,
    SUBSCRIPTIONS,
    WEBSOCKETS,
    read_form,
    read_head,
    read_publisher,
    read_subscription,
    read_websocket,
)
from tests.fuzz.logs import (
    BACKUP,
    CONFIGURATION,
    ENTRIES,
    LOG_RECORDS,
    RECORD_BODIES,
    RECORDS,
    SNAPSHOT,
    SNAPSHOT_FILE,
    decode_and_encode_snapshot,
    log_of,
    read_backup,
    recover_sealed_records,
    recover_segment,
    recover_snapshot,
    scan,
    sealed_record,
    sealed_snapshot,
)
from tests.fuzz.serf_inputs import SERF_DECODERS
from tests.fuzz.token_inputs import (
    CLAIMS,
    KEYS,
    REVOKED,
    TOKENS,
    read_claims,
    read_headers,
    read_key_file,
    read_revoked,
    read_token,
)
from tests.fuzz.token_inputs import HEADERS as TOKEN_HEADERS

EVENTS = (Event(7, "id-7", ("a", "b"), '{"user_id":1}', 5), Event(8, "id-8", ("c",), "ö", 6))

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

SUBSCRIBER = Subscriber(
    "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d",
    1,
    (
        ActiveSubscription(SelectorKind.EXACT, "news", '{"a":1}'),
        ActiveSubscription(SelectorKind.URL_PATTERN, "/:id"),
    ),
)
SUBSCRIBED = SubscriptionBatch("n1", "life", 1, 5, (SUBSCRIBER,), (SUBSCRIBER.id,))


@dataclass(frozen=True)
class Target:
    """One decoder."""

    name: str
    examples: Sequence[bytes]
    decode: Callable[[bytes], object]
    """Raises nothing but `allowed`; checks by itself what else it promises."""
    allowed: tuple[type[NotiError | ValueError], ...] = (MessageInvalid,)

    def try_bytes(self, data: bytes) -> None:
        """Feed it."""
        try:
            self.decode(data)
        except self.allowed as error:
            text = str(error)
            assert len(text.splitlines()) == 1, "an error is one line for a person"


# --- between nodes --------------------------------------------------------------------------------

STATE = Store().snapshot()
MESSAGES: list[PeerMessage] = [
    VoteRequest("n2", 5, 10, 2, pre=False, transfer=False),
    VoteResponse("n2", 5, granted=True, pre=True),
    AppendRequest("n2", 5, 10, 2, 9, ENTRIES, 7),
    AppendRequest("n2", 5, 13, 4, 12, ()),
    AppendAccepted("n2", 5, 13, 3),
    AppendRejected("n2", 5, 10, 7, 2),
    SnapshotChunk("n2", 5, 14, 4, CONFIGURATION, 0, STATE, len(STATE)),
    SnapshotChunk("n2", 5, 14, 4, CONFIGURATION, 0, b"data", 8),
    SnapshotReceived("n2", 5, 14, 4),
    TimeoutNow("n2", 5),
    Forward("n2", 0, ((1, b"command"), (2, b"")), (3, 4)),
    DemotionRequest("n2", 0),
    ForwardAnswer("n2", 0, ((1, ForwardOutcome.DONE, 5), (2, ForwardOutcome.OVERLOADED, 0))),
]
FRAMES = [
    *codec.encode_messages(MESSAGES),
    *(f for m in MESSAGES for f in codec.encode_messages([m])),
]


def a_core() -> Raft:
    return Raft(
        RaftConfig("n1"),
        HardState(4, "n3"),
        snapshot=SNAPSHOT,
        entries=ENTRIES,
        rng=random.Random(0),
        now=0.0,
        state_decoder=StoreDecoder,
    )


def tell_a_core(data: bytes) -> None:
    """Whatever decodes is told to a core: it is refused without a trace, or taken in."""
    core = a_core()
    for message in codec.decode_messages(data):
        if isinstance(message, LeaderMessage):
            continue
        before = core.status()
        effects = core.handle(MessageReceived(message), 0.1)
        if any(isinstance(effect, MessageRejected) for effect in effects):
            assert core.status() == before, "refused, and changed something"


def read_answer(data: bytes) -> None:
    with suppress(ClusterMismatch):
        codec.decode_answer(data)


def read_frames(data: bytes) -> None:
    inbox = Inbox(lambda _: None)
    inbox.bytes_max = codec.FRAME_BYTES_MAX
    inbox.add(data, len(data))
    inbox.eof()
    read_to_end(inbox)


def read_connection(data: bytes) -> None:
    """A stranger says this, in two pieces, and leaves."""
    transport = Mock(asyncio.Transport)
    transport.get_extra_info.return_value = None
    connection = FrameConnection()
    connection.connection_made(transport)
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if piece and not transport.abort.called:
            connection.data_received(piece)
    connection.connection_lost(None)
    with suppress(FramesLost):
        read_to_end(connection.inbox)


def read_to_end(inbox: Inbox) -> None:
    async def read() -> None:
        while await inbox.read() is not None:
            pass

    coroutine = read()
    try:
        coroutine.send(None)  # nothing in it waits, so it needs no loop
    except StopIteration:
        return
    raise AssertionError("it waits for bytes that will not come")


# --- events ---------------------------------------------------------------------------------------


def a_store() -> Store:
    store = Store()
    store.apply(encode(Revoke("7", "", 2000, 1000)))
    store.apply(encode(SetLimits(HistoryLimits(3, 1000, 9, 1, 3))))
    store.apply(encode(PublishBatch("s", EVENTS)))
    keyed = [event._replace(source_seq=0, id=f"k{n}") for n, event in enumerate(EVENTS * 3)]
    store.apply(encode(Publish(tuple([one._replace(idempotency_key=one.id) for one in keyed]), 3)))
    store.apply(encode(SUBSCRIBED))
    return store


OLD_SNAPSHOT = msgpack.packb([1, 10, 7, [["s", 4]], [["a", ["t", "u"], "data of a", 5]]])
LEVEL_1_SNAPSHOT = msgpack.packb([3, 1, [3, 9, 0, 0, 2], 5, 5, 5, 0, 0, []]) + msgpack.packb([0])


def apply_command(data: bytes) -> None:
    store = a_store()
    before = store.snapshot()
    try:
        store.apply(data)
    except NotiError:
        assert store.snapshot() == before, "rejected, and changed something"
        raise
    restore_store(store.snapshot())


def restore_with(data: bytes) -> None:
    """Put a piece in the place of the one that begins like it, or behind all of them."""
    pieces = [*a_store().snapshot_pieces()]
    number = next((n for n, one in enumerate(pieces) if one[:2] == data[:2]), len(pieces))
    restore_store(b"".join([*pieces[:number], data, *pieces[number + 1 :]]))


def restore_store(data: bytes) -> None:
    store = Store.decode(data)
    assert Store.decode(store.snapshot()).snapshot() == store.snapshot()


COMMANDS: list[Command] = [
    PublishBatch("s", EVENTS, 7),
    Publish(EVENTS, 7),
    SetLimits(HistoryLimits(5, 6, 7, 8, 9)),
    Expire(6),
    AdvanceFloor("s", 6),
    PublishBatchV1("s", EVENTS),
    PublishV1(EVENTS),
    SetHistorySize(5),
    RaiseLevel(SUPPORTED),
]

NATS_FRAMES = [
    b"MSG a 7 $JS.ACK.jobs.noti.1.20.10.1700000000123456789.5 2\r\nhi\r\nPING\r\n",
    b"HMSG a 7 $JS.ACK.jobs.noti.1.20.10.1700000000123456789.5 19 21\r\n"
    b"NATS/1.0 404 No\r\n\r\nhi\r\n",
]


def take_nats_bytes(data: bytes) -> None:
    splitter = FrameSplitter()
    splitter.sid = b"7"
    for at in range(0, len(data), 7):
        _, frames = splitter.feed(data[at : at + 7])
        for frame in frames:
            status_of(frame.headers)
            place_of(frame.reply)


def take_dead_letter(data: bytes) -> None:
    headers, _, payload = data.partition(b"\r\n\r\n")
    letter = stored_letter(1, headers, payload)
    assert letter.size_bytes >= 0
    for name, value in letter.headers_again():
        assert "\r\n" not in name + value


DEAD_LETTER = (
    b"NATS/1.0\r\nNoti-Topic: a\r\nNoti-Topic: b\r\nNoti-Dead-Letter-Reason: no\r\n"
    b"Noti-Dead-Letter-Stream: jobs\r\nNoti-Dead-Letter-Sequence: 7\r\n"
    b"Noti-Dead-Letter-Subject: jobs.noti.x\r\nNoti-Dead-Letter-Time: 2026-01-01T00:00:00Z\r\n"
    b"Noti-Dead-Letter-Id: n-7\r\nNats-Msg-Id: jobs@x-7\r\n\r\n{}"
)


PUBLISH = b"\x0a\x19\x0a\x01a\x12\x04data\x1a\x04id-1\x22\x01t\x28\x07\x30\x01\x3a\x01k" * 2

POD = b'{"metadata": {"name": "noti-0", "uid": "u", "resourceVersion": "5"}}'
PODS = [b'{"metadata": {"resourceVersion": "7"}, "items": [' + POD + b"]}"]
CHANGES = [
    b'{"type": "ADDED", "object": ' + POD + b"}",
    b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}',
]
STATUS = b'{"kind": "Status", "code": 410, "message": "too old"}'

SELECTORS = [
    b"/users/{id}/books{/book,page*}{?x,y:3}{#f}",
    b"https://example.com/:a/(\\d+)/{b-:c}?*?q=:r#*",
    "/é/{+x}.{y}(?<n>a|b{2,3})[^c]+".encode(),
]


def make_selectors(data: bytes) -> None:
    """Whatever a selector is made of, it can be matched, also with itself as the topic."""
    text = data.decode("utf-8", "surrogateescape")
    for make in (topic_selector, exact_matcher, lambda some: pattern_matcher(some, "https://h/x")):
        try:
            selector = make(text)
        except MessageInvalid:
            continue
        assert selector.matches("/users/7/books") in (True, False)
        if selector.kind is not SelectorKind.URL_PATTERN:
            assert selector.matches(text)


WORKER_MESSAGES = [
    web_workers.encode(one)
    for one in (
        web_workers.Applied([b"command"], [7]),
        web_workers.Find(9, "id", [1, 2]),
        web_workers.Found(9, [[1, 20, True]], [[5, "why", 2]]),
        web_workers.Answered(1, 7, "", ""),
        web_workers.Page(3, 200, [("content-type", "text/plain")], b"body"),
        web_workers.Heartbeat(8, 0.5, 100),
    )
]

TARGETS = [
    Target("request head", HEADS, read_head),
    Target("client of a WebSocket", WEBSOCKETS, read_websocket),
    Target("form", FORMS, read_form),
    Target("subscription", SUBSCRIPTIONS, read_subscription),
    Target("publisher's connection", PUBLISHERS, read_publisher),
    Target("topic selectors", SELECTORS, make_selectors),
    Target("token's claims", CLAIMS, read_claims),
    Target("token", TOKENS, read_token),
    Target("keys of tokens", KEYS, read_key_file, (ConfigInvalid,)),
    Target("cookies and origins", TOKEN_HEADERS, read_headers),
    Target("revoked tokens", REVOKED, read_revoked, (ConfigInvalid,)),
    Target("records", [RECORDS, *LOG_RECORDS], scan),
    Target("record with a right checksum", RECORD_BODIES, sealed_record),
    Target("entry", [entry.record for entry in ENTRIES], decode_entry),
    Target("snapshot", [SNAPSHOT_FILE], decode_and_encode_snapshot),
    Target("snapshot with a right checksum", [SNAPSHOT_FILE], sealed_snapshot),
    Target("segment", [log_of(LOG_RECORDS)], lambda data: read_segment(1, data)),
    Target("log", [log_of(LOG_RECORDS)], recover_segment, (StorageCorrupt,)),
    Target(
        "log with right checksums",
        [b"".join(LOG_RECORDS)],
        recover_sealed_records,
        (StorageCorrupt,),
    ),
    Target("snapshot file", [SNAPSHOT_FILE], recover_snapshot, (StorageCorrupt,)),
    Target("node and web worker", WORKER_MESSAGES, lambda data: Decoder().feed(data)),
    Target("configuration", [CONFIGURATION], decode_configuration),
    Target(
        "hello",
        [
            codec.encode_hello(Hello("c", "n1", "node1")),
            codec.encode_hello(Hello("c", "n1", "node1", level=1, supports=300)),
        ],
        codec.decode_hello,
        (MessageInvalid, ClusterMismatch),
    ),
    Target(
        "answer to a hello",
        [
            codec.encode_hello(Hello("c", "n1", "node1", level=1, supports=300)),
            codec.encode_rejection("node 'node1' belongs to another cluster"),
        ],
        read_answer,
    ),
    Target(
        "connection between nodes",
        [PREFACE + b"\0\0\0\0\x05hello", PREFACE[:4]],
        read_connection,
    ),
    Target("messages", FRAMES, codec.decode_messages),
    Target("messages told to a core", FRAMES, tell_a_core),
    Target("frames", [b"\0\0\0\0\x05hello" * 2], read_frames),
    *(Target(f"gossip {name}", *each) for name, each in GOSSIP_DECODERS.items()),
    *(Target(f"serf {name}", *each) for name, each in SERF_DECODERS.items()),
    Target("gossip keys", [KEY_LINES], lambda data: keys_of(data, "file"), (ConfigInvalid,)),
    Target("gossip keys saved", [SAVED_KEYS], saved_keys_of, (StorageCorrupt,)),
    Target(
        "address",
        [b"10.0.0.1:8400", b"[::1]:1"],
        lambda data: parse_address(data.decode("latin-1")),
        (ValueError,),
    ),
    Target(
        "command",
        [
            encode(PublishBatch("s", EVENTS)),
            encode(SetLimits(HistoryLimits(5))),
            encode(Publish(EVENTS)),
            encode(Publish((EVENTS[0]._replace(trace=TRACE), EVENTS[1]))),
            encode(PublishBatch("s", (EVENTS[0], EVENTS[1]._replace(trace=TRACE)))),
            encode(SUBSCRIBED),
            encode(Revoke("", "j", 2000, 1000)),
            encode(RaiseLevel(SUPPORTED)),
            encode(EndNode("n1", "life", 7)),
            encode(EndSubscriber(SUBSCRIBER.id, 7)),
        ],
        apply_command,
        (MessageInvalid, CommandUnknown, LevelUnsupported),
    ),
    Target(
        "store's snapshot",
        [a_store().snapshot(), LEVEL_1_SNAPSHOT, OLD_SNAPSHOT],
        restore_store,
        (MessageInvalid, LevelUnsupported),
    ),
    Target(
        "store's snapshot in pieces",
        [*a_store().snapshot_pieces()],
        restore_with,
        (MessageInvalid, LevelUnsupported),
    ),
    Target("backup", [BACKUP], read_backup),
    Target("publish request", [PUBLISH], decode_drafts),
    Target("category message", payloads.CATEGORIES, payloads.take_category),
    Target("text of JetStream", ["né\r\n".encode()], payloads.take_text),
    Target("JSON of JetStream", payloads.JSON, payloads.take_json),
    Target("cloud event", payloads.CLOUD_EVENTS, payloads.take_cloud_event),
    Target("protobuf by descriptors", payloads.MESSAGES, payloads.take_message),
    Target("headers of JetStream", payloads.HEADERS, payloads.take_headers),
    Target(
        "topic template", payloads.TEMPLATES, payloads.make_template, (MessageInvalid, ValueError)
    ),
    Target("dead letter", [DEAD_LETTER], take_dead_letter),
    Target("NATS frames", NATS_FRAMES, take_nats_bytes),
    Target("kubernetes object", [POD], lambda data: decode_object(data, "x"), (KubernetesFailed,)),
    Target("kubernetes list", PODS, lambda data: decode_listing(data, "x"), (KubernetesFailed,)),
    Target("kubernetes watch", CHANGES, lambda data: decode_change(data, "x"), (KubernetesFailed,)),
    Target("kubernetes error", [STATUS], lambda data: explanation(data, "x")),
]
