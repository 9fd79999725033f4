"""Remembers which member an identity belongs to: who proved it first, or whom the cluster knows.

Enters: members, the identities of the cluster's own nodes. Leaves: owners, who may be forgotten.
Never: a proof of who a node is; without TLS or a key, that it was the first is all there is.

Nodes show their identity as a tag, which everybody can read and copy.
"""

from collections.abc import Mapping

from noti.swim.core.members import ID_TAG, Members, Record


class Identities:
    """Who is who, as one node sees it."""

    def __init__(self, me: Record, members: Members) -> None:
        self._me = me
        self._members = members
        self._protected: Mapping[str, str] = {}
        self._shown_by: dict[str, str] = {}
        """Names by identity, as noted; a member may be gone, or show another one, since."""

    def protect(self, names: Mapping[str, str]) -> None:
        """Take the identities of the cluster's own nodes, each with its name or an empty one."""
        self._protected = dict(names)

    def is_protected(self, record: Record) -> bool:
        """Whether a member is never to be forgotten: a node of the cluster, or this one."""
        return record is self._me or record.tags.get(ID_TAG) in self._protected

    def owner_of(self, identity: str) -> str | None:
        """Return the name of the node that has an identity; None when it is nobody's yet."""
        if identity == self._me.tags.get(ID_TAG):
            return self._me.name
        known = self._protected.get(identity)
        if known:
            return known
        shown_by = self._members.get(self._shown_by.get(identity, ""))
        if shown_by is None or shown_by.tags.get(ID_TAG) != identity:
            return None
        return shown_by.name

    def note(self, record: Record) -> None:
        """Note the identity of a member, if it shows one, which is nobody else's."""
        identity = record.tags.get(ID_TAG)
        if not identity:
            return
        self._shown_by[identity] = record.name
        if len(self._shown_by) > 2 * len(self._members):
            shown = {each.tags.get(ID_TAG): each.name for each in self._members}
            self._shown_by = {identity: name for identity, name in shown.items() if identity}

    def longest_absent(self) -> Record | None:
        """Return the member to be forgotten first for a new one, if one is dead or left."""
        absent = (
            each for each in self._members if not each.present and not self.is_protected(each)
        )
        return min(absent, key=lambda record: record.changed_at, default=None)

    def latest_foreigner(self) -> Record | None:
        """Return the member that joined last, of those that are no nodes of the cluster."""
        foreign = (each for each in self._members if not self.is_protected(each))
        return max(foreign, key=lambda record: record.joined_at, default=None)
