"""Keeps the streams of one audience together, and knows which groups have something to get.

Enters: streams that come and go, audiences with news. Leaves: groups, and where their members in
step are. Never: I/O, sending.
"""

from noti.streams.feed import Audience, Feed
from noti.streams.open_streams import Group


class Groups:
    """The groups of one hub."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._by_audience: dict[Audience, Group] = {}
        self.lagging: dict[Audience, Group] = {}
        """Those that have not been sent everything up to `passed_seq`."""
        self.passed_seq = 0
        """Up to here, all groups that had something to get were returned by `pass_on`."""

    def enter(self, audience: Audience) -> Group:
        """Count one more stream of `audience`."""
        group = self._by_audience.get(audience)
        if group is None:
            group = self._by_audience[audience] = Group(audience, self.passed_seq)
            self._feed.watch(audience)
            self.lagging[audience] = group
        group.streams += 1
        return group

    def leave(self, group: Group) -> None:
        """Count one stream less."""
        group.streams -= 1
        if group.streams == 0:
            del self._by_audience[group.audience]
            self.lagging.pop(group.audience, None)
            self._feed.forget(group.audience)

    def pass_on(self) -> list[Group]:
        """Let all that the feed has be sent; return the groups that lag now."""
        for audience in self._feed.with_news():
            if (group := self._by_audience.get(audience)) is not None:
                self._lag(group)
        self.passed_seq = self._feed.retained.newest_seq
        return list(self.lagging.values())

    def lag_all(self) -> None:
        """Let every group be looked at in the next pass."""
        for group in self._by_audience.values():
            self._lag(group)

    def _lag(self, group: Group) -> None:
        if not group.lagging:
            group.cursor = self.passed_seq
            group.lagging = True
        self.lagging[group.audience] = group

    def settle(self, group: Group) -> None:
        """Note that a group has been sent everything up to `passed_seq`."""
        group.lagging = False
        if self.lagging.get(group.audience) is group:  # and not a new one of the same audience
            del self.lagging[group.audience]

    def cursor_of(self, group: Group) -> int:
        """Return where a group's members in step are."""
        return group.cursor if group.lagging else self.passed_seq
