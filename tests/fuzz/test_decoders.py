"""No bytes from outside get anything out of a decoder but a value or its documented exception."""

import pytest
from hypothesis import HealthCheck, given, settings

from tests import promises
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

EXAMPLES_MAX = 150
"""A short run; `just fuzz minutes=N` is the long one."""


@promises.INVALID_BYTES_STOP_NO_NODE
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_wrong_bytes_are_refused_with_the_documented_exception(target: Target) -> None:
    for example in target.examples:
        target.decode(example)

    @settings(max_examples=EXAMPLES_MAX, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(target.examples))
    def fuzz(data: bytes) -> None:
        target.try_bytes(data)

    fuzz()
