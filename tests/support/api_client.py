"""A quick client of the API server for tests that ask hundreds of times: one connection that stays open, where kubectl starts a process."""

import base64
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

Json = dict[str, Any]

PATHS = {
    "VectorIndex": ("/apis/vectorindex.dev/v1alpha1", "vectorindexes"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Pod": ("/api/v1", "pods"),
    "PriorityClass": ("/apis/scheduling.k8s.io/v1", "priorityclasses"),
}


class ApiClient:
    """The API server, as the administrator of a kubeconfig. Use as a context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {user['token']}"}
        self._client = httpx.Client(base_url=cluster["server"], verify=context, headers=headers, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> Json:
        """Return what is at a path; raise AssertionError with what the API server says of it otherwise."""
        return _expect(self._client.get(path, params=query))

    def read_all(self, kind: str, namespace: str) -> list[Json]:
        """Return all objects of a kind in a namespace."""
        items: list[Json] = self.get(_path(kind, namespace))["items"]
        return [{"kind": kind, **item} for item in items]

    def create(self, manifest: Json, *, dry_run: bool = False) -> tuple[Json | None, str]:
        """Create an object, unknown fields being errors as for kubectl; return it, or None and why it is refused."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        answer = self._client.post(_path(manifest["kind"], manifest["metadata"].get("namespace", "")), json=manifest, params=query)
        return (answer.json(), "") if answer.is_success else (None, str(answer.json()["message"]))

    def apply(self, manifest: Json) -> Json:
        """Apply an object on the server's side, as somebody who keeps it in a file does."""
        meta = manifest["metadata"]
        path = f"{_path(manifest['kind'], meta['namespace'])}/{meta['name']}"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        query = {"fieldManager": "test", "force": "true"}
        return _expect(self._client.patch(path, content=json.dumps(manifest, ensure_ascii=False).encode(), headers=headers, params=query))

    def refuse_status(self, kind: str, namespace: str, name: str, status: Json) -> str:
        """Return why this status of an object would be refused, or nothing; nothing is stored."""
        headers = {"Content-Type": "application/merge-patch+json"}
        content = json.dumps({"status": status}).encode()
        answer = self._client.patch(f"{_path(kind, namespace)}/{name}/status", content=content, headers=headers, params={"dryRun": "All"})
        return "" if answer.is_success else str(answer.json()["message"])

    def set_ready(self, pod: Json) -> None:
        """Do what a kubelet does once a pod's probe succeeds."""
        meta = pod["metadata"]
        body = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        headers = {"Content-Type": "application/strategic-merge-patch+json"}
        path = f"{_path('Pod', meta['namespace'])}/{meta['name']}/status"
        answer = self._client.patch(path, json=body, headers=headers)
        assert answer.is_success or answer.status_code == 404, answer.text  # gone by now

    def delete_all(self, kind: str, namespace: str) -> None:
        """Delete all objects of a kind in a namespace."""
        _expect(self._client.request("DELETE", _path(kind, namespace), json={"propagationPolicy": "Background"}))

    def make_namespace(self, name: str) -> str:
        """Create a namespace and return its name."""
        _expect(self._client.post("/api/v1/namespaces", json={"metadata": {"name": name}}))
        return name


def _path(kind: str, namespace: str) -> str:
    prefix, plural = PATHS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def _expect(answer: httpx.Response) -> Json:
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.text}"
    document: Json = answer.json()
    return document
