"""Asks the Kubernetes API for one object, as the service account of this pod; blocks.

For a pod that stops: `client.py` can do more, but loading what it needs takes most of a second of a
processor, which the others need then.
"""

import http.client
import os
import ssl
from pathlib import Path
from typing import Final

from noti.errors import ConfigInvalid, KubernetesFailed, KubernetesForbidden
from noti.kubernetes.api import Resource
from noti.kubernetes.decoding import decode_object, explanation, failure
from noti.kubernetes.objects import Object

DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts the token and the CA of the API server."""

ANSWER_BYTES_MAX: Final = 4 << 20
"""etcd takes objects of 1.5 MiB."""


def get(
    resource: Resource,
    namespace: str,
    name: str,
    within_s: float,
    directory: Path | None = None,
) -> Object:
    """Return an object; connecting, and each part of the answer, may take `within_s` seconds.

    `directory` is `DIRECTORY`, but in tests.

    Raises `ConfigInvalid` outside of a pod, and `KubernetesFailed` as `KubernetesApi.get` does.
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdecimal():
        raise ConfigInvalid("no way to the Kubernetes API: this is no pod with a service account")
    path, directory = resource.path(namespace, name), directory or DIRECTORY
    what = f"GET {path}"
    try:
        # Not the default context: from Python 3.13 it refuses CAs that clusters have.
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(directory / "ca.crt")
        token = (directory / "token").read_text().strip()
    except (OSError, ValueError) as error:
        raise KubernetesForbidden(f"{what}: no token and CA in {directory} ({error})") from None
    connection = http.client.HTTPSConnection(host, int(port), context=tls, timeout=within_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        content = answer.read(ANSWER_BYTES_MAX)
    except TimeoutError:
        raise KubernetesFailed(f"{what}: no answer in time") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise KubernetesFailed(f"{what}: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        problem = f"{what}: {answer.status} {explanation(content, answer.reason)}"
        raise failure(answer.status, problem)
    return decode_object(content, what)
