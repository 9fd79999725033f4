"""How often and how patiently a node gossips.

Enters: nothing. Leaves: `SwimConfig`, with Serf's LAN values, and its Local profile.
Never: formulas that need the cluster's size; they live where they are used.
"""

from dataclasses import dataclass

from noti.errors import ConfigInvalid


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """Timing of gossip. The defaults are those of a Serf agent, which suit one data centre."""

    probe_interval_s: float = 1.0
    """One member is probed per interval."""
    probe_timeout_s: float = 0.5
    """A direct ping's answer later than this makes us ask others; less than the interval."""
    indirect_checks: int = 3
    """How many members are asked to ping a silent one."""
    suspicion_multiplier: int = 4
    """Shortest suspicion, in probe intervals, for up to ten members."""
    suspicion_max_multiplier: int = 6
    """Longest suspicion (without confirmations), in shortest ones."""
    retransmit_multiplier: int = 4
    """Sends of each broadcast, per decimal digit of the cluster's size."""
    gossip_interval_s: float = 0.2
    gossip_nodes: int = 3
    """Members to which queued broadcasts go in each interval."""
    gossip_to_dead_s: float = 30.0
    """A member dead for less than this still gets gossip, so that it can refute."""
    push_pull_interval_s: float = 30.0
    """Full state is exchanged with one member per interval (longer above 32 members)."""
    stream_timeout_s: float = 10.0
    """Limit of one TCP exchange, connecting included."""
    reconnect_interval_s: float = 30.0
    """One lost member, and each seed that is not a live member, is dialled per interval."""
    seed_retry_min_s: float = 0.5
    """First pause after a seed did not answer; doubles up to the reconnect interval."""
    forget_after_s: float = 24 * 3600.0
    """A member dead for so long is forgotten (Serf's ReconnectTimeout)."""
    left_forget_s: float = 3600.0
    """A member that left is forgotten after this: it said that it would not be missed."""
    members_max: int = 128
    """Members remembered, those dead or left included; attackers may bring more. The cluster's own
    nodes find room always."""
    unacked_max: int = 128
    """Newcomers being asked at a time: real ones answer within a round trip, invented ones never;
    larger clusters take some exchanges to know each other."""
    packet_bytes_max: int = 1400
    """Packets are filled up to this: below the usual MTU less the IP and UDP headers."""
    leave_s: float = 1.0
    """Leaving takes this long: time to spread the word, and to answer probes meanwhile."""

    def __post_init__(self) -> None:
        if not 0 < self.probe_timeout_s < self.probe_interval_s:
            raise ConfigInvalid("gossip probe timeout must be shorter than the probe interval")

    @classmethod
    def local(cls) -> "SwimConfig":
        """Return Serf's Local profile, for nodes on one machine; only reconnecting is quicker."""
        return cls(
            probe_timeout_s=0.2,
            indirect_checks=1,
            suspicion_multiplier=3,
            retransmit_multiplier=2,
            gossip_interval_s=0.1,
            gossip_to_dead_s=15.0,
            push_pull_interval_s=15.0,
            stream_timeout_s=1.0,
            reconnect_interval_s=5.0,
            seed_retry_min_s=0.1,
        )
