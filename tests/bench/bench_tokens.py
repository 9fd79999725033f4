"""What a token costs a node when a browser connects.

One node, one connection after the other: a stream is opened, its first bytes are read, and it is
closed. Counted is the node's own processor time, so a machine that does other things beside changes
little. The baseline is the same without a token. A token that the node has seen before is one of a
browser that comes back.

    just bench tokens connects=2000
"""

import os
import secrets
import socket
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trio

from noti.address import Address
from noti.authorization.signing import TokenDraft, signed_token
from tests.authorization.tokens import SECRET, jwk, private_key, private_pem, write_jwks
from tests.bench.report import Arguments, Report
from tests.interop.processes import running_node

FIRST_BYTES = b"\r\n\r\n"
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
ROUNDS = 5
"""The median of them counts: other programs of the machine disturb one or two."""
ISSUED_AT = 1_700_000_000.0
"""Any time in the past: these tokens do not expire."""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = Arguments(__doc__)
    arguments.add_argument(
        "--connects", type=int, default=2000, help="of each kind, and as many tokens"
    )
    options = arguments.options(argv)
    report = Report("Tokens of browsers that connect", options.json)
    with tempfile.TemporaryDirectory() as directory:
        trio.run(measure, Path(directory), options.connects, report)
    report.finish()


async def measure(directory: Path, connects: int, report: Report) -> None:
    (directory / "secret").write_text(SECRET)
    write_jwks(directory / "jwks", jwk("ES256", "one"))
    keys = [f"--publisher-jwt-key-file={directory / 'secret'}", f"--jwks-url={directory / 'jwks'}"]
    secret, private = SECRET.encode(), private_pem(private_key("ES256"))
    kinds = {"HS256": secret, "ES256": private}
    rates: dict[str, list[float]] = {}
    async with running_node(directory, *keys) as node:
        connect(node.http, [""] * connects)  # warm
        for _ in range(ROUNDS):
            rates.setdefault("none", []).append(rate(node.pid, node.http, [""] * connects))
            for name, key in kinds.items():
                tokens = [token_of(key) for _ in range(connects)]
                for known in ("new", "seen before"):
                    found = rate(node.pid, node.http, tokens)
                    rates.setdefault(f"{name}, {known}", []).append(found)
    anonymous = statistics.median(rates.pop("none"))
    for name, found_rates in rates.items():
        value = statistics.median(found_rates)
        report.add(name, value, "connects/s of CPU", "without a token", anonymous)


def token_of(key: bytes) -> str:
    """Return a token of a new user, to whom a topic of his own belongs."""
    user = secrets.token_hex(8)
    draft = TokenDraft(subscribe=[f"/users/{user}"], subject=user, issued_at=ISSUED_AT)
    return signed_token(draft, key, "key", None)


def rate(pid: int, address: Address, tokens: Sequence[str]) -> float:
    """Return how many connections a node takes in a second of its processor time."""
    before = cpu_s(pid)
    connect(address, tokens)
    return len(tokens) / (cpu_s(pid) - before)


def connect(address: Address, tokens: Sequence[str]) -> None:
    for number, token in enumerate(tokens):
        bearer = f"Authorization: Bearer {token}\r\n" if token else ""
        target = f"/.well-known/mercure?topic=/users/{number}"
        with socket.create_connection(address) as sock:
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n".encode())
            received = b""
            while FIRST_BYTES not in received:
                piece = sock.recv(65_536)
                assert piece, received
                received += piece
        assert received.startswith(b"HTTP/1.1 200"), received


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


if __name__ == "__main__":
    main()
