"""Tracing is on, or says what is missing."""

import sys

import pytest

from noti.errors import ConfigInvalid
from noti.tracing.open_telemetry import OpenTelemetryTracer
from noti.tracing.switching import tracer_of


def test_without_opentelemetry_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "noti.tracing.open_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(ConfigInvalid, match=r"opentelemetry.* is not installed: pip install 'noti"):
        tracer_of("node1")


def test_with_it_there_is_a_tracer() -> None:
    assert isinstance(tracer_of("node1", 2), OpenTelemetryTracer)
