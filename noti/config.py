"""Every setting of a node, declared once: name, type, default, meaning, and what must hold for it.

A `Config` is a plain, frozen value that reads nothing; `noti.cli.loading` makes one out of file,
environment and flags. The flags of `noti run` are made from the fields below, and the text under a
field is its help.
"""

import socket
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from noti.address import Address, format_address
from noti.redaction import MASK, redacted, redacted_url
from noti.setting_rules import SECRETS, problems_of
from noti.setting_values import (
    COMMAS,
    WILDCARDS,
    BindAddress,
    CookieName,
    GossipLabel,
    HubUrl,
    IpNetwork,
    JwksLocation,
    JwtAlgorithmName,
    NatsUrls,
    NodeName,
    Origin,
    OwnOrigin,
    Seed,
    is_loopback,
)
from noti.stream_settings import (
    DEFAULT_DURABLE,
    DEFAULT_STREAM,
    NatsName,
    NatsSubject,
    PlainDecoderName,
    PlainSubject,
    StreamSettings,
    stream_of_flags,
)

VARIABLE_PREFIX = "NOTI_"


class Config(BaseModel):
    """All settings of one node, immutable."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    name: NodeName = Field(default_factory=socket.gethostname)
    """Name of this node, unique in the cluster [default: the host name]."""
    data_dir: Path = Path("noti-data")
    """Directory for the log, the snapshots and the node's identity; one per node, never shared."""

    http_addr: BindAddress = ("127.0.0.1", 8402)
    """Where browsers, publishers and load balancers connect, host:port."""
    gossip_addr: BindAddress = ("127.0.0.1", 8401)
    """Where other nodes gossip, host:port, UDP and TCP."""
    rpc_addr: BindAddress = ("127.0.0.1", 8400)
    """Where other nodes and gRPC clients connect, host:port; nodes dial each other where they
    gossip, so on the same host as gossip_addr."""

    ops_addr: BindAddress = ("127.0.0.1", 8403)
    """Where operators find status, metrics, probes and a page of the cluster, host:port; without
    TLS and tokens, so for a network of theirs."""
    tls_cert: Path | None = None
    """Certificate of this node, PEM; with tls_key and tls_ca, all RPCs are mutual TLS 1.3."""
    tls_key: Path | None = None
    """Key of tls_cert, PEM."""
    tls_ca: Path | None = None
    """CAs that other nodes' certificates come from, PEM; may hold an old and a new one."""
    tls_mode: Literal["required", "permissive"] = "required"
    """What a node with tls_cert does about those without: `permissive` takes plain RPCs too, and
    makes them where the other side has no TLS, while TLS is switched on or off node by node."""
    http_tls_cert: Path | None = None
    """Certificate for browsers, PEM, its chain behind it; makes http_addr HTTPS and HTTP/2."""
    http_tls_key: Path | None = None
    """Key of http_tls_cert, PEM."""
    http_tls_mode: Literal["required", "permissive"] = "required"
    """The same for browsers: `permissive` answers HTTP beside HTTPS at http_addr, each as it is
    asked."""
    advertise_host: str | None = None
    """Host by which others reach this node; needed when an address is a wildcard, 0.0.0.0."""

    join: Annotated[tuple[Seed, ...], COMMAS] = ()
    """Gossip address of a node to join, host:port; repeat for several; retried without end."""
    bootstrap_expect: int = Field(default=1, ge=1, le=5)
    """How many new nodes form a cluster once they see each other; 3 for a cluster of three."""
    voters_max: int = Field(default=5, ge=1, le=9)
    """How many nodes vote at most, an odd number from three on; further ones receive everything and
    serve browsers."""
    voter_hold_down_s: float = Field(default=15, ge=1, le=3600)
    """Absence after which a voter is replaced by another node, if one has the log, seconds."""
    gossip_profile: Literal["local", "lan"] = "lan"
    """Timing of failure detection: `local` for nodes on one machine, `lan` for a data centre."""
    gossip_key_file: Path | None = None
    """Keys of gossip in base64, one a line, the first of which encrypts; read again when it
    changes. `noti keys new` prints one [default: none, gossip is not encrypted]."""
    gossip_key: SecretStr | None = None
    """The keys themselves instead of their file, with commas: only in the environment."""
    gossip_encryption: Literal["required", "sent", "understood"] = "required"
    """What a node with keys does, for nodes that run without any: give them keys as `understood`
    (plain is sent, both are taken), then `sent` (encrypted is sent, both are taken), then
    `required`, all nodes at each step before the next."""
    gossip_insecure: bool = False
    """Whether to gossip without a key where other machines reach gossip_addr: each of them can
    then join, and say of nodes what it likes."""
    gossip_label: GossipLabel = ""
    """Name that gossip carries; what carries another one is dropped (Serf agents send none)."""
    members_max: int = Field(default=128, ge=16, le=10_000)
    """How many members gossip knows at most, dead ones included; nodes of the cluster are never
    crowded out by others."""
    heartbeat_interval_ms: int = Field(default=100, ge=10, le=10_000)
    """How often the leader sends a heartbeat to the others, ms."""
    election_timeout_ms: int = Field(default=500, ge=50, le=60_000)
    """Silence of the leader that starts an election, up to twice as long at random, ms."""

    log_memory_bytes: int = Field(default=32 * 1024 * 1024, ge=0)
    """Log kept in memory, bytes; older entries are read back from disk for a node that lags."""

    nats_url: NatsUrls | None = None
    """NATS servers to take events from, nats://127.0.0.1:4222,… [default: none, no bridge]."""
    nats_tls_ca: Path | None = None
    """CAs of the NATS servers, PEM; makes TLS a must [default: the system's, for tls:// URLs]."""

    nats_tls_cert: Path | None = None
    """Certificate that this node shows to NATS, PEM."""

    nats_tls_key: Path | None = None
    """Key of nats_tls_cert, PEM."""

    nats_creds_file: Path | None = None
    """File of NATS credentials: a user's JWT and its seed."""

    nats_nkey_file: Path | None = None
    """File with the seed of an nkey."""

    nats_token_file: Path | None = None
    """File with a token for NATS."""

    nats_user: str | None = None
    """User at NATS; the password is in nats_password_file."""

    nats_password_file: Path | None = None
    """File with the password of nats_user."""

    nats_stream: NatsName = DEFAULT_STREAM
    """JetStream stream; made when it is missing and its subjects are known."""
    nats_subject: Annotated[tuple[NatsSubject, ...], COMMAS] = ()
    """Subjects that are read, 'news.>'; repeat for several [default: jobs.noti.> of jobs, all that
    another stream has]."""
    nats_decoder: PlainDecoderName | None = None
    """How payloads are read: `category`, `json`, `text` or `cloudevents` [default: category for
    jobs, text for another stream]."""
    nats_topic: str | None = None
    """Topic of the events, https://example.com/users/{2}, {1} being the first token of the subject,
    or {user.id}, a field of the payload [default: the subject]."""
    nats_dead_letter: PlainSubject | None = None
    """Subject for what can never be an event [default: noti.dead-letter. and the stream]."""
    nats_durable: NatsName = DEFAULT_DURABLE
    """Durable consumer that all nodes of the cluster share."""
    nats_streams: tuple[StreamSettings, ...] = ()
    """Several streams, or several decoders: tables in the file, instead of the five settings above
    nats_durable; see noti/publishing/nats/README.md."""
    nats_retention: Literal["workqueue", "limits", "interest"] = "workqueue"
    """Retention of a stream that we make: `workqueue` drops what was acked, `interest` what every
    consumer acked, `limits` keeps it."""
    nats_storage: Literal["file", "memory"] = "file"
    """Storage of a stream that we make."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Replicas of a stream that we make; more than 1 needs a NATS cluster."""
    nats_max_age_s: float = Field(default=0, ge=0)
    """Age at which a stream that we make drops messages, seconds; 0 for never."""
    nats_max_bytes: int = Field(default=0, ge=0)
    """Size at which a stream that we make drops its oldest messages, bytes; 0 for no limit."""

    history_size: int = Field(default=100_000, ge=1, le=1_000_000)
    """How many of the newest events are kept for readers that come back. Of this and the four that
    follow, what the leader has counts, on all nodes."""
    history_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024, le=4 * 1024**3)
    """Topics, data, ids and types of all events that are kept, bytes; memory is some 2 KB an event
    more."""
    history_max_age_s: float = Field(default=0, ge=0)
    """How long an event is kept at most, seconds; 0 for no limit."""
    history_per_topic: int = Field(default=0, ge=0, le=1000)
    """How many of the last events of each topic are kept, however many others came since; 0 for
    none. They take at most half of history_bytes, and are at most history_size."""
    topics_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """Topics of which history_per_topic events are kept; the least recently published is forgotten
    first."""
    level_max: int | None = Field(default=None, ge=0)
    """Level that a leader raises the cluster to at most [default: what all nodes support]. With the
    level that `noti status` shows, an upgrade can be taken back even when all nodes have it."""
    sse_backlog_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    """Memory of a node for events that are older than that and that open streams still need,
    bytes; a browser that reads too slowly to be within it is disconnected, and comes back."""
    sse_stall_s: float = Field(default=10, ge=1, le=300)
    """How long 64 KiB may wait for a browser to take them before it is disconnected, seconds."""
    sse_heartbeat_s: float = Field(default=15, ge=1, le=300)
    """Silence after which a browser gets a comment, seconds; less than any proxy's idle timeout."""
    sse_lifetime_s: float = Field(default=3600, ge=0)
    """Age at which a stream is ended, so that its browser comes back, perhaps to another node,
    seconds, give or take a tenth; 0 for never."""
    sse_drain_s: float = Field(default=0, ge=0, le=3600)
    """Time over which streams are ended when the node stops, seconds; 0 for all at once."""
    sse_clients_max: int = Field(default=50_000, ge=1)
    """How many streams a node serves; further browsers are asked to come back later."""
    sse_clients_per_address_max: int = Field(default=0, ge=0)
    """How many streams one IPv4 address or IPv6 /64 may have; 0 for any number."""
    pacing_s: float = Field(default=10, ge=0, le=600)
    """How long one node whose browsers cannot follow slows the publishers of all, seconds; then it
    sheds them. Nodes that are overloaded together slow publishers for as long as they are."""
    sse_leader_sheds: bool = False
    """Whether a node that becomes leader sends its browsers away, to nodes that have less to do."""
    http_connections_max: int = Field(default=4096, ge=1)
    """How many HTTP connections that are no streams; who is idle longest makes room."""
    http_connections_per_address_max: int = Field(default=0, ge=0)
    """How many of those one IPv4 address or IPv6 /64 may have; 0 for any number."""
    head_bytes_max: int = Field(default=65_536, ge=4096, le=1_048_576)
    """How long a request's line and headers may be, bytes; longer ones get status 431."""
    publish_body_bytes_max: int = Field(default=1_114_112, ge=4096, le=16_777_216)
    """How long the body of a request to publish may be, bytes; longer ones get status 413."""
    rpc_connections_max: int = Field(default=1024, ge=1)
    """How many gRPC connections besides other nodes'; who is idle longest makes room."""
    rpc_connections_per_address_max: int = Field(default=0, ge=0)
    """How many of those one IPv4 address or IPv6 /64 may have; 0 for any number."""
    web_workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] | None = None
    """Processes that serve browsers beside the node, so that it uses every core; `auto` for the
    cores less one, 0 for none [default: none where there are two cores or fewer, otherwise
    auto]."""
    subscriptions: bool = False
    """Whether all nodes know who is subscribed, and tell of it (Mercure's active subscriptions);
    the same at all nodes."""
    trusted_proxies: Annotated[tuple[IpNetwork, ...], COMMAS] = ()
    """Network of proxies whose X-Forwarded-For is believed, 10.0.0.0/8; repeat for several."""
    cors_origins: Annotated[tuple[Origin, ...], COMMAS] = ()
    """Origin whose pages may read this node, https://app.example.com, https://*.example.com or *;
    repeat for several."""
    public_url: HubUrl | None = None
    """URL of the hub as browsers know it, https://example.com, against which relative topics and
    patterns are resolved and for which tokens must be [default: as each request names it]."""

    publisher_jwt_key_file: Path | None = None
    """Key that publishers' tokens are checked with: a secret, a public key in PEM, or a JWK set;
    read again when it changes [default: none, nobody publishes over HTTP]."""
    publisher_jwt_key: SecretStr | None = None
    """The key itself instead of its file: only in the environment, where Mercure's image takes it,
    MERCURE_PUBLISHER_JWT_KEY; never on a command line."""
    publisher_jwt_alg: JwtAlgorithmName | None = None
    """Algorithm of publishers' tokens: HS256, RS256, ES256, EdDSA … [default: HS256 for a secret,
    what fits another key]."""
    subscriber_jwt_key_file: Path | None = None
    """The same for subscribers' tokens [default: the publishers' key]."""
    subscriber_jwt_key: SecretStr | None = None
    """The key itself instead of its file, MERCURE_SUBSCRIBER_JWT_KEY; as publisher_jwt_key."""
    subscriber_jwt_alg: JwtAlgorithmName | None = None
    """Algorithm of subscribers' tokens; as publisher_jwt_alg."""
    jwks_url: JwksLocation | None = None
    """Where an issuer's JWK set is, for the tokens of publishers and subscribers: an https:// URL,
    fetched again and again, or a path."""
    jwt_issuer: str | None = None
    """Issuer of tokens (iss); without one, those of Mercure 1.0 are not taken. Tokens of 0.x are
    held to it if they name one, and always with mercure_protocol 0."""
    jwt_audience: str | None = None
    """This hub's name in tokens (aud), the same at all nodes [default: each request's address of
    the hub for Mercure 1.0, not looked at for 0.x]."""
    publish_origins: Annotated[tuple[OwnOrigin, ...], COMMAS] = ()
    """Origin whose pages may publish with a cookie, https://app.example.com; repeat for several."""
    revoked_file: Path | None = None
    """File with tokens that are refused before they expire, `sub NAME` or `jti ID` in each line;
    read again when it changes. For the whole cluster without a file: noti disconnect."""
    anonymous: bool | None = None
    """Whether public events may be read without a token [default: only at a loopback http_addr]."""
    mercure_protocol: Literal["both", "0", "1"] = "both"
    """Versions of Mercure's protocol that are spoken: `0` for 0.x, `1` for 1.0."""
    cookie_name: CookieName = "mercureAuthorization"
    """Cookie with a token of Mercure 0.x; that of 1.0 is __Secure-mercure_access_token."""

    tracing: bool = False
    """Whether to send spans of events to OpenTelemetry's collector: to http://localhost:4318, or as
    OTEL_EXPORTER_OTLP_ENDPOINT and its other variables say; needs noti[otel]."""
    log_events: Annotated[float, Field(gt=0, le=1)] | Literal["off"] = "off"
    """Share of the events of which each node logs a line, 0.01; 1 for all: the same events at all
    nodes."""
    shutdown_deadline_s: float = Field(default=9, ge=1, le=300)
    """How long an orderly stop may take before the process ends anyway, seconds."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log line that is written."""
    log_format: Literal["auto", "human", "json"] = "auto"
    """Form of log lines; `auto` is `human` in a terminal and `json` elsewhere."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if problems := list(problems_of(self)):
            context = {"problem": problems[0][1], "problems": problems, "config": self}
            raise PydanticCustomError("relation", "{problem}", context)
        return self

    @property
    def log_events_share(self) -> float:
        """`log_events` as a number, 0 for off."""
        return 0.0 if self.log_events == "off" else self.log_events

    @property
    def streams(self) -> tuple[StreamSettings, ...]:
        """What is read from NATS: the tables, or the one stream that the flags describe."""
        if self.nats_url is None or self.nats_streams:
            return self.nats_streams
        flags = stream_of_flags(
            self.nats_stream,
            self.nats_subject,
            self.nats_decoder,
            self.nats_topic,
            self.nats_dead_letter,
        )
        return (flags,)

    @property
    def allows_anonymous(self) -> bool:
        """Whether public events may be read without a token."""
        return is_loopback(self.http_addr[0]) if self.anonymous is None else self.anonymous

    def advertised(self, bound: Address) -> Address:
        """Return the address by which others reach what is bound to `bound` (its real port)."""
        if self.advertise_host is not None:
            return self.advertise_host, bound[1]
        return self.gossip_addr[0] if bound[0] in WILDCARDS else bound[0], bound[1]

    @property
    def ops_advertised(self) -> Address | None:
        """Where operators of other machines reach this node; None if they cannot."""
        host, port = self.ops_addr
        if port == 0:
            return None
        if host in WILDCARDS:
            return self.advertised(self.ops_addr)
        is_here_alone = is_loopback(host) and not is_loopback(self.gossip_addr[0])
        return None if is_here_alone else self.ops_addr

    def masked(self) -> dict[str, object]:
        """Return all settings as plain values for the start-up log, credentials masked."""
        plain = {name: shown(name, getattr(self, name)) for name in type(self).model_fields}
        return {**plain, "nats_streams": [shown("nats_streams", one) for one in self.streams]}


def flag_of(setting: str) -> str:
    """Return the command-line flag of a setting that has one; a yes or no has a second for no."""
    flag = "--" + setting.replace("_", "-")
    is_choice = Config.model_fields[setting].annotation == bool | None
    return f"{flag}/--no-{flag[2:]}" if is_choice else flag


def is_secret(setting: str) -> bool:
    """Whether a setting is a secret, which has no flag: command lines are seen by everybody."""
    return Config.model_fields[setting].annotation == SecretStr | None


def has_flag(setting: str) -> bool:
    """Whether a setting can stand on a command line; tables are for the file alone."""
    return not is_secret(setting) and setting != "nats_streams"


def aliases_of(setting: str) -> tuple[str, ...]:
    """Return other environment variables of a setting: those of Mercure's image."""
    names = {"publisher_jwt_key", "publisher_jwt_alg", "subscriber_jwt_key", "subscriber_jwt_alg"}
    return (f"MERCURE_{setting.upper()}",) if setting in names else ()


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting."""
    return VARIABLE_PREFIX + setting.upper()


_URLS: Final = frozenset({"nats_url", "jwks_url", "public_url"})


def shown(setting: str, value: object) -> object:
    """Return the value of a setting as a person writes it, without credentials."""
    if isinstance(value, SecretStr) or (value is not None and setting in dict(SECRETS)):
        return MASK
    if isinstance(value, str):
        return redacted_url(value) if setting in _URLS else redacted(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, StreamSettings):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
            return format_address(value)
        return [shown(setting, item) for item in value]
    return value
