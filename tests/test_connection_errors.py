"""Why a connection failed is told in the words of the system, whichever library met it."""

import itertools
import socket
import ssl

import httpx
import pytest

from noti.connection_errors import NO_TLS, needs_ca, origin_of, reason_of

REFUSED = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
UNKNOWN = socket.gaierror(-2, "Name or service not known")


def wrapped(*errors: Exception) -> Exception:
    """Return the last error, which wraps the one before, and so on."""
    for inner, outer in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[-1]


def refused_certificate(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = "words of OpenSSL"
    return error


def test_a_failed_connection_has_the_words_of_its_first_attempt() -> None:
    assert reason_of(REFUSED) == "Connection refused"
    several = OSError("all attempts to connect failed")
    several.__cause__ = ExceptionGroup("", [REFUSED, OSError("no words")])
    assert reason_of(several) == "Connection refused"
    assert reason_of(OSError("no words")) == "no words"
    named = OSError(111, "Error connecting to ('::1', 9, 0, 0): Connection refused")
    assert reason_of(named) == "Connection refused"
    several = OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 113] nothing")
    assert reason_of(several) == "Connection refused"


def test_a_name_that_does_not_resolve_is_named() -> None:
    error = wrapped(UNKNOWN, OSError("wrapped"), httpx.ConnectError("[Errno -2] Name or …"))
    assert reason_of(error, "nats") == "cannot resolve nats (Name or service not known)"
    assert reason_of(error) == "cannot resolve its name (Name or service not known)"


@pytest.mark.parametrize("code", [18, 19, 20])
def test_a_certificate_of_a_stranger_asks_for_another_file_of_authorities(code: int) -> None:
    error = wrapped(refused_certificate(code), httpx.ConnectError("[SSL: …] (_ssl.c:1006)"))
    assert needs_ca(error)
    assert reason_of(error).startswith("it shows a")


def test_an_expired_certificate_does_not_ask_for_other_authorities() -> None:
    assert not needs_ca(refused_certificate(10))
    assert not needs_ca(REFUSED)


def test_plain_text_where_tls_was_wanted_is_told() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    error.reason = "WRONG_VERSION_NUMBER"
    assert reason_of(error) == NO_TLS


def test_errors_that_wrap_each_other_in_a_ring_have_no_origin() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert origin_of(first) is None
    assert reason_of(first) == "a"


def test_an_error_without_words_has_the_name_of_its_class() -> None:
    assert reason_of(EOFError()) == "EOFError"
