from noti.streams.end_reason import EndReason
from tests.soak.watch import NOT_SLOW, parsed


def test_counters_are_read_by_reason() -> None:
    metrics = (
        "# TYPE noti_streams_clients_closed_total counter\n"
        'noti_streams_clients_closed_total{reason="behind"} 3.0\n'
        'noti_streams_clients_closed_total{reason="disconnected"} 1.2e+03\n'
        "noti_streams_clients 5.0\n"
    )
    assert parsed(metrics) == {"behind": 3, "disconnected": 1200}


def test_reasons_are_those_that_a_node_reports() -> None:
    assert {reason.value for reason in EndReason} > NOT_SLOW
