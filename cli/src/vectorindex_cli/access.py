"""Reads and writes VectorIndexes at the API server that a kubeconfig names, and turns its refusals into sentences."""

import argparse
import contextlib
import email.utils
import http
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api, CustomObjectsApi

from vectorindex_cli.errors import AccessError, CliError, ConflictError, UnreachableError
from vectorindex_cli.names import API_GROUP, API_VERSION, PLURAL
from vectorindex_cli.resource import Json, parse_index

_TIMEOUT_SECONDS: Final = 30
_QUICK_SECONDS: Final = 3  # for what a shell asks while somebody types
_ROLES: Final = {"get": "view", "list": "view", "patch": "edit"}


class Answer(NamedTuple):
    """An object, and the time at the API server: the one that replicas share, whatever this machine's clock says."""

    document: Json
    now: datetime


class Indexes:
    """The VectorIndexes of one namespace."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.client = client
        self._api = CustomObjectsApi(client)

    def read(self, name: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> Answer:
        """Return the VectorIndex of this name."""
        with self._told("get", name):
            document, _, headers = self._api.get_namespaced_custom_object_with_http_info(
                *self._where(name), _request_timeout=timeout_seconds
            )
        return Answer(cast(Json, document), _time_of(headers))

    def patch(self, name: str, patch: Json) -> Json:
        """Apply a merge patch and return the object as it is then."""
        with self._told("patch", name):
            document = self._api.patch_namespaced_custom_object(
                *self._where(name), patch, _content_type="application/merge-patch+json", _request_timeout=_TIMEOUT_SECONDS
            )
        return cast(Json, document)

    def list_names(self) -> list[str]:
        """Return the names of the VectorIndexes there are, quickly or not at all."""
        with self._told("list", "of any name"):
            found = cast(Json, self._api.list_namespaced_custom_object(*self._where("")[:-1], _request_timeout=_QUICK_SECONDS))
        return [str(one["metadata"]["name"]) for one in found["items"]]

    def list_namespaces(self) -> list[str]:
        """Return the names of all namespaces, quickly or not at all."""
        with self._told("list", "of any name"):
            found = CoreV1Api(self.client).list_namespace(_request_timeout=_QUICK_SECONDS)
        return [str(one.metadata.name) for one in found.items if one.metadata]

    def _where(self, name: str) -> tuple[str, str, str, str, str]:
        return API_GROUP, API_VERSION.rpartition("/")[2], self.namespace, PLURAL, name

    @contextlib.contextmanager
    def _told(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise _explain(error, verb, f"{self.namespace}/{name}") from error
        except urllib3.exceptions.HTTPError as error:
            host = self._api.api_client.configuration.host
            why = getattr(error, "reason", None) or error
            raise UnreachableError(
                f"the API server {host} does not answer ({type(why).__name__}): is the context the one you mean?"
            ) from error


def connect(kubeconfig: str | None, context: str | None, namespace: str | None, tries: int | None = None) -> Indexes:
    """Return the VectorIndexes of the namespace named, or of that of the context; `tries` limits those of one request."""
    with _reading_kubeconfig():
        contexts, current = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        chosen = current if context is None else next((one for one in contexts if one["name"] == context), None)
        if chosen is None:
            raise AccessError(f"the kubeconfig has no context {context}; it has: {', '.join(one['name'] for one in contexts)}")
        configuration = Configuration()
        config.load_kube_config(kubeconfig, chosen["name"], configuration, persist_config=False)  # type: ignore[no-untyped-call]
        if tries is not None:
            configuration.retries = tries - 1
        return Indexes(ApiClient(configuration), namespace or chosen["context"].get("namespace") or "default")


@contextlib.contextmanager
def _reading_kubeconfig() -> Iterator[None]:
    advice = "Name one with --kubeconfig or KUBECONFIG"
    try:
        yield
    except (config.ConfigException, OSError) as error:
        raise AccessError(f"no usable kubeconfig: {str(error).rstrip('.')}. {advice}") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:  # what it holds is told to nobody
        raise AccessError(f"no usable kubeconfig: it is not of the form that kubectl writes ({type(error).__name__}). {advice}") from error


def look_up(kind: str, values: argparse.Namespace) -> list[str]:
    """Return the names that could be meant, for the completion of what is typed; raise CliError where there is no way to them."""
    kubeconfig, context, namespace, name = (getattr(values, one, None) for one in ("kubeconfig", "context", "namespace", "name"))
    if kind == "context":
        return _read_contexts(kubeconfig)
    indexes = connect(kubeconfig, context, namespace, tries=1)
    if kind in ("namespace", "operator_namespace"):
        return indexes.list_namespaces()
    if kind == "name":
        return indexes.list_names()
    if kind in ("plans", "replica") and name:
        status = parse_index(indexes.read(name, _QUICK_SECONDS).document).status
        return [plan.id for plan in status.held_plans] if kind == "plans" else [member.pod for member in status.members]
    return []


def _read_contexts(kubeconfig: str | None) -> list[str]:
    with _reading_kubeconfig():
        contexts, _ = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        return [str(one["name"]) for one in contexts]


def _explain(error: ApiException, verb: str, name: str) -> CliError:
    said, status = _message_of(error), error.status or 0
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return UnreachableError(f"the API server can't {verb} VectorIndex {name} now: {status} {said}")
    if status == http.HTTPStatus.CONFLICT:
        return ConflictError(f"VectorIndex {name} changes again and again meanwhile: try again")
    if status == http.HTTPStatus.NOT_FOUND and not said:
        return AccessError(f"this cluster knows no VectorIndexes, so there is no {name}: install the chart, or choose another --context")
    texts: dict[int, str] = {
        http.HTTPStatus.UNAUTHORIZED: "the API server does not know who you are: log in again, or choose another --context",
        http.HTTPStatus.FORBIDDEN: f"you may not {verb} VectorIndex {name}: ask for the role `{_ROLES[verb]}` there ({said})",
        http.HTTPStatus.NOT_FOUND: f"there is no VectorIndex {name}: look for it with `kubectl get vidx --all-namespaces`",
    }
    return AccessError(texts.get(status) or f"the API server refuses to {verb} VectorIndex {name}: {status} {said}")


def _message_of(error: ApiException) -> str:
    """Return the message of a Kubernetes Status; the address of an unknown kind answers with other text."""
    try:
        document = json.loads(error.body or "")
    except ValueError:
        return ""
    return str(document.get("message", "")) if isinstance(document, Mapping) else ""


def _time_of(headers: Mapping[str, Any] | None) -> datetime:
    try:
        return email.utils.parsedate_to_datetime(str((headers or {})["Date"])).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)
