"""Reads what a support bundle of one VectorIndex holds. What may not be read is noted and stops nothing; Secrets are never asked for."""

import http
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import urllib3
from kubernetes.client import ApiClient, ApiException

from vectorindex_cli.bundle import Bundle, describe
from vectorindex_cli.errors import CliError
from vectorindex_cli.names import (
    API_VERSION,
    COMPONENT_LABEL,
    INDEX_LABEL,
    METRICS_PATH,
    OPERATOR_COMPONENT,
    OPS_PORT,
    PLURAL,
    STATUS_PATH,
)
from vectorindex_cli.pods import Place, ask_pod
from vectorindex_cli.resource import Json, VectorIndex
from vectorindex_cli.version import VERSION

MOST_LOG_BYTES: Final = 4 * 2**20
MOST_EVENTS: Final = 500
_TIMEOUT_SECONDS: Final = 30
_OPERATOR: Final = f"app.kubernetes.io/part-of=vectorindex,{COMPONENT_LABEL}={OPERATOR_COMPONENT}"

_CHILDREN: Final = (
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("Pod", "/api/v1", "pods"),
    ("ConfigMap", "/api/v1", "configmaps"),
    ("Service", "/api/v1", "services"),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices"),
    ("PersistentVolumeClaim", "/api/v1", "persistentvolumeclaims"),
    ("PodDisruptionBudget", "/apis/policy/v1", "poddisruptionbudgets"),
    ("NetworkPolicy", "/apis/networking.k8s.io/v1", "networkpolicies"),
)


class Gatherer:
    """Reads everything about one VectorIndex."""

    def __init__(self, client: ApiClient, index: VectorIndex, log_lines: int) -> None:
        self._client = client
        self._index = index
        self._log_lines = log_lines
        self.bundle = Bundle()

    def gather(self, document: Json, status: str, operator_namespace: str | None, now: datetime) -> Bundle:
        """Return all that could be read; `document` is the resource, and `status` what `status` shows of it."""
        namespace, name = self._index.metadata.namespace, self._index.metadata.name
        self.bundle.add_object("vectorindex.yaml", document)
        self.bundle.add_text("status.txt", status + "\n")
        children = {kind: self._add_list(kind, f"{base}/namespaces/{namespace}/{plural}") for kind, base, plural in _CHILDREN}
        self._add_events(namespace, name)
        for pod in children["Pod"]:
            self._add_logs(pod, "pods")
            self._add_answers(pod)
        operators = self._find_operators(operator_namespace)
        for pod in operators:
            self.bundle.add_object(f"operator/{_name_of(pod)}/pod.yaml", pod)
            self._add_logs(pod, "operator")
        for where in dict.fromkeys(pod["metadata"]["namespace"] for pod in operators):
            for one in self._read_list("Deployment", f"/apis/apps/v1/namespaces/{where}/deployments", _OPERATOR):
                self.bundle.add_object(f"operator/deployment-{_name_of(one)}.yaml", one)
        self._add_versions([*children["Pod"], *operators])
        self.bundle.files["contents.txt"] = describe(self.bundle, self._index, now).encode()
        return self.bundle

    # --- parts

    def _add_list(self, kind: str, path: str) -> list[Json]:
        found = self._read_list(kind, path, f"{INDEX_LABEL}={self._index.metadata.name}")
        for one in found:
            self.bundle.add_object(f"objects/{kind.lower()}-{_name_of(one)}.yaml", one)
        return found

    def _read_list(self, kind: str, path: str, selector: str) -> list[Json]:
        """Return the objects; lists leave out kind and version of their items."""
        body = self._read(f"{kind} objects in {path}", path, labelSelector=selector)
        if body is None:
            return []
        document = json.loads(body)
        return [{"apiVersion": document["apiVersion"], "kind": kind, **one} for one in document["items"]]

    def _add_events(self, namespace: str, name: str) -> None:
        body = self._read(f"events in {namespace}", f"/api/v1/namespaces/{namespace}/events")
        if body is None:
            return
        own = [one for one in json.loads(body)["items"] if _concerns(one.get("involvedObject") or {}, name)]
        lines = sorted(_describe_event(one) for one in own)[-MOST_EVENTS:]
        self.bundle.add_text("events.txt", "\n".join([*lines, ""]))

    def _add_logs(self, pod: Json, folder: str) -> None:
        meta, state = pod["metadata"], pod.get("status") or {}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/log"
        containers = [*(state.get("initContainerStatuses") or []), *(state.get("containerStatuses") or [])]
        if not containers:
            self.bundle.note(f"logs of {meta['namespace']}/{meta['name']}", "no container has run yet")
        for container in containers:
            limits = {"container": container["name"], "tailLines": str(self._log_lines), "limitBytes": str(MOST_LOG_BYTES)}
            file = f"{folder}/{meta['name']}/{container['name']}"
            what = f"log of {meta['namespace']}/{meta['name']}, container {container['name']}"
            log = self._read(what, path, timestamps="true", **limits)
            if log is not None:
                self.bundle.add_text(f"{file}.log", log.decode(errors="replace"))
            if container.get("restartCount"):
                log = self._read(f"{what}, before its restart", path, timestamps="true", previous="true", **limits)
                if log is not None:
                    self.bundle.add_text(f"{file}.previous.log", log.decode(errors="replace"))

    def _add_answers(self, pod: Json) -> None:
        """Add what a replica says of itself, where the way to its pod is open."""
        meta = pod["metadata"]
        if not (pod.get("status") or {}).get("podIP"):
            return
        for path, file in ((STATUS_PATH, "status.json"), (METRICS_PATH, "metrics.txt")):
            try:
                reply = ask_pod(self._client, Place(meta["namespace"], meta["name"], OPS_PORT), path)
            except CliError as error:
                self.bundle.note(f"{path} of {meta['namespace']}/{meta['name']}", str(error))
                return
            self.bundle.add_text(f"pods/{meta['name']}/{file}", reply.body.decode(errors="replace"))

    def _find_operators(self, namespace: str | None) -> list[Json]:
        """Return the operator's pods: where they are said to be, else in all namespaces, else in that of the index."""
        own = self._index.metadata.namespace
        tries = [f"/api/v1/namespaces/{namespace}/pods"] if namespace else ["/api/v1/pods", f"/api/v1/namespaces/{own}/pods"]
        missed = len(self.bundle.not_read)
        for path in tries:
            found = self._read_list("Pod", path, _OPERATOR)
            if found:
                return found
        if len(self.bundle.not_read) == missed:
            self.bundle.note("the operator's pods", f"there are none with the labels {_OPERATOR} in {tries[0]}")
        return []

    def _add_versions(self, pods: Iterable[Json]) -> None:
        definition = f"{PLURAL}.{API_VERSION.partition('/')[0]}"
        server = self._read("the API server's version", "/version")
        crd = self._read("the definition", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition}")
        images = {
            f"{one['metadata']['name']}/{container['name']}": {"image": container.get("image"), "imageID": container.get("imageID")}
            for one in pods
            for container in (one.get("status") or {}).get("containerStatuses") or []
        }
        told: Json = {"kubectl-vectorindex": VERSION, "images": images}
        if server is not None:
            told["kubernetes"] = json.loads(server).get("gitVersion")
        if crd is not None:
            document = json.loads(crd)
            told["definition"] = {
                "generation": document["metadata"].get("generation"),
                "labels": document["metadata"].get("labels"),
                "storedVersions": document.get("status", {}).get("storedVersions"),
            }
        self.bundle.add_object("versions.yaml", told)

    # --- reading

    def _read(self, what: str, path: str, /, **query: str) -> bytes | None:
        """Return the answer's body, or None and a note when it may not or can't be read."""
        try:
            request = self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json, */*"},
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=_TIMEOUT_SECONDS)
            body: bytes = response.read()  # type: ignore[no-untyped-call]
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            self.bundle.note(what, f"the API server does not answer ({type(error).__name__})")
            return None
        if response.status == http.HTTPStatus.OK:
            return body
        self.bundle.note(what, f"{response.status} {_message_of(body)}")
        return None


def _name_of(document: Json) -> str:
    return str(document["metadata"]["name"])


def _concerns(subject: Mapping[str, Any], name: str) -> bool:
    return subject.get("name") == name or str(subject.get("name", "")).startswith(f"{name}-index")


def _describe_event(event: Mapping[str, Any]) -> str:
    at = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "-"
    subject = event.get("involvedObject") or {}
    count = f" x{event['count']}" if (event.get("count") or 1) > 1 else ""
    who = f"{subject.get('kind')}/{subject.get('name')}"
    return f"{at} {event.get('type')} {event.get('reason')} {who}{count}: {event.get('message')}"


def _message_of(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("message", "")) if isinstance(document, Mapping) else ""
