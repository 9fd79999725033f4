"""Why one side of a TLS connection rejects the other, as a reason to count and a line to log.

A line holds no text from the other side.
"""

import ssl
from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "protocol",  # older than TLS 1.3, or no cipher in common
    "plain",  # spoke without TLS
    "tls",  # spoke TLS where there is none
    "missing",  # showed no certificate
    "self_signed",
    "issuer",  # no chain to a CA that we trust
    "expired",
    "not_yet_valid",
    "usage",  # not meant for what it was used for
    "unnamed",  # names neither a node nor a client
    "name",  # names another node
    "cluster",  # names a node of another cluster
    "rejected_us",  # the other side did not accept our certificate
    "other",
]
"""Labels of the counter of rejections: bounded, as every label must be."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a peer was rejected."""

    reason: Reason
    text: str
    """One line, to be put behind the peer's address: `10.0.0.3:8400 <text>`."""

    def __str__(self) -> str:
        return self.text


_STRANGE_CA = Rejection("issuer", "shows a certificate of a CA that is not in our CA file")
_NO_CA = Rejection("issuer", "shows a certificate whose issuer is no CA")
_BY_VERIFY_CODE: dict[int, Rejection] = {
    # Numbers of X509_V_ERR_* in openssl/x509_vfy.h; they are part of its stable interface.
    9: Rejection("not_yet_valid", "shows a certificate that is not yet valid; check both clocks"),
    10: Rejection("expired", "shows a certificate that has expired; renew it there"),
    18: Rejection(
        "self_signed", "shows a self-signed certificate; issue one from the cluster's CA"
    ),
    19: _STRANGE_CA,
    20: _STRANGE_CA,
    21: _STRANGE_CA,
    7: Rejection("issuer", "shows a certificate whose signature is not of the CA that it names"),
    24: _NO_CA,  # OpenSSL 1.1
    79: _NO_CA,
    26: Rejection("usage", "shows a certificate that is not meant for this use"),
    66: Rejection("other", "shows a certificate with a key that is too weak"),
}
_BY_REASON: dict[str, Rejection] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Rejection("missing", "shows no certificate"),
    "UNSUPPORTED_PROTOCOL": Rejection("protocol", "does not speak TLS 1.3"),
    "NO_PROTOCOLS_AVAILABLE": Rejection("protocol", "does not speak TLS 1.3"),
    "VERSION_TOO_LOW": Rejection("protocol", "does not speak TLS 1.3"),
    "NO_SHARED_CIPHER": Rejection("protocol", "has no TLS cipher in common with us"),
    "HTTP_REQUEST": Rejection("plain", "speaks plain HTTP where TLS is required"),
    "WRONG_VERSION_NUMBER": Rejection("plain", "speaks plain text where TLS is required"),
    "PACKET_LENGTH_TOO_LONG": Rejection("plain", "speaks plain text where TLS is required"),
    "TLSV1_ALERT_PROTOCOL_VERSION": Rejection("protocol", "does not speak TLS 1.3"),
}
_ALERTS = {
    # The alerts of the other side when it rejects our certificate (RFC 8446, 6.2).
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "wants a certificate and got none",
    "TLSV1_ALERT_UNKNOWN_CA": "does not know the CA of our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "says that our certificate is revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": "says that our certificate is bad",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "says that our certificate is not meant for this use",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "does not accept our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "does not let us in",
    "TLSV1_ALERT_DECRYPT_ERROR": "cannot verify our certificate",
}


def handshake_rejection(error: ssl.SSLError) -> Rejection:
    """Return why a handshake failed, from what `ssl` raised on our side."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _BY_VERIFY_CODE.get(error.verify_code)
        return known or Rejection("other", f"shows a bad certificate: {error.verify_message}")
    reason = error.reason or ""
    if reason in _ALERTS:
        return Rejection("rejected_us", _ALERTS[reason])
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    return Rejection("other", f"fails in the TLS handshake: {_words(reason) or 'connection lost'}")


def _words(reason: str) -> str:
    """Return OpenSSL's `NO_SUITABLE_KEY_SHARE` as `no suitable key share`."""
    return reason.lower().replace("_", " ")
