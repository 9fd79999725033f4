"""What the operator counts, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge

from noti.errors import (
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)

HOLDS_LEASE: Final = Gauge(
    "noti_operator_holds_lease", "1 in the operator that works, 0 in one that waits."
)
CHECKERS: Final = Gauge(
    "noti_operator_checkers",
    "LeaderStatusCheckers by what was found, in the one that works.",
    ["reason"],
)
LABEL_PATCHES: Final = Counter(
    "noti_operator_label_patches_total", "Pods whose labels were changed."
)
ROLE_QUESTIONS: Final = Counter(
    "noti_operator_role_questions_total", "Questions to nodes for their role.", ["answered"]
)
for _answered in ("yes", "no"):
    ROLE_QUESTIONS.labels(_answered)
API_FAILURES: Final = Counter(
    "noti_operator_api_failures_total",
    "Requests to the Kubernetes API that failed while something had to be written.",
    ["kind"],
)
for _kind in (KubernetesFailed, KubernetesForbidden, ObjectAbsent, ObjectConflict, VersionGone):
    API_FAILURES.labels(_kind.__name__)  # from zero, as alerts see only what grows
RELISTS: Final = Counter(
    "noti_operator_relists_total",
    "Times that changes were forgotten by the API and all was listed anew.",
)
