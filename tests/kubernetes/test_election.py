"""Who holds the Lease: never two, never nobody for long."""

from copy import deepcopy

import pytest

from noti.kubernetes.election import Election, LeaseTimes
from noti.kubernetes.objects import Object

TIMES = LeaseTimes()


class Candidate:
    """One operator, with its own clock."""

    def __init__(self, name: str) -> None:
        self.election = Election(name, "noti", "shop", TIMES)

    def tries(self, lease: Object | None, now: float) -> Object | None:
        """Look, and write if that may be; return the Lease as it is then."""
        wanted = self.election.looked(deepcopy(lease), now, f"wall {now}")
        if wanted is None:
            return lease
        metadata = {**wanted["metadata"], "resourceVersion": str(now)}
        written = {**wanted, "metadata": metadata}
        self.election.wrote(deepcopy(written), now)
        return written

    def holds(self, now: float) -> bool:
        ends_at = self.election.ends_at
        return ends_at is not None and now < ends_at


def test_the_first_makes_the_lease_and_the_second_waits() -> None:
    a, b = Candidate("a"), Candidate("b")
    lease = a.tries(None, 0)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseDurationSeconds"] == TIMES.duration_s
    assert b.tries(lease, 100) == lease
    assert a.holds(1)
    assert not b.holds(100)
    assert b.election.holder == "a"


def test_a_lease_that_is_renewed_is_never_taken() -> None:
    a, b = Candidate("a"), Candidate("b")
    lease = a.tries(None, 0)
    for now in range(0, 100, 2):
        lease = a.tries(lease, now)
        lease = b.tries(lease, 1000 + now)
        assert a.holds(now)
        assert not b.holds(1000 + now)
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 1
    assert lease["spec"]["acquireTime"] == "wall 0"
    assert lease["spec"]["renewTime"] == "wall 98"


def test_a_lease_that_does_not_change_is_taken_after_its_duration_and_not_before() -> None:
    a, b = Candidate("a"), Candidate("b")
    lease = a.tries(None, 0)
    assert b.tries(lease, 500) == lease
    assert b.tries(lease, 500 + TIMES.duration_s - 0.1) == lease
    taken = b.tries(lease, 500 + TIMES.duration_s)
    assert taken is not None
    assert taken["spec"]["holderIdentity"] == "b"
    assert taken["spec"]["leaseTransitions"] == 2


def test_a_holder_that_cannot_renew_stops_before_another_begins() -> None:
    a = Candidate("a")
    a.tries(None, 0)
    assert a.holds(TIMES.renew_within_s - 0.1)
    assert not a.holds(TIMES.renew_within_s)
    assert TIMES.renew_within_s < TIMES.duration_s


def test_who_sees_another_holder_stops_at_once() -> None:
    a, b = Candidate("a"), Candidate("b")
    lease = a.tries(None, 0)
    b.tries(lease, 0)
    taken = b.tries(lease, 15)
    a.tries(taken, 1)
    assert not a.holds(1)


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    a, b = Candidate("a"), Candidate("b")
    a.tries(None, 0)
    given = a.election.resign("wall")
    assert given is not None
    assert given["spec"]["leaseDurationSeconds"] == 1, "for candidates that look at nothing else"
    assert not a.holds(1)
    taken = b.tries(given, 0)
    assert taken is not None
    assert taken["spec"]["holderIdentity"] == "b"
    assert b.holds(1)
    assert a.election.resign("wall") is None


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {},
        {"holderIdentity": None, "leaseDurationSeconds": None},
        {"holderIdentity": 7, "leaseTransitions": "many"},
    ],
)
def test_a_lease_with_nonsense_in_it_is_taken(spec: object) -> None:
    a = Candidate("a")
    lease = a.tries({"metadata": {"name": "noti"}, "spec": spec}, 0)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["spec"]["leaseTransitions"] == 1


def test_lease_without_a_spec_is_free_and_stays_the_releases() -> None:
    """The chart makes it so; labels, which Helm knows it by, are kept."""
    made: Object = {
        "metadata": {"name": "noti", "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    }
    wanted = Candidate("a").election.looked(made, 0.0, "now")
    assert wanted is not None
    assert wanted["spec"]["holderIdentity"] == "a"
    assert wanted["metadata"] == made["metadata"]
