"""`just k8s-rehearsal`: runs the rehearsal in namespaces of its own, or says why it cannot."""

import sys
import tempfile

from tests.interop.nginx import nginx_root
from tests.interop.rehearsal.namespaces import obstacle, run_inside
from tests.k8s.helm import helm

NOT_RUN = 77
"""What a test exits with that was not run, for automake and others."""


def main() -> int:
    if sys.argv[1:] not in ([], ["keys"], ["tls"]):
        print("rehearsal: nothing may be given but `keys`, or `tls`", file=sys.stderr)
        return 2
    program, root, reason = helm(), nginx_root(), obstacle()
    if program is None:
        reason = "it needs `helm`, which could not be fetched; put it on the PATH"
    if root is None:
        reason = "it needs nginx: apt-get install nginx-light"
    if reason is not None or program is None or root is None:
        print(f"NOT RUN: {reason}", file=sys.stderr)
        return NOT_RUN
    with tempfile.TemporaryDirectory(prefix="noti-rehearsal-") as directory:
        inside = [sys.executable, "-m", "tests.interop.rehearsal.inside"]
        nginx = str(root / "usr/sbin/nginx")
        return run_inside([*inside, str(program), nginx, directory, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
