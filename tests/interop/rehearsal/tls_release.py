"""The release's values with TLS, between nodes and for browsers, and the secrets that they name."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

from tests.certificates.authority import SERVER, Issued, Wanted, authority, client, issue
from tests.interop.rehearsal.chart import Manifest

ON: Final[dict[str, Any]] = {
    "tls": {"enabled": True, "existingSecret": "nodes"},
    "operator": {"tls": {"existingSecret": "asks"}},
    "httpTls": {"enabled": True, "existingSecret": "https"},
}
PERMISSIVE: Final[dict[str, Any]] = ON | {
    name: ON[name] | {"mode": "permissive"} for name in ("tls", "httpTls")
}

UPGRADES: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("permissive", ON),
    ("required", ON),
    ("permissive", PERMISSIVE),
    ("off", {}),
)
"""What the pods become, one upgrade after the other, and the values of each: on, and off again."""


def secrets(pods: Sequence[str]) -> list[Manifest]:
    """Return the secrets, as `kubectl create secret` makes them of what `noti certs` issues."""
    ca = authority()
    held = {
        "nodes": issue(Wanted(dns=tuple(pods)), ca),
        "asks": client("noti-operator", ca),
        "https": issue(Wanted(dns=("noti-follower",), usages=(SERVER,)), ca),
    }
    return [_secret(name, ca, issued) for name, issued in held.items()]


def _secret(name: str, ca: Issued, issued: Issued) -> Manifest:
    files = {"ca.crt": ca.pem, "tls.crt": issued.pem, "tls.key": issued.key_pem}
    data = {file: b64encode(content).decode() for file, content in files.items()}
    return {"kind": "Secret", "metadata": {"name": name}, "data": data}
