"""Tables of streams hold what they say, and refuse what NATS would."""

import pytest
from pydantic import ValidationError

from noti.stream_settings import StreamSettings, SubjectSettings


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
