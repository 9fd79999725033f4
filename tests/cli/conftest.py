"""What the tests of commands share: commands that set up logs do so in the tests' own process."""

from collections.abc import Iterator

import pytest

from tests.logs import kept_as_they_are


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    with kept_as_they_are():
        yield
