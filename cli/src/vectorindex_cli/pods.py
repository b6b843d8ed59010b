"""Asks a pod over HTTP, by way of the API server and the kubelet: what `kubectl port-forward` does, so no NetworkPolicy is in its way."""

import http.client
import re
from http import HTTPStatus
from typing import Final, NamedTuple

from kubernetes.client import ApiClient, ApiException, CoreV1Api
from kubernetes.stream import portforward

from vectorindex_cli.errors import AccessError, CliError, UnreachableError

_TIMEOUT_SECONDS: Final = 30
_MOST_BYTES: Final = 8 * 2**20
_REFUSED: Final = re.compile(r"Handshake status (\d+)")
_NEEDED: Final = "it takes the right to forward ports to pods (`pods/portforward`), which the role `edit` has"


class Place(NamedTuple):
    """A port of a pod."""

    namespace: str
    pod: str
    port: int


class Reply(NamedTuple):
    """What a pod answered."""

    status: int
    body: bytes


def ask_pod(client: ApiClient, place: Place, path: str, body: bytes | None = None) -> Reply:
    """Return the answer of the pod; a body makes it a POST of JSON. Raises CliError when there is no way to it."""
    namespace, pod, port = place
    try:
        forward = portforward(
            CoreV1Api(client).connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port), _request_timeout=_TIMEOUT_SECONDS
        )
    except ApiException as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # the client takes that for a failure of its own
            raise error.__context__ from None
        raise _explain(error, f"{namespace}/{pod}") from error
    try:
        tube = forward.socket(port)
        tube.settimeout(_TIMEOUT_SECONDS)
        connection = http.client.HTTPConnection(pod, port, timeout=_TIMEOUT_SECONDS)
        connection.sock = tube
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request("GET" if body is None else "POST", path, body, {"Connection": "close", **headers})
        response = connection.getresponse()
        return Reply(response.status, response.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException) as error:
        why = forward.error(port) or type(error).__name__
        raise UnreachableError(f"pod {namespace}/{pod} does not answer on port {port}: {why}") from error
    finally:
        forward.close()


def _explain(error: ApiException, name: str) -> CliError:
    """Return what the client's error means; the status of the handshake is only told as text."""
    found = _REFUSED.search(str(error.reason))
    status = int(found[1]) if found else 0
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return AccessError(f"you may not reach pod {name}: {_NEEDED}")
    if status == HTTPStatus.NOT_FOUND:
        return UnreachableError(f"there is no pod {name} any more: ask again")
    return UnreachableError(f"the API server can't forward a port to pod {name}: {status or str(error.reason)[:200]}")
