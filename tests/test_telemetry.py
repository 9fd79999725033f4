"""Log lines: their forms, and that no secret gets into them."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest

from noti import __version__, telemetry
from tests.logs import kept_as_they_are


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    with kept_as_they_are():
        yield io.StringIO()


def test_lines_are_json_outside_a_terminal(output: io.StringIO) -> None:
    telemetry.set_up(stream=output)
    structlog.get_logger("noti.room").info("it happened", count=3)
    line = json.loads(output.getvalue())
    assert (line["event"], line["count"]) == ("it happened", 3)
    assert (line["level"], line["logger"]) == ("info", "noti.room")


def test_lines_of_libraries_take_the_same_way(output: io.StringIO) -> None:
    telemetry.set_up(stream=output)
    logging.getLogger("nats.aio").warning("lost %s", "nats://user:hush@host")
    line = json.loads(output.getvalue())
    assert (line["event"], line["logger"]) == ("lost nats://***@host", "nats.aio")


def test_lines_for_people_have_no_colour_codes_in_a_file(output: io.StringIO) -> None:
    telemetry.set_up(form="human", stream=output)
    structlog.get_logger("noti.room").info("it happened", count=3)
    assert "it happened" in output.getvalue()
    assert "count=3" in output.getvalue()
    assert "\x1b" not in output.getvalue()


def test_lines_below_the_level_are_not_written(output: io.StringIO) -> None:
    telemetry.set_up(level="warning", stream=output)
    structlog.get_logger("noti.room").info("quiet")
    logging.getLogger("nats").info("quiet")
    assert output.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "human"])
def test_a_traceback_shows_no_values_of_variables(output: io.StringIO, form: str) -> None:
    telemetry.set_up(form=form, stream=output)  # type: ignore[arg-type]

    def fail(innocent_name: str) -> None:
        raise ValueError(f"no luck with nats://user:{innocent_name}@host")

    try:
        fail("hu" + "sh")
    except ValueError:
        structlog.get_logger("noti.room").exception("failed")
    assert "no luck with nats://***@host" in output.getvalue()
    assert "hush" not in output.getvalue()


@pytest.mark.parametrize(
    "secret",
    [
        {"token": "hush"},
        {"Authorization": "hush"},
        {"header": "Bearer hush"},
        {"path": "/.well-known/mercure?topic=a&authorization=hush&x=1"},
        {"url": "tls://user:hush@host"},
        {"url": "tls://user:a/hush@b?hush#hush@host"},
        {"proxy_authorization": "hush"},
        {"error": ValueError("nats://hush@host")},
        {"nested": {"urls": ["nats://hush@host"]}},
    ],
)
def test_secrets_are_masked(secret: dict[str, object]) -> None:
    assert "hush" not in str(telemetry.redact(None, "info", dict(secret)))


def test_what_is_no_secret_stays() -> None:
    event = {"event": "a peer left", "peer": "10.0.0.1:8401", "url": "http://host/?topic=a", "n": 1}
    event["contact"] = "mailto:ops@example.com"
    assert telemetry.redact(None, "info", dict(event)) == event


def test_the_build_names_the_version() -> None:
    assert telemetry.build().startswith(f"{__version__} (")


def test_metrics_have_no_series_of_when_they_were_made(output: io.StringIO) -> None:
    telemetry.set_up(stream=output)
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    assert b"_created" not in generate_latest(registry)


def test_metrics_report_which_build_runs() -> None:
    telemetry.show_build()
    shown = generate_latest().decode()
    assert f'noti_build_info{{build="{telemetry.build()}",version="{__version__}"}} 1.0' in shown


def nested() -> ExceptionGroup[Exception]:
    """What nurseries make of two tasks that fail: twelve groups around them."""

    def innermost_frame() -> None:
        raise KeyError("the cause")

    errors: list[Exception] = []
    for text in ("one", "two"):
        try:
            try:
                innermost_frame()
            except KeyError as error:
                raise ValueError(text) from error
        except ValueError as error:
            errors.append(error)
    group: ExceptionGroup[Exception] = ExceptionGroup("innermost", errors)
    for _ in range(12):
        group = ExceptionGroup("Exceptions from Trio nursery", [group])
    return group


@pytest.mark.parametrize("how", ["the error", "a tuple", "where it is handled"])
def test_of_nested_groups_the_innermost_errors_are_logged_each_with_its_own_frames(
    how: str, output: io.StringIO
) -> None:
    telemetry.set_up(form="json", stream=output)
    try:
        raise nested()
    except ExceptionGroup as group:
        raised = {
            "the error": group,
            "a tuple": (type(group), group, group.__traceback__),
            "where it is handled": True,
        }
        structlog.get_logger("noti.room").error("internal error", exc_info=raised[how])
    text = json.loads(output.getvalue())["exception"]
    assert text.count("ValueError: one") == text.count("ValueError: two") == 1
    assert text.count("KeyError: 'the cause'") == text.count("in innermost_frame") == 2
    for word in ("Group", "+-", "max_group_depth", "nursery"):
        assert word not in text
    assert len(text) < 3000


def test_groups_and_cancellations_in_which_an_error_came_about_are_left_out(
    output: io.StringIO,
) -> None:
    telemetry.set_up(form="human", stream=output)
    try:
        try:
            raise asyncio.CancelledError
        finally:
            raise AssertionError("must be connected first")
    except AssertionError as error:
        structlog.get_logger("noti.room").error("internal error", exc_info=error)
    assert "must be connected first" in output.getvalue()
    assert "CancelledError" not in output.getvalue()


def test_of_very_many_errors_some_are_logged() -> None:
    group = ExceptionGroup("", [ValueError(number) for number in range(300)])
    text = telemetry.innermost_tracebacks(group)
    assert "ValueError: 9\n" in text
    assert text.endswith("and 290 more")
