"""Puts logs back to how pytest has them, after a test in whose process something set them up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def kept_as_they_are() -> Iterator[None]:
    """Undo at the end what `telemetry.set_up` did in the body."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
