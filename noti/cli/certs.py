"""`noti certs`: makes the certificates of a cluster, and checks any.

No file is overwritten, unless to renew it; no private key is shown.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from noti.certificates import pem
from noti.certificates.credentials import is_authority
from noti.certificates.describing import describe, printable
from noti.certificates.expiry import moment
from noti.certificates.files import read_file, write_file
from noti.certificates.inspection import inspect
from noti.certificates.issuing import Authority, Issued, issue, make_authority
from noti.certificates.names import NAME, alternative_names, claims_of, name_text
from noti.certificates.profiles import DAYS_MAX, load_profile
from noti.cli.json_output import json_option
from noti.errors import ConfigInvalid, LocalError

COLORS = {"ok": "green", "notice": "yellow", "rejected": "red"}
CA = "ca"
"""The files of the CA are `ca.pem` and `ca.key`."""
HOST = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
"""A host name, or all names below one (RFC 9525, 6.3)."""

_directory = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("certs"),
    show_default=True,
    help="Where the CA is, and where files go.",
)
_days = click.option(
    "--days", type=click.IntRange(1, DAYS_MAX), help="Validity. [default: the profile's]"
)
_profiles = click.option(
    "--profiles",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory with ca.toml, node.toml, client.toml to use instead of the built-in ones.",
)


@click.group()
def certs() -> None:
    """Make and read the certificates that nodes use for TLS."""


@certs.command("init")
@_directory
@click.option("--name", default="noti CA", show_default=True, help="Name of the CA, for people.")
@_days
@_profiles
def init_command(directory: Path, name: str, days: int | None, profiles: Path | None) -> None:
    """Make a certificate authority: ca.pem for every node, ca.key for no node."""
    profile = load_profile("ca", profiles)
    _make_directory(directory)
    _check_none_exists([directory / "ca.pem", directory / "ca.key"])
    made = make_authority(profile, name, _now(), days=days)
    _write(directory, CA, made, replace=False)
    _print(f"{directory}/ca.pem  CA {name!r}, until {_until(made)}")
    _print(f"{directory}/ca.key  its key: keep it secret, and away from the nodes")
    _print(f"next: noti certs issue --dir {directory} NAME…")


@certs.command("issue")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_directory
@click.option("--client", is_flag=True, help="For clients, which may read status, not for nodes.")
@click.option("--dns", multiple=True, metavar="HOST", help="A further host name; repeatable.")
@click.option("--ip", multiple=True, metavar="ADDRESS", help="An IP address; repeatable.")
@click.option("--cluster", metavar="ID", help="Bind nodes to this cluster; noti status shows it.")
@_days
@click.option("--renew", is_flag=True, help="Replace certificate and key; keep what they name.")
@_profiles
def issue_command(
    names: tuple[str, ...],
    directory: Path,
    client: bool,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    cluster: str | None,
    days: int | None,
    renew: bool,
    profiles: Path | None,
) -> None:
    """Issue NAME.pem and NAME.key for each NAME: the --name of a node, or any name of a client.

    Further host names and addresses are for browsers and curl; between nodes only NAME counts.
    """
    profile = load_profile("client" if client else "node", profiles)
    if client and cluster:
        raise click.UsageError("--cluster is for nodes; a client is one everywhere")
    for name in (*names, *([cluster] if cluster else ())):
        _check_name(name)
    hosts = _hosts(dns, ip)
    authority = _load_authority(directory)
    files = [directory / f"{name}{suffix}" for name in names for suffix in (".pem", ".key")]
    if not renew:
        _check_none_exists(files)
    for name in names:
        kept = _names_to_keep(directory / f"{name}.pem", name, client) if renew else []
        try:
            made = issue(
                profile,
                name,
                authority,
                _now(),
                days=days,
                cluster=cluster,
                hosts=[*hosts, *kept],
            )
        except ValueError as error:
            raise ConfigInvalid(f"no certificate can be made for {name!r}: {error}") from None
        _write(directory, name, made, replace=renew)
        cut = made.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
        ends = " with its CA" if cut else ""
        _print(f"{directory}/{name}.pem  {claims_of(made.certificate)}, until {_until(made)}{ends}")
        _print(f"{directory}/{name}.key  its key")


@certs.command("show")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@json_option
def show_command(files: tuple[Path, ...], as_json: bool) -> None:
    """Say in plain words what a PEM file holds: certificates, CAs, requests, the type of a key."""
    if as_json:
        blocks = [
            {"file": str(file), "title": described.title, "facts": dict(described.facts)}
            for file in files
            for described in describe(read_file(file), file, _now())
        ]
        click.echo(json.dumps(blocks, indent=2))
        return
    for file in files:
        for described in describe(read_file(file), file, _now()):
            _print(f"{file}: {described.title}")
            for name, value in described.facts:
                _print(f"  {name:<10}  {value}")


@certs.command("check")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
def check_command(directory: Path) -> None:
    """Say what a node with the files of DIR would reject and why; exit with 1 if anything.

    DIR has ca.pem, and NAME.pem with NAME.key, or tls.crt with tls.key. A certificate without a key
    beside it is checked as that of a peer.
    """
    findings = inspect(directory, _now())
    width = max(len(finding.file) for finding in findings)
    for finding in findings:
        verdict = click.style(f"{finding.verdict:<7}", fg=COLORS[finding.verdict])
        click.echo(f"{printable(finding.file):<{width}}  {verdict}  {printable(finding.text)}")
    rejected = [finding for finding in findings if finding.verdict == "rejected"]
    if rejected:
        count = "1 thing" if len(rejected) == 1 else f"{len(rejected)} things"
        raise LocalError(f"{count} in {directory} would be rejected, the first: {rejected[0].text}")


def _load_authority(directory: Path) -> Authority:
    """Return the CA of a directory: of a bundle the one that `ca.key` belongs to."""
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if not certificate.exists() and not key.exists():
        raise ConfigInvalid(f"{directory} has no CA; make one: noti certs init --dir {directory}")
    held = pem.certificates(read_file(certificate), certificate)
    private, _ = pem.private_key(read_file(key), key)
    kinds = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if not isinstance(private, kinds | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        raise ConfigInvalid(f"{key} cannot sign certificates; use an ECDSA, RSA or EdDSA key")
    for candidate in held:
        if pem.is_pair(candidate, private):
            if not is_authority(candidate):
                raise ConfigInvalid(f"{certificate} is not a CA (it lacks the CA flag)")
            if candidate.not_valid_after_utc < _now():
                raise ConfigInvalid(f"{certificate} has expired; make a new CA: see tls/README.md")
            return Authority(candidate, private)
    raise ConfigInvalid(f"{key} is not the key of a CA in {certificate}; give the pair")


def _names_to_keep(certificate: Path, name: str, client: bool) -> list[str]:
    """Return the names in a certificate to be renewed; raises if it is another holder's."""
    [held, *_] = pem.certificates(read_file(certificate), certificate)
    named = claims_of(held)
    if name not in (named.client_names if client else named.node_names):
        wanted = f"client {name}" if client else f"node {name}"
        raise ConfigInvalid(f"{certificate} is for {named}, not for {wanted}; issue another one")
    kept = x509.DNSName | x509.IPAddress | x509.UniformResourceIdentifier
    return [name_text(item) for item in alternative_names(held) if isinstance(item, kept)]


def _hosts(dns: Sequence[str], ip: Sequence[str]) -> list[str]:
    for host in dns:
        if not HOST.fullmatch(host):
            raise click.UsageError(f"--dns {host!r} is not a host name; write app.example.com")
    for address in ip:
        try:
            ip_address(address)
        except ValueError:
            raise click.UsageError(f"--ip {address!r} is not an IP address") from None
    return [*(f"DNS:{host}" for host in dns), *(f"IP:{address}" for address in ip)]


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} is not a name; use 1 to 128 letters, digits, dots and hyphens"
        )
    if name == CA:
        raise click.UsageError(f"{CA!r} is the name of the CA's own files; choose another")


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{directory} cannot be made: {error.strerror}") from None


def _check_none_exists(files: Sequence[Path]) -> None:
    """Raise for the first file that exists, before any is written."""
    for file in files:
        if file.exists():
            raise LocalError(
                f"{file} exists and is kept; choose another --dir, or renew certificates with"
                " noti certs issue --renew"
            )


def _write(directory: Path, name: str, made: Issued, *, replace: bool) -> None:
    write_file(directory / f"{name}.key", made.key_pem, private=True, replace=replace)
    write_file(directory / f"{name}.pem", made.certificate_pem, private=False, replace=replace)


def _until(made: Issued) -> str:
    return moment(made.certificate.not_valid_after_utc)


def _now() -> datetime:
    return datetime.now(UTC)


def _print(line: str) -> None:
    click.echo(printable(line))
