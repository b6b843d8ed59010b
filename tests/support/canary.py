"""Searches a cluster for passwords: in what pods log, measure and have in their environment, and in every object but Secrets."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Final

from examples.wordnet.steps import members
from examples.wordnet.steps.kubernetes import Manifest
from examples.wordnet.steps.report import StepError
from examples.wordnet.steps.world import SEARCH, SYSTEM, World

# Arguments count as well: everybody on the node sees them.
ENVIRONMENTS: Final = """
import pathlib, sys
for process in pathlib.Path("/proc").glob("[0-9]*"):
    for name in ("environ", "cmdline"):
        try:
            sys.stdout.write((process / name).read_bytes().decode(errors="replace"))
        except OSError:
            pass  # it ended, or belongs to another user
"""


def passwords(scene: World) -> dict[str, str]:
    """Return every password that is in a Secret of the two namespaces, by the Secret's name."""
    found = {}
    for namespace in (SEARCH, SYSTEM):
        for secret in scene.kubernetes.items("secrets", f"--namespace={namespace}"):
            if encoded := secret.get("data", {}).get("password"):
                found[f"{namespace}/{secret['metadata']['name']}"] = base64.b64decode(encoded).decode()
    return found


def find(scene: World, needles: Mapping[str, str]) -> list[str]:
    """Return where one of the needles is, each place with the needle's name and never the needle."""
    forms = {form: name for name, needle in needles.items() for form in _forms(needle)}
    found = set()
    for place, text in _read(scene):
        found |= {f"{place}: {name}" for form, name in forms.items() if form in text}
    return sorted(found)


def _forms(needle: str) -> list[str]:
    """Return a needle as it is, and what base64 makes of it wherever it stands in a longer text."""
    encoded = []
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + needle.encode()).decode().rstrip("=")
        encoded.append(text[4 if shift else 0 : -2])  # the first and last characters also depend on what stands beside it
    return [needle, *encoded]


def _read(scene: World) -> Iterator[tuple[str, str]]:
    yield from _read_objects(scene)
    for namespace in (SEARCH, SYSTEM):
        for pod in scene.kubernetes.items("pods", f"--namespace={namespace}"):
            if "deletionTimestamp" not in pod["metadata"]:  # it may be gone before its log is read
                yield from _read_pod(scene, namespace, pod)


def _read_objects(scene: World) -> Iterator[tuple[str, str]]:
    """Yield every object that can be listed, of all kinds but Secrets."""
    kinds = scene.kubernetes.kubectl("api-resources", "--verbs=list", "--output=name").split()
    shown = ",".join(kind for kind in kinds if kind != "secrets")
    listed = scene.kubernetes.kubectl("get", shown, "--all-namespaces", "--output=json", "--ignore-not-found", timeout_seconds=120)
    for item in json.loads(listed)["items"]:
        meta = item["metadata"]
        about = item.get("involvedObject") or item.get("regarding")
        subject = (
            f"event of {about.get('namespace')}/{about['name']}" if about else f"{item['kind']} {meta.get('namespace', '')}/{meta['name']}"
        )
        yield subject, json.dumps(item)


def _read_pod(scene: World, namespace: str, pod: Manifest) -> Iterator[tuple[str, str]]:
    """Yield log, metrics and environments of a pod, also what its container logged before it was restarted."""
    name = pod["metadata"]["name"]
    place = f"{namespace}/{name}"
    options = (f"--namespace={namespace}", name, "--all-containers", "--tail=-1")
    yield f"log of {place}", scene.kubernetes.kubectl("logs", *options)
    if any(container["restartCount"] for container in pod["status"].get("containerStatuses", [])):
        yield f"former log of {place}", scene.kubernetes.kubectl("logs", *options, "--previous")
    if pod["status"]["phase"] == "Running":
        yield f"environment of {place}", scene.kubernetes.execute(namespace, name, "python3", "-c", ENVIRONMENTS)
        for path in ("/metrics", "/v1/status"):
            try:
                yield f"metrics of {place}", members.fetch(scene, namespace, name, path)
            except StepError:
                continue  # it has no such port, as Postgres and the client
