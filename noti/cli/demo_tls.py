"""The certificates of `noti demo --tls on`, its gossip key, and arguments that name them.

The key of the CA is not written: it is forgotten as soon as all have a certificate.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from noti.certificates.files import write_file
from noti.certificates.issuing import Authority, Issued, issue, make_authority
from noti.certificates.profiles import load_profile
from noti.swim.core.keyring import KEY_BYTES, format_key

HOSTS = ("DNS:localhost", "IP:127.0.0.1")
NATS, PUBLISHER = "nats", "publisher"


@dataclass(frozen=True, slots=True)
class DemoTls:
    """Where the files are, once `make` made them."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The CA of everybody, for `curl --cacert`."""
        return self.directory / "ca.pem"

    @property
    def gossip_keys(self) -> Path:
        """The key that gossip is encrypted with."""
        return self.directory / "gossip.keys"

    def make(self, nodes: Iterable[str]) -> None:
        """Write everything anew; raises `LocalError` when that cannot be done."""
        self.directory.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC)
        root = make_authority(load_profile("ca"), "noti demo CA", now)
        authority = Authority(root.certificate, root.key)
        node, client = load_profile("node"), load_profile("client")
        # NATS serves and calls no node; it must not pass for a node of that name.
        server = node.model_copy(update={"extended_key_usage": ("serverAuth",), "names": ()})
        write_file(self.ca, root.certificate_pem, private=False, replace=True)
        key = format_key(secrets.token_bytes(KEY_BYTES[-1])) + "\n"
        write_file(self.gossip_keys, key.encode(), private=True, replace=True)
        for name in nodes:
            self._write(name, issue(node, name, authority, now, hosts=HOSTS))
        self._write(NATS, issue(server, NATS, authority, now, hosts=HOSTS))
        self._write(PUBLISHER, issue(client, PUBLISHER, authority, now))

    def node_arguments(self, name: str) -> list[str]:
        """Return what a node needs for gossip, and for the rest, with one certificate for all."""
        certificate, key = self._pair(name)
        return [
            f"--gossip-key-file={self.gossip_keys}",
            f"--tls-cert={certificate}",
            f"--tls-key={key}",
            f"--tls-ca={self.ca}",
            f"--http-tls-cert={certificate}",
            f"--http-tls-key={key}",
            *self._nats_client_arguments(name),
        ]

    def publisher_arguments(self) -> list[str]:
        """Return what a publisher needs to be let in by NATS."""
        return self._nats_client_arguments(PUBLISHER)

    def nats_arguments(self) -> list[str]:
        """Return what makes the NATS server encrypt, and ask everybody for a certificate."""
        certificate, key = self._pair(NATS)
        return [
            "--tls",
            f"--tlscert={certificate}",
            f"--tlskey={key}",
            f"--tlscacert={self.ca}",
            "--tlsverify",
        ]

    def _nats_client_arguments(self, name: str) -> list[str]:
        certificate, key = self._pair(name)
        return [
            f"--nats-tls-ca={self.ca}",
            f"--nats-tls-cert={certificate}",
            f"--nats-tls-key={key}",
        ]

    def _pair(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def _write(self, name: str, issued: Issued) -> None:
        certificate, key = self._pair(name)
        write_file(key, issued.key_pem, private=True, replace=True)
        write_file(certificate, issued.certificate_pem, private=False, replace=True)
