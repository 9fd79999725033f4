"""Makes the tracer of a process, where one is wanted."""

from typing import Protocol

from noti.errors import ConfigInvalid
from noti.tracing.ports import Tracer


class RunningTracer(Tracer, Protocol):
    """A tracer with a task of its own."""

    async def run(self) -> None:
        """Send spans away until cancelled."""


def tracer_of(name: str, web_worker: int = 0) -> RunningTracer:
    """Return the tracer of a node, or of one of its web workers; its task is not started.

    Raises `ConfigInvalid` when OpenTelemetry is not there, or does not take its settings.
    """
    try:
        # Here, so that nodes that do not trace start without it, and do not need it.
        from noti.tracing.open_telemetry import OpenTelemetryTracer
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"--tracing needs OpenTelemetry, and {error.name} is not installed: pip install"
            " 'noti[otel]'"
        ) from None
    return OpenTelemetryTracer(name, web_worker)
