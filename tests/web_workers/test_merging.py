"""Promises of metrics that several processes have measured together."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from noti.web_workers.merging import MergedRegistry, families_of, lasting, merged


def registry(count: int, clients: float, age_s: float, reason: str = "aged") -> CollectorRegistry:
    """Return what one process has measured."""
    one = CollectorRegistry()
    closed = Counter("noti_closed_total", "Streams closed.", ["reason"], registry=one)
    closed.labels(reason).inc(count)
    Gauge("noti_streams_clients", "Streams.", registry=one).set(clients)
    Gauge("noti_streams_clients_max", "At most.", registry=one).set(60)
    Gauge("noti_streams_pressure", "Pressure.", registry=one).set(clients / 100)
    expiry = Gauge("noti_tls_certificate_expiry_seconds", "Expiry.", ["use"], registry=one)
    expiry.labels("http").set(1000 + clients)
    Histogram("noti_age_seconds", "Ages.", registry=one, buckets=(1, 5)).observe(age_s)
    return one


def lines(*registries: CollectorRegistry) -> list[str]:
    families = merged(map(families_of, registries), {"noti_streams_clients_max": 100})
    return generate_latest(MergedRegistry(families)).decode().splitlines()


def test_metrics_of_one_process_are_as_they_were() -> None:
    one = registry(3, 5, 0.5)
    assert lines(one) == generate_latest(one).decode().splitlines()


def test_amounts_are_added_up_and_the_worst_of_what_is_no_amount_counts() -> None:
    shown = lines(registry(3, 5, 0.5), registry(4, 7, 2.0), registry(1, 1, 9.0, "full"))
    for line in (
        'noti_closed_total{reason="aged"} 7.0',
        'noti_closed_total{reason="full"} 1.0',
        "noti_streams_clients 13.0",
        "noti_streams_clients_max 100.0",
        "noti_streams_pressure 0.07",
        'noti_tls_certificate_expiry_seconds{use="http"} 1001.0',
        'noti_age_seconds_bucket{le="1.0"} 1.0',
        'noti_age_seconds_bucket{le="5.0"} 2.0',
        'noti_age_seconds_bucket{le="+Inf"} 3.0',
        "noti_age_seconds_count 3.0",
        "noti_age_seconds_sum 11.5",
    ):
        assert line in shown
    assert len(shown) == len(set(shown)), "each stands there once"


def test_what_a_process_has_counted_stays_when_it_ends_and_its_gauges_go() -> None:
    ended = lasting(families_of(registry(3, 5, 0.5)))
    assert {family.name for family in ended} == {"noti_closed", "noti_age_seconds"}
    again = merged([ended, lasting(families_of(registry(4, 7, 2.0)))])
    (closed,) = [family for family in again if family.name == "noti_closed"]
    assert closed.samples == [("noti_closed_total", {"reason": "aged"}, 7.0)]
