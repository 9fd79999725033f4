"""What a node knows of one stream and of the way to it."""

import ssl
from dataclasses import dataclass, field
from typing import Literal

from noti.certificates.renewal import Current
from noti.publishing.nats.login import NatsLogin


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where events come from. The stream's settings count only when it has to be created."""

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    """Servers of one NATS cluster, tried in random order; may hold user and password."""
    stream: str = "jobs"
    subjects: tuple[str, ...] = ("jobs.noti.>",)
    """Subjects to read; the new stream gets exactly these."""
    durable: str = "noti"
    """Name of the consumer. One cluster of noti, one name."""
    retention: Literal["workqueue", "limits", "interest"] = "workqueue"
    """`workqueue` deletes a message once it is acknowledged, `interest` once all consumers have;
    `limits` keeps it for other readers."""
    max_age_s: float = 0.0
    """Messages older than this are dropped unread; 0 means never."""
    max_bytes: int = -1
    """Oldest messages are dropped unread above this size; -1 means no limit."""
    storage: Literal["file", "memory"] = "file"
    replicas: int = 1
    """Copies in the NATS cluster: 1, 3 or 5."""
    max_ack_pending: int = 4096
    """Messages the server hands out before the first is acknowledged; at least two fetches."""
    dead_letter: str = "noti.dead-letter.jobs"
    """Subject for copies of what can never be an event."""
    login: NatsLogin = field(default_factory=NatsLogin)
    tls: Current[ssl.SSLContext] | None = None
    """Makes TLS a must; without, it is one for `tls://` URLs, with the system's CAs."""
