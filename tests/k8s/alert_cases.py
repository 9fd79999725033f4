"""For each alert, series that make it fire: well, ill for longer than any wait, well again.

Enters: nothing. Leaves: values of each minute. Never: Prometheus.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

WELL: Final = 30
ILL: Final = 75
AFTER: Final = 75
"""Minutes: longer than any range or wait of an alert."""
ABSENT: Final = "_"

Series: TypeAlias = Mapping[str, str]


def gauge(well: object, ill: object) -> str:
    """Return the values of what is one thing, then another, then the first again."""
    return " ".join(map(str, [well] * WELL + [ill] * ILL + [well] * AFTER))


def counter(well: int, ill: int) -> str:
    """Return the values of what grows by so much a minute."""
    values = [0]
    for growth, minutes in ((well, WELL), (ill, ILL), (well, AFTER)):
        values += [values[-1] + growth * (number + 1) for number in range(minutes)]
    return " ".join(map(str, values[1:]))


def histogram(name: str, well: str, ill: str, labels: str = "") -> Series:
    """Return the buckets of what takes at most `well`, then at most `ill`, then `well` again."""
    return {
        f'{name}_bucket{{{labels}le="{well}"}}': counter(60, 0),
        f'{name}_bucket{{{labels}le="{ill}"}}': counter(60, 60),
        f'{name}_bucket{{{labels}le="+Inf"}}': counter(60, 60),
    }


ALWAYS: Final = {f'noti_raft_is_leader{{instance="{name}"}}': gauge(0, 0) for name in "ab"}
VOTERS: Final = {'noti_raft_nodes{instance="a", vote="yes"}': gauge(3, 3)}

CASES: Final[Mapping[str, Series]] = {
    "NotiIsGone": {"noti_raft_is_leader": gauge(1, ABSENT)},
    "NotiHasNoLeader": ALWAYS | {'noti_raft_is_leader{instance="c"}': gauge(1, 0)},
    "NotiNodeIsDown": ALWAYS | VOTERS | {'noti_raft_is_leader{instance="c"}': gauge(1, ABSENT)},
    "NotiNodeIsNotReady": {'noti_trouble_since_seconds{trouble="quorum"}': gauge(0, 3600)},
    "NotiNodeIsBehind": {
        'noti_raft_commit_index{instance="a"}': gauge(5000, 5000),
        'noti_raft_commit_index{instance="b"}': gauge(4999, 3000),
    },
    "NotiChangesLeaders": {'noti_raft_elections_total{outcome="won"}': counter(0, 1)},
    "NotiDiskHangs": {'noti_trouble_since_seconds{trouble="disk"}': gauge(0, 3600)},
    "NotiDiskIsSlow": histogram("noti_raft_disk_write_seconds", "0.1", "1"),
    "NotiIsBusy": histogram("noti_loop_lag_seconds", "0.1", "1"),
    "NotiPartFails": {'noti_part_failures_total{part="connection"}': counter(0, 1)},
    "NotiVersionsDiffer": {
        'noti_build_info{instance="a", version="1"}': gauge(1, 1),
        'noti_build_info{instance="b", version="1"}': gauge(1, ABSENT),
        'noti_build_info{instance="b", version="2"}': gauge(ABSENT, 1),
    },
    "NotiRejectsGossip": {
        'noti_swim_packets_rejected_total{reason="undecryptable"}': counter(0, 60)
    },
    "NotiGossipsWithoutUdp": {"noti_swim_members_tcp_only": gauge(0, 1)},
    "NotiSourceIsNotRead": {
        'noti_source_state{instance="a", stream="s", state="reading"}': gauge(1, 0),
        'noti_source_state{instance="b", stream="s", state="reading"}': gauge(0, 0),
    },
    "NotiSourceStandsStill": {
        'noti_source_pending{stream="s"}': gauge(5, 5),
        'noti_source_events_total{stream="s", outcome="committed"}': counter(1, 0),
    },
    "NotiSourceLags": {'noti_source_pending{stream="s"}': gauge(5, 5000)},
    "NotiSourceIsSlow": {
        'noti_source_oldest_unacknowledged_seconds{stream="s"}': gauge(0, 100),
    },
    "NotiSourceExpires": {'noti_source_expired_total{stream="s"}': counter(0, 1)},
    "NotiRejectsMessages": {
        'noti_source_dead_letters_total{stream="s", outcome="copied"}': counter(0, 1)
    },
    "NotiLosesMessages": {
        'noti_source_dead_letters_total{stream="s", outcome="refused"}': counter(0, 1)
    },
    "NotiPublishersWait": {"noti_pacing_held_seconds_total": counter(0, 60)},
    "NotiRejectsPublishers": {'noti_publish_rejected_total{reason="Overloaded"}': counter(0, 1)},
    "NotiEventsAreLate": histogram("noti_streams_event_age_seconds", "0.1", "10"),
    "NotiBacklogIsNearItsBound": {
        "noti_streams_backlog_bytes": gauge(0, 90),
        "noti_streams_backlog_bytes_max": gauge(100, 100),
    },
    "NotiDisconnectsBrowsers": {
        'noti_streams_clients_closed_total{reason="overrun"}': counter(1, 20),
        "noti_streams_clients": gauge(100, 100),
    },
    "NotiNodeIsOverloaded": {"noti_pacing_disregarded_total": counter(0, 1)},
    "NotiHasFewPlacesLeft": {
        "noti_streams_clients": gauge(800, 950),
        "noti_streams_clients_max": gauge(1000, 1000),
    },
    "NotiRejectsConnections": {
        'noti_connections_rejected_total{listener="http", reason="node"}': counter(1, 10)
    },
    "NotiRejectsSettings": {"noti_settings_rejected": gauge(0, 1)},
    "NotiAwaitsRestart": {"noti_settings_awaiting_restart": gauge(0, 2)},
    "NotiWebWorkersDie": {"noti_web_workers_replaced_total": counter(0, 1)},
    "NotiForgetsSubscribers": {"noti_presence_dropped_total": counter(0, 1)},
    "NotiCertificateEnds": {"noti_tls_certificate_expiry_seconds": gauge(10**7, 600_000)},
    "NotiCertificateEndsAtOnce": {"noti_tls_certificate_expiry_seconds": gauge(600_000, 100_000)},
    "NotiRejectsNodes": {'noti_tls_rejected_total{at="rpc", reason="expired"}': counter(0, 10)},
    "NotiIssuerIsAway": {
        'noti_jwks_fetches_total{outcome="ok"}': counter(1, 0),
        'noti_jwks_fetches_total{outcome="failed"}': counter(0, 1),
    },
    "NotiOperatorIsGone": {
        'noti_operator_holds_lease{instance="a"}': gauge(1, 0),
        'noti_operator_holds_lease{instance="b"}': gauge(0, ABSENT),
    },
    "NotiOperatorCannotWrite": {
        'noti_operator_api_failures_total{kind="KubernetesForbidden"}': counter(0, 1)
    },
    "NotiOperatorFindsNoLeader": {
        'noti_operator_checkers{reason="NoLeader"}': gauge(ABSENT, 1),
        'noti_operator_checkers{reason="LeaderKnown"}': gauge(1, ABSENT),
    },
}
