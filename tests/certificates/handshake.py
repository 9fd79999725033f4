"""Two TLS sides in memory, shaking hands until both are done or one rejects."""

import ssl
from contextlib import suppress
from dataclasses import dataclass


@dataclass
class Outcome:
    """How a handshake ended: on each side an error, or none."""

    server: ssl.SSLError | None
    client: ssl.SSLError | None
    server_object: ssl.SSLObject
    client_object: ssl.SSLObject

    @property
    def succeeded(self) -> bool:
        return self.server is None and self.client is None


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None) -> Outcome:
    """Let a client of one context call a server of another; `name` is the host name it expects."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "client": client.wrap_bio(to_client, to_server, server_hostname=name),
        "server": server.wrap_bio(to_server, to_client, server_side=True),
    }
    errors: dict[str, ssl.SSLError] = {}
    for _ in range(4):  # TLS 1.3 needs two turns, TLS 1.2 three
        for side, connection in sides.items():
            if side not in errors:
                try:
                    with suppress(ssl.SSLWantReadError):
                        connection.do_handshake()
                        # With TLS 1.3 a client learns only from the next read that it was rejected.
                        connection.read(1)
                except ssl.SSLError as error:
                    errors[side] = error
    return Outcome(errors.get("server"), errors.get("client"), sides["server"], sides["client"])
