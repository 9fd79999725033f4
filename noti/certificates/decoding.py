"""Decodes certificates to the last field, so that nothing fails later on.

`cryptography` decodes a field when it is read, and has errors of its own for some of them.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm


def decode_certificate(encoded: bytes) -> x509.Certificate:
    """Return a certificate from DER or one PEM block; raises `ValueError`."""
    is_pem = encoded.startswith(b"-----BEGIN ")
    load = x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate
    try:
        certificate = load(encoded)
        _ = (
            certificate.subject.rfc4514_string(),
            certificate.issuer.rfc4514_string(),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            certificate.serial_number,
            certificate.public_key(),
            list(certificate.extensions),
        )
    except (
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
        TypeError,
    ) as error:
        raise ValueError(str(error)) from None
    return certificate
