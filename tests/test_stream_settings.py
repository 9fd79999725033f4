"""Tables of streams hold what they say, and refuse what NATS would."""

import pytest
from pydantic import ValidationError

from noti.stream_settings import (
    StreamSettings,
    SubjectSettings,
    problems_of_streams,
    stream_of_flags,
    subject_covers,
    subjects_overlap,
)


@pytest.mark.parametrize("name", ["jobs", "a-b_C1", "x" * 128])
def test_stream_has_a_name_that_nats_takes(name: str) -> None:
    subject = SubjectSettings(subject="a.>", decoder="text")
    assert StreamSettings(name=name, subjects=(subject,)).name == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 129])
def test_stream_name_that_nats_refuses_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="NATS name"):
        StreamSettings(name=name, subjects=())


@pytest.mark.parametrize("subject", ["", "a..b", "a.>.b", "a b", ".a"])
def test_subject_that_nats_refuses_is_refused(subject: str) -> None:
    with pytest.raises(ValidationError, match="NATS subject"):
        SubjectSettings(subject=subject, decoder="text")


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a.>", False),
        ("a.*", "a.*", True),
        ("a.b", "a.*", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.*.c", True),
        ("a.>", "a.>", True),
        (">", "a", True),
        ("*.b", "a.b", True),
        ("a.>", "a.b.>", True),
        ("a.b.>", "a.>", False),
        ("*.b", "a.>", False),
    ],
)
def test_pattern_covers_what_nats_would_deliver(pattern: str, subject: str, expected: bool) -> None:
    assert subject_covers(pattern, subject) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.*.c", "a.b.*", True),
        ("a.*", "b.*", False),
        ("a.>", "*.b", True),
        ("a.>", "a", False),
        ("a.*", "a.b.c", False),
        ("a.*", "a.>", True),
        ("a.b.>", "a.>", True),
        (">", "a.b", True),
    ],
)
def test_patterns_overlap_when_a_subject_matches_both(one: str, other: str, expected: bool) -> None:
    assert subjects_overlap(one, other) is subjects_overlap(other, one) is expected


def stream(*subjects: str, name: str = "s", dead_letter: str | None = None) -> StreamSettings:
    read = tuple(SubjectSettings(subject=one, decoder="text") for one in subjects)
    return StreamSettings(name=name, subjects=read, dead_letter=dead_letter)


def test_filters_leave_out_what_another_subject_holds() -> None:
    assert stream("a.b.c", "a.b.>", "a.>", "b.*").filters == ("a.>", "b.*")


@pytest.mark.parametrize(
    ("streams", "problem"),
    [
        ([stream("a.>", name=f"s{number}") for number in range(17)], "17 streams; 16 are allowed"),
        ([stream("a"), stream("b")], "stream s twice"),
        ([stream()], "no subjects"),
        ([stream(*(f"a.{number}" for number in range(65)))], "65 subjects; 64 are allowed"),
        ([stream("a.>", "a.b")], "a.b is never reached behind a.>; put the narrower first"),
        ([stream("a.b", "a.b")], "a.b is never reached behind a.b; remove one"),
        ([stream("a.*.c", "a.b.*")], "neither holds the other"),
        ([stream("a.>", dead_letter="a.dead")], "would be read as an event, by stream s at a.>"),
        ([stream("a"), stream("noti.>", name="t")], "to noti.dead-letter.s would be read"),
    ],
)
def test_streams_that_cannot_be_read_are_refused(
    streams: list[StreamSettings], problem: str
) -> None:
    assert problem in str(list(problems_of_streams(streams)))


def test_all_that_is_wrong_with_streams_is_told() -> None:
    problems = problems_of_streams(
        [stream("a.>", "a.b", "c.*.d", "c.b.*", dead_letter="a.dead"), stream(name="empty")]
    )
    told = ("never reached", "neither holds the other", "read as an event", "no subjects")
    assert [word in problem for word, problem in zip(told, problems, strict=True)] == [True] * 4


def test_streams_may_share_subjects_as_a_mirror_does() -> None:
    assert not list(problems_of_streams([stream("a.>"), stream("a.>", name="mirror")]))
    assert not list(problems_of_streams([stream("a.b", "a.>"), stream(">", name="all")]))


def test_descriptor_set_goes_with_the_decoder_protobuf_alone() -> None:
    for given in ({"decoder": "protobuf", "message": "a.B"}, {"decoder": "json", "message": "a.B"}):
        one = SubjectSettings.model_validate({"subject": "a", **given})
        [problem] = problems_of_streams([StreamSettings(name="s", subjects=(one,))])
        assert "descriptor_set" in problem


def test_flags_make_a_stream_with_defaults_that_suit_its_name() -> None:
    def made(name: str, *subjects: str) -> list[tuple[str, str]]:
        flags = stream_of_flags(name, subjects, None, None, None)
        return [(one.subject, one.decoder) for one in flags.subjects]

    assert made("jobs") == [("jobs.noti.>", "category")]
    assert made("orders") == [(">", "text")]
    assert made("orders", "a", "b") == [("a", "text"), ("b", "text")]
    flags = stream_of_flags("s", ["a"], "json", "{1}", "dead")
    assert (flags.subjects[0].decoder, flags.subjects[0].topic) == ("json", "{1}")
    assert flags.dead_letter_subject == "dead"
    assert stream_of_flags("s", ["a"], None, None, None).dead_letter_subject == "noti.dead-letter.s"


@pytest.mark.parametrize("subject", ["$JS.API.STREAM.DELETE.jobs", "a\0b", "a.*", "a b"])
def test_dead_letter_subject_that_is_not_for_messages_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="dead_letter"):
        stream("a.>", dead_letter=subject)
